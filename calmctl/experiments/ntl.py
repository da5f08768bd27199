"""The paper's experiment on low-resource languages (section 4.2, tables 2 and 3): m_A knows them, m_B English."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from calmctl.errors import UserError
from calmctl.evaluation.config import EvalConfig
from calmctl.experiments.config import chosen, evaluation, is_used_as_it_is
from calmctl.experiments.deviations import real_text_deviations
from calmctl.experiments.real_text import RealTextConfig, RealTextSystems, with_data
from calmctl.experiments.reproduction import Experiment
from calmctl.experiments.systems import Files
from data_builders.ntl.config import KINDS, NTLDataConfig

FILES = Files(
    anchor="anchor_train.parquet",
    anchor_validation="anchor_validation.parquet",
    aug="aug_train.parquet",
    aug_validation="aug_validation.parquet",
    composition="dc_train.parquet",
    composition_validation="dc_validation.parquet",
)
PAPER_SHARE = 0.05
DIRECTIONS = {"flores": "xx-en", "flores_unseen": "xx-en", "flores_from_english": "en-xx"}
TESTS = {"rows": "seen_test.parquet", "rows_unseen": "unseen_test.parquet"}
RECORDS = {
    "rows": "held-out sentences are translated",
    "rows_unseen": "held-out sentences of languages that nothing is trained on are translated",
    "flores": "sentences of each language of FLORES devtest are scored",
    "flores_unseen": "sentences of each language of FLORES devtest that no model is trained on are scored",
    "flores_from_english": "English sentences of FLORES devtest are translated into each language",
    "mgsm": "problems of each language of MGSM are asked",
    "gsm8k": "problems of GSM8K are asked",
}


@dataclass(frozen=True)
class ReproduceNTLConfig(RealTextConfig):
    """Settings of the experiment on low-resource languages.

    Attributes:
        flores: translation into English; `options.languages` defaults to `data.aug.languages` (empty = all).
        flores_unseen: translation into English from languages in no training data; `options.languages` is required.
        flores_from_english: translation from English into the same languages.
        rows, rows_unseen: held-out sentences of the data, in languages of D_C (`data.test_fraction`) and in others
            (`data.unseen_languages`).
        mgsm, gsm8k: word problems.
    """

    tasks: tuple[str, ...] = chosen("flores", "mgsm")
    data: NTLDataConfig = field(default_factory=NTLDataConfig)
    flores: EvalConfig = evaluation("flores")
    flores_unseen: EvalConfig = evaluation("flores_unseen", "flores")
    flores_from_english: EvalConfig = evaluation("flores_from_english", "flores", {"direction": "en-xx"})
    rows: EvalConfig = evaluation("rows")
    rows_unseen: EvalConfig = evaluation("rows_unseen", "rows")
    mgsm: EvalConfig = evaluation("mgsm")
    gsm8k: EvalConfig = evaluation("gsm8k")

    def __post_init__(self) -> None:
        """Also raise ValueError for packing of pairs, a wrong FLORES direction, or tasks without their data."""
        super().__post_init__()
        trained = {"train_rows": ("anchor", "aug"), "composition_rows": ("compose", "baseline")}
        for setting, names in trained.items():
            if packing := [name for name in names if getattr(self, name).train.packing]:
                if getattr(self.data, setting) == "pairs":
                    raise ValueError(f"{packing[0]}.train.packing=true: only text is packed, and data.{setting}=pairs")
        for name, direction in DIRECTIONS.items():
            asked = getattr(self, name).build_task().direction
            if asked != direction:
                raise ValueError(f"{name}.options.direction={asked}: it is {direction}; see `tasks`")
        if "flores_unseen" in self.tasks:
            self._check_unseen()
        for name, wanted in (("rows", "test_fraction"), ("rows_unseen", "unseen_languages")):
            if name in self.tasks and not getattr(self.data, wanted):
                raise ValueError(f"tasks names {name}: set data.{wanted}, or leave it out")

    def _check_unseen(self) -> None:
        """Raise ValueError unless flores_unseen names languages, all of them absent from the training data."""
        trained: set[str] = set()
        for name, corpora in (("aug", self.data.aug), ("anchor", self.data.anchor)):
            if (corpora.parallel or corpora.monolingual) and not corpora.languages:
                raise ValueError(
                    f"data.{name}.languages: name them, so that those of flores_unseen are known to be others"
                )
            trained |= {*corpora.languages, *(corpora.text_languages or ()), *corpora.pivots}
        languages = self.flores_unseen.build_task().languages  # type: ignore[attr-defined]
        if not languages:
            raise ValueError("flores_unseen.options.languages: name languages that nothing is trained on")
        if seen := [code for code in languages if code in trained]:
            raise ValueError(f"flores_unseen.options.languages: models are trained on {seen[0]}; leave it out")

    @property
    def has_prompts(self) -> bool:
        """Return whether the rows of D_C are prompts and completions."""
        return self.data.composition_rows == "pairs"


def ntl_experiment(config: ReproduceNTLConfig, out: Path) -> Experiment:
    """Return the experiment in the folder `out`.

    Raises:
        UserError: no benchmark folder is given, or the data of a task is missing from it.
    """
    config = _complete(config, out.resolve() / "data")
    return Experiment(
        "ntl", config, config.data, FILES, RealTextSystems, config.data.tokenizer or "", _deviations(config)
    )


def _complete(config: ReproduceNTLConfig, data: Path) -> ReproduceNTLConfig:
    """Return the configuration with the data of every task; FLORES gets m_A's languages unless it names some."""
    if not config.benchmarks:
        raise UserError("benchmarks is not set; give --data FOLDER, which holds the corpora, flores200 and mgsm")
    folder = Path(config.benchmarks).expanduser().resolve()
    evaluations = config.evaluations()
    asked = {name: evaluations[name] for name in config.tasks}
    for name, file in TESTS.items():
        if name in asked:
            options = {"group": "source", **asked[name].options}
            asked[name] = replace(asked[name], dataset=asked[name].dataset or str(data / file), options=options)
    found = {name: with_data(name, settings, folder) for name, settings in asked.items()}
    for name in DIRECTIONS:
        if name in found and "languages" not in found[name].options:
            options = {**found[name].options, "languages": list(config.data.aug.languages)}
            found[name] = replace(found[name], options=options)
    return config.completed(replace(config.data, data_folder=str(folder)), found)


