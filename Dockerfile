# docker build -t calmctl . && docker run --rm -v "$PWD:/data" calmctl compose --help
# --build-arg PIP_ARGS="..." gives pip more arguments, such as where to find torch's smaller builds for CPUs.
FROM python:3.12-slim

# bubblewrap: the strongest isolation of programs that models write (docs/code-execution.md)
RUN apt-get update \
    && apt-get install -y --no-install-recommends bubblewrap \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/calmctl
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY calmctl calmctl
COPY conf conf
COPY data_builders data_builders
COPY evals evals
ARG PIP_ARGS=""
RUN pip install --no-cache-dir -c constraints.txt $PIP_ARGS '.[gguf]'

# Hub models and datasets are kept in the mounted folder.
ENV HF_HOME=/data/.cache/hub
WORKDIR /data
ENTRYPOINT ["calmctl"]
