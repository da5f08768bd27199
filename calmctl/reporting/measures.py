"""What is measured in sections 4.2 and 4.3 of the paper: tasks, metrics, and the paper's figures of the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from calmctl.reporting.evaluations import BITS
from calmctl.reporting.paper import paper_table

M_A, M_B, CALM, LORA, SKYLINE = "m_A", "m_B", "calm", "lora", "m_B_finetuned"
HEADLINE_MODELS = (M_A, M_B, CALM, SKYLINE)
"""Keys of the models of the paper's tables 2 to 4."""
GROUPS = {
    "models": "Models",
    "m_A": "CALM, by what m_A is",
    "methods": "Other methods, on the same D_C",
    "untrained": "Without training",
    "skyline": "Skyline, on all of m_A's data",
}
"""Group of systems -> its heading, in the order of the tables."""


@dataclass(frozen=True)
class Measure:
    """One figure of a model on a task.

    Attributes:
        task, metric: where it stands in the files.
        short: its name below a heading that names the benchmark.
        paper: name of the metric in the paper's tables, empty where the paper has none.
        is_papers: whether the paper's figure is of the same records, so that a difference can be told.
    """

    task: str
    metric: str
    benchmark: str
    short: str
    digits: int = 1
    is_lower_better: bool = False
    paper: str = ""
    is_papers: bool = False

    @property
    def label(self) -> str:
        """Return the name of the figure with that of its benchmark."""
        return f"{self.benchmark} {self.short}"

    def gain(self, ours: float, theirs: float) -> float:
        """Return how much better one figure is than another: positive is better."""
        return theirs - ours if self.is_lower_better else ours - theirs


@dataclass(frozen=True)
class Grouped:
    """A measure by group of records (by language): a table of the paper, and perhaps a plot of gains.

    Attributes:
        paper_table: the table with the paper's figures, and `codes` the names that its groups have there.
        is_plotted: whether gains over the anchor are drawn.
    """

    measure: Measure
    title: str
    column: str = "language"
    paper_table: str = ""
    codes: Mapping[str, str] = field(default_factory=dict)
    is_plotted: bool = False
    note: str = ""


@dataclass(frozen=True)
class Section:
    """One section of the paper.

    Attributes:
        panels: tables over all systems: a title and the measures side by side.
        models_table: title of a table of the headline models alone; empty: none.
        primary: the measures whose figures the first sentences quote.
        above: a measure and in how many of how many languages the paper's composition was above m_B.
        samples: task -> how many predictions are shown.
        note: what a reader has to know of the paper's figures.
    """

    key: str
    title: str
    panels: tuple[tuple[str, tuple[Measure, ...]], ...]
    grouped: tuple[Grouped, ...]
    primary: tuple[Measure, ...]
    samples: Mapping[str, int]
    note: str
    models_table: str = ""
    paper_above: str = ""

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Return all measures over whole tasks."""
        return tuple(measure for _, measures in self.panels for measure in measures)


def paper_figure(system: str, measure: Measure) -> float | None:
    """Return the paper's figure of a system over a whole task, from the first of its tables that has it."""
    tables = (paper_table(name) for name in ("table4", "table5"))
    return next((found for table in tables if (found := table.figure(system, measure.paper)) is not None), None)