def _deviations(config: ReproduceNTLConfig) -> list[str]:
    data, found = config.data, []
    languages = f"{len(data.aug.languages) or 'all'} languages of {', '.join(data.aug.parallel) or 'its corpora'}"
    if is_used_as_it_is(config.aug):
        found.append(f"m_A is not trained on the data that D_C is drawn from: {languages}")
    else:
        found.append(f"m_A learns {languages}; the paper's NTL corpus has about 1,000")
    if data.composition_fraction != PAPER_SHARE:
        found.append(f"D_C is {data.composition_fraction:.0%} of these data instead of {PAPER_SHARE:.0%}")
    if data.composition_once:
        found.append("D_C holds every sentence once: what holds one that is there already was left out")
    if data.composition_unseen:
        found.append(
            "D_C is as large as that, of sentences that neither model was trained on; the paper's is part of them"
        )
    if set(data.composition_kinds) != set(KINDS):
        found.append(f"D_C holds {' and '.join(data.composition_kinds)} only")
    found += real_text_deviations(config)
    shots = {_option(config, name, "shots") for name in DIRECTIONS if name in config.tasks}
    found += [f"FLORES is asked with {number} worked examples instead of 5" for number in sorted(shots - {5})]
    if "flores_from_english" in config.tasks:
        found.append("FLORES is asked from English as well; the paper asks for translations into English")
    for name in config.tasks:
        first = _option(config, name, "first_row") if name in DIRECTIONS else 0
        if limit := getattr(config, name).limit:
            asked = RECORDS.get(name, f"records of {name} are asked")
            found.append(f"only the first {limit} {asked}" + (f", counted from row {first}" if first else ""))
        elif first:
            found.append(f"{name}: rows of FLORES devtest before row {first} are left out")
    return found


def _option(config: ReproduceNTLConfig, name: str, option: str) -> int:
    value: int = getattr(config.evaluations()[name].build_task(), option)
    return value
