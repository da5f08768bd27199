"""LLM-Adapters' experiment (arXiv 2304.01933): adapters in m_B on its reasoning sets, beside a composition with m_A."""

from dataclasses import replace
from pathlib import Path

from calmctl.baselines.methods import ADAPTERS
from calmctl.errors import UserError
from calmctl.experiments.adapter_config import CHOICES, SIZES, ReproduceAdaptersConfig
from calmctl.experiments.adapter_systems import AdapterSystems, own_sizes
from calmctl.experiments.deviations import model_in_words
from calmctl.experiments.planning.trainings import Planner
from calmctl.experiments.reproduction import Experiment, experiment_stages
from calmctl.experiments.systems import Files
from calmctl.modeling.bases.public_shapes import shape_of
from calmctl.reporting.systems_table import SYSTEMS
from data_builders.reasoning.config import ReasoningDataConfig

_TRAIN, _VALIDATION = "train.parquet", "validation.parquet"
FILES = Files(anchor=_TRAIN, aug=_TRAIN, composition=_TRAIN, composition_validation=_VALIDATION)
PUBLISHED_BASES = ("huggyllama/llama-7b", "bigscience/bloomz-7b1", "EleutherAI/gpt-j-6b")
PUBLISHED_SIZES = {"rank": 32, "width": 256, "virtual_tokens": 10}
PUBLISHED_RATE, PUBLISHED_BEAMS = 3e-4, 4


def adapters_experiment(config: ReproduceAdaptersConfig, out: Path) -> Experiment:
    """Return the experiment in the folder `out`.

    Raises:
        UserError: no model or no folder of sets is given.
    """
    if not config.anchor.base:
        raise UserError("anchor.base is not set; give --anchor MODEL, the model that gets adapters")
    if not config.benchmarks:
        raise UserError("benchmarks is not set; give --data FOLDER, the folder `dataset` of LLM-Adapters")
    if config.data.data_folder is not None:
        raise UserError("data.data_folder: --data says where the sets are; leave it out")
    config = _complete(config)
    experiment = Experiment(
        "adapters", config, config.data, FILES, AdapterSystems, "", _deviations(config), values=own_sizes(config),
        builder="reasoning",
    )  # fmt: skip
    return replace(experiment, check=lambda: _check(experiment, out))


def _check(experiment: Experiment, out: Path) -> None:
    """Raise UserError for an adapter that m_B cannot have, or a composition that cannot be: now, not after others.

    An m_B that is neither here nor known by its public shape is not checked.
    """
    try:
        for base in experiment.config.existing_models():
            shape_of(base)
    except UserError:
        return
    planner = Planner(lambda tokenizer: 0)  # nothing is trained from scratch
    for stage in experiment_stages(experiment, out):
        planner.plan(stage)


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
    found = []
    if config.anchor.base not in PUBLISHED_BASES:
        found.append(f"m_B is {model_in_words(config.anchor)}; the published models have 6 to 13 billion parameters")
    found += [*_data(config.data), *_adapters(config), *_training(config), *_questions(config)]
    prompts = [name for name in config.compare if name in CHOICES and ADAPTERS[CHOICES[name].method].is_prompt]
    others = [name for name in ("full", "random_aug") if name in config.compare]
    if prompts or others or config.aug.base:
        named = [SYSTEMS[name].label for name in (*prompts, *others)] + (["CALM"] if config.aug.base else [])
        found.append(f"{', '.join(named)}: LLM-Adapters has no results")
    return found


def _data(data: ReasoningDataConfig) -> list[str]:
    if data.files:
        parts = [f"files named in data.files ({len(data.files)})"]
    else:
        parts = []
    if data.mix == "arithmetic":
        parts += ["MAWPS's training set", *(["GSM8K's"] if data.gsm8k else [])]
        theirs = "math_10k, of GSM8K, MAWPS and AQuA"
    else:
        parts += ["the training files that are there"]
        theirs = "commonsense_170k, of all eight sets"
    found = [f"the mix is of {' and '.join(parts)}; the published one is {theirs}"]
    if data.overlaps == "remove":
        found.append("questions of the test sets are taken out of the training data; the published mixes hold many")
    if data.loss_on != "all":
        found.append("the loss is that of the answers; LLM-Adapters also trains on the prompts")
    if data.form != "exact":
        found.append("training prompts are written without the indentation of the published code")
    return found


def _adapters(config: ReproduceAdaptersConfig) -> list[str]:
    found = []
    if not config.published:
        found.append("adapters sit at whole blocks, and not where the published commands put them (docs/adapters.md)")
        if config.baseline.init == "neutral":
            found.append("bottlenecks start at the identity and prefixes near it; the published ones do not")
        if changed := {name: value for name, value in config.baseline.options.changed().items() if name != "init"}:
            found.append(f"adapters are built with {', '.join(f'{name}={value}' for name, value in changed.items())}")
    if config.equal_parameters:
        found.append(
            "every method has as many trainable parameters as CALM; the published ones have sizes of their own"
        )
        return found
    own = {name: getattr(config, name) for name in PUBLISHED_SIZES}
    unequal = [f"{name}={size} instead of {PUBLISHED_SIZES[name]}" for name, size in own.items()
               if size != PUBLISHED_SIZES[name] and _has_size(config, name)]  # fmt: skip
    return found + ([f"sizes differ: {', '.join(unequal)}"] if unequal else [])


def _has_size(config: ReproduceAdaptersConfig, setting: str) -> bool:
    return any(CHOICES[name].method in SIZES[setting] for name in config.compare if name in CHOICES)


def _training(config: ReproduceAdaptersConfig) -> list[str]:
    train, found = config.baseline.train, []
    rows = f"{train.batch_tokens} tokens" if train.batch_tokens else f"{train.batch_size} rows"
    found.append(f"{train.steps} steps of {rows}; LLM-Adapters makes 3 passes over its mix in batches of 16 rows")
    if "prefix" in config.compare:
        found.append("prefixes are trained as long as the others; LLM-Adapters makes 5 passes in batches of 8 rows")
    if train.lr != PUBLISHED_RATE:
        found.append(f"the learning rate is {train.lr:g} instead of {PUBLISHED_RATE:g}")
    found.append(f"rows longer than the model's context: {train.on_long_example}; LLM-Adapters cuts rows at 256 tokens")
    return found


def _questions(config: ReproduceAdaptersConfig) -> list[str]:
    found = []
    for name in config.tasks:
        settings = config.evaluations()[name]
        task = settings.build_task()
        if settings.limit:
            found.append(f"{name}: only the first {settings.limit} questions of each set are asked")
        if sets := settings.options.get("sets"):
            found.append(f"{name}: only {', '.join(sets)}")
        if name == "commonsense_likelihood":
            found.append(f"{name}: LLM-Adapters has no figures by likelihood")
            continue
        if settings.decoding.num_beams != PUBLISHED_BEAMS:
            found.append(f"{name}: decoding is {settings.decoding.name}; LLM-Adapters has {PUBLISHED_BEAMS} beams")
        if settings.decoding.max_new_tokens:
            found.append(f"{name}: answers have at most {settings.decoding.max_new_tokens} tokens")
        if task.form != "exact":  # type: ignore[attr-defined]
            found.append(f"{name}: prompts are written without the indentation of the published code")
    return found