FLORES_CHRF = Measure("flores", "chrf1", "FLORES-200", "chrF1", paper="flores_chrf")
FLORES_BITS = Measure("flores", BITS, "FLORES-200", "bits per byte", 3, is_lower_better=True)
UNSEEN = "FLORES-200, unseen languages,"
UNSEEN_CHRF = Measure("flores_unseen", "chrf1", UNSEEN, "chrF1")
UNSEEN_BITS = Measure("flores_unseen", BITS, UNSEEN, "bits per byte", 3, is_lower_better=True)
FLORES_BLEU = Measure("flores", "bleu", "FLORES-200", "BLEU")
UNSEEN_BLEU = Measure("flores_unseen", "bleu", UNSEEN, "BLEU")
HELD_OUT, UNSEEN_ROWS = "held-out sentences,", "held-out sentences of unseen languages,"
ROWS_CHRF = Measure("rows", "chrf1", HELD_OUT, "chrF1")
ROWS_BITS = Measure("rows", BITS, HELD_OUT, "bits per byte", 3, is_lower_better=True)
UNSEEN_ROWS_CHRF = Measure("rows_unseen", "chrf1", UNSEEN_ROWS, "chrF1")
UNSEEN_ROWS_BLEU = Measure("rows_unseen", "bleu", UNSEEN_ROWS, "BLEU")
UNSEEN_ROWS_BITS = Measure("rows_unseen", BITS, UNSEEN_ROWS, "bits per byte", 3, is_lower_better=True)
FROM_ENGLISH = "FLORES-200 from English"
FROM_ENGLISH_CHRF = Measure("flores_from_english", "chrf1", FROM_ENGLISH, "chrF1")
FROM_ENGLISH_BITS = Measure("flores_from_english", BITS, FROM_ENGLISH, "bits per byte", 3, is_lower_better=True)
MGSM = Measure("mgsm", "exact_match", "MGSM", "accuracy", paper="gsm8k_high_resource_accuracy")
GSM8K = Measure("gsm8k", "official_match", "GSM8K", "accuracy")
GSM8K_BITS = Measure("gsm8k", BITS, "GSM8K solutions", "bits per byte", 3, is_lower_better=True)
PAPER_FLORES = {
    "lij_Latn": "lij",
    "mar_Deva": "mr",
    "taq_Latn": "taq",
    "nno_Latn": "nn",
    "sun_Latn": "su",
    "ban_Latn": "ban",
    "pol_Latn": "pl",
    "tha_Thai": "th",
    "min_Latn": "min",
    "acm_Arab": "acm",
}
"""Language of FLORES-200 -> its column of the paper's table 2, which names no scripts: Latin where there are two."""
PAPER_GSM8K = {code: code for code in ("en", "te", "bn", "sw", "ja", "zh", "th", "fr", "es", "de")}

NTL = Section(
    key="ntl",
    title="Low-resource languages",
    panels=(
        (
            "Table 5: every system",
            (FLORES_CHRF, FLORES_BLEU, FLORES_BITS, FROM_ENGLISH_CHRF, FROM_ENGLISH_BITS, MGSM),
        ),
        ("Every system, languages that nothing is trained on", (UNSEEN_CHRF, UNSEEN_BLEU, UNSEEN_BITS)),
        (
            "Every system, sentences that D_C does not hold",
            (ROWS_CHRF, ROWS_BITS, UNSEEN_ROWS_CHRF, UNSEEN_ROWS_BLEU, UNSEEN_ROWS_BITS),
        ),
        ("Every system, what m_B could do before: English word problems", (GSM8K, GSM8K_BITS)),
    ),
    grouped=(
        Grouped(
            FLORES_CHRF,
            "Table 2: FLORES-200 into English, chrF1 by language",
            paper_table="table2",
            codes=PAPER_FLORES,
            is_plotted=True,
            note="The paper names no scripts: its Tamasheq and Minangkabau stand beside those in Latin script.",
        ),
        Grouped(FLORES_BITS, "FLORES-200 into English, bits per byte by language", is_plotted=True),
        Grouped(UNSEEN_CHRF, "Languages that nothing is trained on: FLORES-200 into English, chrF1", is_plotted=True),
        Grouped(UNSEEN_BITS, "Languages that nothing is trained on: FLORES-200 into English, bits per byte"),
        Grouped(ROWS_CHRF, "Sentences that D_C does not hold, of its languages: chrF1"),
        Grouped(UNSEEN_ROWS_CHRF, "Sentences of languages that nothing is trained on: chrF1", is_plotted=True),
        Grouped(FROM_ENGLISH_CHRF, "FLORES-200 from English, chrF1 by language"),
        Grouped(FROM_ENGLISH_BITS, "FLORES-200 from English, bits per byte by language", is_plotted=True),
        Grouped(MGSM, "Table 3: MGSM, accuracy by language", paper_table="table3_high", codes=PAPER_GSM8K),
    ),
    primary=(
        *(FLORES_CHRF, FLORES_BITS, UNSEEN_CHRF, UNSEEN_BITS),
        *(ROWS_BITS, UNSEEN_ROWS_CHRF, UNSEEN_ROWS_BITS, FROM_ENGLISH_BITS),
    ),
    samples={"rows": 3, "rows_unseen": 6, "flores": 5, "flores_unseen": 5, "mgsm": 2, "gsm8k": 2},
    note="The paper's figures are those of much larger models (PaLM2-XXS and PaLM2-S), trained on about a thousand"
    " languages; in table 5 they are over 192 languages.",
    paper_above="flores_languages_above_m_B",
)

