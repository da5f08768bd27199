"""The paper's experiment on code (section 4.3, table 4): m_A knows code, m_B knows English."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from calmctl.errors import UserError
from calmctl.evaluation.config import EvalConfig
from calmctl.experiments.config import chosen, evaluation
from calmctl.experiments.deviations import real_text_deviations
from calmctl.experiments.real_text import RealTextConfig, RealTextSystems, with_data
from calmctl.experiments.reproduction import Experiment
from calmctl.experiments.systems import Files
from calmctl.schema import meaning
from data_builders.code.config import OFF, CodeDataConfig

FILES = Files(
    anchor="anchor_train.parquet",
    anchor_validation="prose_validation.parquet",
    aug="aug_train.parquet",
    aug_validation="code_validation.parquet",
    composition="dc.parquet",
    composition_validation="dc_validation.parquet",
)
PAPER_SHARE = 0.07
OWN = "own"
EXECUTES = ("humaneval", "humaneval_plus", "mbpp", "mbpp_plus")


@dataclass(frozen=True)
class ReproduceCodeConfig(RealTextConfig):
    """Settings of the experiment on code.

    Attributes:
        humaneval, mbpp: programs, judged by the benchmarks' own tests.
        humaneval_plus, mbpp_plus: programs, judged by the tests of EvalPlus.
        codexglue: summaries of functions.
        text, text_prose: bits per byte of held-out code, and of held-out English prose (does m_B keep its ability?).
        gsm8k: word problems, also to see whether m_B keeps its ability.
        codexglue_data: the functions to summarise: `own` = held-out functions of the sources; empty = CodeXGLUE's, in
            `benchmarks`.
        allow_code_execution: run the programs that the models write, in the sandbox.
    """

    tasks: tuple[str, ...] = chosen("humaneval", "mbpp", "codexglue", "text")
    codexglue_data: str = field(default="", metadata=meaning("comparison", asked_by=("tasks", "codexglue")))
    allow_code_execution: bool = field(default=False, metadata=meaning("comparison", may_differ=True))
    data: CodeDataConfig = field(default_factory=CodeDataConfig)
    humaneval: EvalConfig = evaluation("humaneval")
    humaneval_plus: EvalConfig = evaluation("humaneval_plus", "humaneval", {"subset": "plus"})
    mbpp_plus: EvalConfig = evaluation("mbpp_plus", "mbpp", {"subset": "plus"})
    mbpp: EvalConfig = evaluation("mbpp")
    codexglue: EvalConfig = evaluation("codexglue")
    text: EvalConfig = evaluation("text")
    text_prose: EvalConfig = evaluation("text_prose", "text")
    gsm8k: EvalConfig = evaluation("gsm8k")

    def __post_init__(self) -> None:
        """Also raise ValueError for an unknown `codexglue_data`."""
        super().__post_init__()
        if self.codexglue_data not in ("", OWN):
            raise ValueError(
                f"codexglue_data={self.codexglue_data!r}: {OWN}, or nothing; codexglue.dataset names a path"
            )

    @property
    def has_prompts(self) -> bool:
        """Return whether the rows of D_C are prompts and completions: never, code is plain text."""
        return False


def code_experiment(config: ReproduceCodeConfig, out: Path) -> Experiment:
    """Return the experiment in the folder `out`.

    Raises:
        UserError: no benchmark folder or no source is given, a benchmark is missing, or a task has to run programs
            without `allow_code_execution`.
    """
    config = _complete(config, out.resolve() / "data")
    return Experiment("code", config, config.data, FILES, RealTextSystems, "", _deviations(config))


def _complete(config: ReproduceCodeConfig, data: Path) -> ReproduceCodeConfig:
    """Return the configuration with the data of every task, and permission to run programs where a task needs it."""
    if not config.benchmarks:
        raise UserError("benchmarks is not set; give --data FOLDER, which holds humaneval, mbpp and codexglue")
    if not config.data.sources:
        raise UserError("data.sources is not set; give --source FOLDER, a hub id, stdlib or site-packages")
    executing = [name for name in EXECUTES if name in config.tasks]
    if executing and not config.allow_code_execution:
        left = ",".join(name for name in config.tasks if name not in EXECUTES)
        raise UserError(
            f"{' and '.join(executing)} run programs that the models write; add --allow-code-execution to run them in "
            f"the sandbox, or leave them out with 'tasks=[{left}]'"
        )
    folder = Path(config.benchmarks).expanduser().resolve()
    found = {name: settings for name, settings in config.evaluations().items() if name in config.tasks}
    for name, file in (("text", FILES.aug_validation), ("text_prose", FILES.anchor_validation)):
        if name in found:
            found[name] = replace(found[name], dataset=found[name].dataset or str(data / file))
    if "codexglue" in found and config.codexglue_data == OWN:
        found["codexglue"] = replace(found["codexglue"], dataset=str(data / "codexglue"))
    for name in executing:
        options = {**found[name].options, "allow_code_execution": True}
        found[name] = replace(found[name], options=options)
    found = {name: with_data(name, settings, folder) for name, settings in found.items()}
    return config.completed(replace(config.data, tests=config.data.tests or str(folder)), found)


def _deviations(config: ReproduceCodeConfig) -> list[str]:
    data = config.data
    found = [
        f"m_A learns {', '.join(data.languages)} from {', '.join(data.sources)}; the paper's code is from GitHub, in "
        "many languages"
    ]
    if data.dc_share != PAPER_SHARE:
        found.append(f"D_C is {data.dc_share:.0%} of the code instead of {PAPER_SHARE:.0%}")
    if data.dc_unseen:
        found.append("D_C is of files that neither model was trained on; the paper's is part of m_A's data")
    if data.dc_pairs_share is not None:
        found.append(f"D_C has {data.dc_pairs_share:.0%} of the pairs of functions and their summaries")
    if OFF in (data.humaneval, data.mbpp, data.codexglue):
        found.append("the data is not compared with all of HumanEval, MBPP and CodeXGLUE")
    found += real_text_deviations(config)
    if "codexglue" in config.tasks:
        found += _codexglue(config)
    for name in config.tasks:
        if limit := getattr(config, name).limit:
            found.append(f"{name}: only the first {limit} records are asked")
    return found


def _codexglue(config: ReproduceCodeConfig) -> list[str]:
    found = []
    if config.codexglue_data == OWN:
        found.append("functions to summarise are held-out ones of the sources, chosen as CodeXGLUE chooses its own")
    shots = config.codexglue.build_task().shots  # type: ignore[attr-defined]
    if shots != 3:
        found.append(f"functions are shown with {shots} worked examples instead of 3")
    return found
