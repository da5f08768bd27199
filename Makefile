# Targets set up what they need: in a fresh clone `make test` is enough. `make help` lists them.

PYTHON ?= python3
SEED ?= 0
PRESET ?= tiny
OUT ?= runs/$@-$(PRESET)$(if $(filter-out 0,$(SEED)),-seed$(SEED))
# Folder of the benchmarks and corpora: flores200, nllb_seed, ntrex, mgsm, humaneval, mbpp, codexglue.
DATA ?= $(CALMCTL_DATA)
SOURCES ?= stdlib site-packages
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup lint types format test test-slow test-oldest test-newest extras docs kv ntl translate code adapters smoke smoke-kv smoke-ntl smoke-code wheel-test clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## make .venv and install calmctl into it, with the versions of constraints.txt

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev,gguf]'
	touch $@

lint: $(INSTALLED) ## check style
	$(BIN)/ruff check .

types: $(INSTALLED) ## check types
	$(BIN)/mypy calmctl data_builders evals

format: $(INSTALLED) ## format the code
	$(BIN)/ruff format .

test: $(INSTALLED) ## run the tests, on all cores; ARGS="-k name" goes to pytest
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadscope $(ARGS)

# One process runs a whole file, so that what its tests share is made once. Files are not sorted by how many tests they
# have: of these, a file with one test may take the longest.
test-slow: $(INSTALLED) ## run the tests that take longer, which `make test` leaves out
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadscope --no-loadscope-reorder -m slow $(ARGS)

test-oldest: ## run the tests with the oldest dependencies that pyproject.toml allows (Python 3.11), in .venv-oldest
	$(PYTHON) -m venv .venv-oldest
	$(PYTHON) -m tests.oldest_versions > .venv-oldest/constraints.txt
	.venv-oldest/bin/python -m pip install -c .venv-oldest/constraints.txt -e '.[dev,gguf]'
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -q -n auto --dist loadscope $(ARGS)

# What a plain `pip install` of the wheel gets: no constraints.
test-newest: ## the same with the newest versions that the registry has, in .venv-newest; then use the wheel there
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --upgrade --upgrade-strategy eager -e '.[dev,gguf]'
	OMP_NUM_THREADS=1 .venv-newest/bin/python -m pytest -q -n auto --dist loadscope $(ARGS)
	.ci/wheel-test .venv-newest/bin/python
	.venv-newest/bin/calmctl doctor

extras: $(INSTALLED) ## also install lm-eval, bitsandbytes, TensorBoard, wandb and TRL, so that their tests run
	$(BIN)/python -m pip install -c constraints.txt -e '.[lm-eval,quantized,tracking,trl]'

docs: $(INSTALLED) ## build the documentation as a site, in site/
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[docs]'
	$(BIN)/mkdocs build --strict

kv: $(INSTALLED) ## reproduce the paper's key-value experiment (PRESET=tiny SEED=0 OUT=runs/kv-tiny)
	$(BIN)/calmctl reproduce kv --preset $(PRESET) --seed $(SEED) --out $(OUT) $(ARGS)

ntl: need-data $(INSTALLED) ## reproduce the paper's experiment on low-resource languages (DATA=FOLDER of corpora and benchmarks)
	$(BIN)/calmctl reproduce ntl --preset $(PRESET) --seed $(SEED) --data "$(DATA)" --out $(OUT) $(ARGS)

translate: PRESET = translate
translate: OUT = runs/$(PRESET)$(if $(filter-out 0,$(SEED)),-seed$(SEED))
translate: need-data $(INSTALLED) ## the demonstration: an English model learns to read another one's languages (DATA=FOLDER; MODELS=FOLDER of local models)
	$(BIN)/calmctl reproduce ntl --preset $(PRESET) --seed $(SEED) --data "$(DATA)" --out $(OUT) $(if $(MODELS),\
		anchor.base="$(MODELS)/smollm2" data.tokenizer="$(MODELS)/smollm2" aug.base="$(MODELS)/gemma3") $(ARGS)

code: need-data $(INSTALLED) ## reproduce the paper's experiment on code (DATA=FOLDER of benchmarks); runs what models write, in a sandbox
	$(BIN)/calmctl reproduce code --preset $(PRESET) --seed $(SEED) $(SOURCES:%=--source %) --data "$(DATA)" \
		--allow-code-execution --out $(OUT) $(ARGS)

adapters: PRESET = smollm2
adapters: need-data $(INSTALLED) ## reproduce LLM-Adapters on reasoning sets (DATA=its folder `dataset`; GSM8K=FOLDER; MODELS=FOLDER of local models)
	$(BIN)/calmctl reproduce adapters --preset $(PRESET) --seed $(SEED) --data "$(DATA)" --out $(OUT) \
		$(if $(GSM8K),data.gsm8k="$(GSM8K)") $(if $(MODELS),--anchor "$(MODELS)/smollm2") $(ARGS)

.PHONY: need-data
need-data:
	@test -n "$(DATA)" || { echo "DATA is not set: make ... DATA=FOLDER, with flores200, nllb_seed, humaneval ... in it (docs/experiments.md)" >&2; exit 2; }

smoke: smoke-kv smoke-ntl smoke-code ## run every experiment at toy size, from scratch

smoke-kv: $(INSTALLED)
	rm -rf runs/smoke-kv
	$(BIN)/calmctl reproduce kv --preset smoke --seed $(SEED) --out runs/smoke-kv

smoke-ntl: $(INSTALLED) runs/toy-data
	rm -rf runs/smoke-ntl
	$(BIN)/calmctl reproduce ntl --preset smoke --seed $(SEED) --data "$(or $(DATA),runs/toy-data)" --out runs/smoke-ntl

smoke-code: $(INSTALLED) runs/toy-data
	rm -rf runs/smoke-code
	$(BIN)/calmctl reproduce code --preset smoke --seed $(SEED) --data "$(or $(DATA),runs/toy-data)" \
		--allow-code-execution --out runs/smoke-code

runs/toy-data: $(INSTALLED) tests/toy_benchmarks.py
	rm -rf $@
	$(BIN)/python -m tests.toy_benchmarks $@

wheel-test: $(INSTALLED) ## build the wheel, install it elsewhere and use it there
	.ci/wheel-test $(BIN)/python

clean: ## remove builds and caches; .venv and runs stay
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find calmctl conf data_builders evals tests -name __pycache__ -prune -exec rm -rf {} +