HUMANEVAL = Measure("humaneval", "pass@1", "HumanEval", "pass@1", paper="humaneval_pass@1", is_papers=True)
MBPP = Measure("mbpp", "pass@1", "MBPP", "pass@1", paper="mbpp_pass@1", is_papers=True)
HUMANEVAL_PLUS = Measure("humaneval_plus", "pass@1", "HumanEval+", "pass@1")
MBPP_PLUS = Measure("mbpp_plus", "pass@1", "MBPP+", "pass@1")
PROSE_BITS = Measure("text_prose", BITS, "held-out English", "bits per byte", 3, is_lower_better=True)
CODEXGLUE_CHRF = Measure("codexglue", "chrf1", "CodeXGLUE", "chrF1", paper="codexglue_chrf")
CODEXGLUE_BLEU = Measure("codexglue", "smoothed_bleu4", "CodeXGLUE", "BLEU-4")
TEXT_BITS = Measure("text", BITS, "held-out code", "bits per byte", 3, is_lower_better=True)
HUMANEVAL_BITS = Measure("humaneval", BITS, "HumanEval solutions", "bits per byte", 3, is_lower_better=True)
MBPP_BITS = Measure("mbpp", BITS, "MBPP solutions", "bits per byte", 3, is_lower_better=True)
CODEXGLUE_BITS = Measure("codexglue", BITS, "CodeXGLUE summaries", "bits per byte", 3, is_lower_better=True)
PAPER_CODE = {name: f"{name}_chrf" for name in ("python", "php", "go", "java", "javascript", "ruby")}

CODE = Section(
    key="code",
    title="Code",
    panels=(
        ("Table 5: every system", (HUMANEVAL, HUMANEVAL_PLUS, MBPP, MBPP_PLUS, CODEXGLUE_CHRF, CODEXGLUE_BLEU)),
        (
            "Every system, bits per byte (lower is better)",
            (TEXT_BITS, HUMANEVAL_BITS, MBPP_BITS, CODEXGLUE_BITS),
        ),
        ("Every system, what m_B could do before: English", (PROSE_BITS, GSM8K, GSM8K_BITS)),
    ),
    grouped=(
        Grouped(
            CODEXGLUE_CHRF,
            "CodeXGLUE code to text, chrF1 by programming language",
            paper_table="table4",
            codes=PAPER_CODE,
        ),
        Grouped(CODEXGLUE_BLEU, "CodeXGLUE code to text, smoothed BLEU-4 by programming language"),
        Grouped(TEXT_BITS, "Held-out code, bits per byte", column="part"),
    ),
    primary=(TEXT_BITS, CODEXGLUE_CHRF),
    samples={"codexglue": 4, "humaneval": 2, "mbpp": 1},
    note="The paper's figures are those of much larger models (PaLM2-XXS and PaLM2-S). Its CodeXGLUE figures are of"
    " the benchmark's own functions; where ours are of others, the table of protocols names the data.",
    models_table="Table 4: code",
)

SECTIONS: Mapping[str, Section] = {section.key: section for section in (NTL, CODE)}
