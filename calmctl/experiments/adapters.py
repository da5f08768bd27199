"""LLM-Adapters' experiment (arXiv 2304.01933): adapters in m_B on its reasoning sets, beside a composition with m_A."""

from dataclasses import replace
from pathlib import Path

from calmctl.baselines.methods import ADAPTERS
from calmctl.errors import UserError
from calmctl.experiments.adapter_config import CHOICES, ReproduceAdaptersConfig
from calmctl.experiments.adapter_systems import AdapterSystems, own_sizes
from calmctl.experiments.deviations import model_in_words
from calmctl.experiments.reproduction import Experiment
from calmctl.experiments.systems import Files

_TRAIN, _VALIDATION = "train.parquet", "validation.parquet"
FILES = Files(anchor=_TRAIN, aug=_TRAIN, composition=_TRAIN, composition_validation=_VALIDATION)
_PUBLISHED_EPOCHS, _PUBLISHED_ROWS, _PUBLISHED_BEAMS = 3, 16, 4


def adapters_experiment(config: ReproduceAdaptersConfig, out: Path) -> Experiment:
    """Return the experiment in the folder `out`.

    Raises:
        UserError: no model or no folder of sets is given.
    """
    if not config.anchor.base:
        raise UserError("anchor.base is not set; give --anchor MODEL, the model that gets adapters")
    if not config.benchmarks:
        raise UserError("benchmarks is not set; give --data FOLDER, the folder `dataset` of LLM-Adapters")
    config = _complete(config)
    return Experiment(
        "adapters", config, config.data, FILES, AdapterSystems, "", _deviations(config), values=own_sizes(config),
        builder="reasoning",
    )  # fmt: skip


def _complete(config: ReproduceAdaptersConfig) -> ReproduceAdaptersConfig:
    """Return the configuration with the data of every task."""
    folder = str(Path(config.benchmarks).expanduser().resolve())
    gsm8k = config.data.gsm8k
    if gsm8k is not None and (there := Path(gsm8k).expanduser()).exists():
        gsm8k = str(there.resolve())  # stages run elsewhere
    changes = {name: replace(each, dataset=each.dataset or folder) for name, each in config.evaluations().items()}
    return replace(config, data=replace(config.data, data_folder=folder, gsm8k=gsm8k), **changes)  # type: ignore[arg-type]


def _deviations(config: ReproduceAdaptersConfig) -> list[str]:
    """Return a sentence for each departure from LLM-Adapters."""
    data, train, found = config.data, config.baseline.train, []
    found.append(f"m_B is {model_in_words(config.anchor)}; the published models have 6 to 13 billion parameters")
    if data.overlaps == "remove":
        found.append("questions of the test sets are taken out of the training data; the published mixes hold many")
    if data.mix == "arithmetic":
        found.append("the mix is of MAWPS's and GSM8K's own training sets; math_10k adds generated rationales and AQuA")
    else:
        found.append("the mix is of the training files that are there; commonsense_170k has those of all eight sets")
    if data.loss_on != "all":
        found.append("the loss is that of the answers; LLM-Adapters also trains on the prompts")
    if not config.published:
        found.append("adapters sit at whole blocks and start at the identity (prefixes: near it)")
    rows = f"{train.batch_tokens} tokens" if train.batch_tokens else f"{train.batch_size} rows"
    found.append(
        f"{train.steps} steps of {rows} instead of {_PUBLISHED_EPOCHS} passes over the data in batches of "
        f"{_PUBLISHED_ROWS}"
    )
    for name in config.tasks:
        settings = config.evaluations()[name]
        if settings.limit:
            found.append(f"{name}: only the first {settings.limit} questions of each set are asked")
        if sets := settings.options.get("sets"):
            found.append(f"{name}: only {', '.join(sets)}")
        if name != "commonsense_likelihood" and settings.decoding.num_beams != _PUBLISHED_BEAMS:
            found.append(f"{name}: decoding is {settings.decoding.name}; LLM-Adapters has {_PUBLISHED_BEAMS} beams")
    prompts = [name for name in config.compare if name in CHOICES and ADAPTERS[CHOICES[name].method].is_prompt]
    if prompts:
        found.append(f"{' and '.join(prompts)}: LLM-Adapters has the code, but no results")
    return found
