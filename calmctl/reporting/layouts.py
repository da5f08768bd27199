"""The layout of each experiment's report, as data: its measures, tables, plots and samples."""

from __future__ import annotations

from collections.abc import Mapping

from calmctl.reporting.evaluations import BITS
from calmctl.reporting.measures import Breakdown, BySet, Grouped, Measure, ReportLayout, Samples

FLORES_CHRF = Measure("flores", "chrf1", "FLORES-200", "chrF1", paper="flores_chrf")
FLORES_BITS = Measure("flores", BITS, "FLORES-200", "bits per byte", 3, is_lower_better=True)
UNSEEN = "FLORES-200 (unseen languages)"
UNSEEN_CHRF = Measure("flores_unseen", "chrf1", UNSEEN, "chrF1")
UNSEEN_BITS = Measure("flores_unseen", BITS, UNSEEN, "bits per byte", 3, is_lower_better=True)
FLORES_BLEU = Measure("flores", "bleu", "FLORES-200", "BLEU")
UNSEEN_BLEU = Measure("flores_unseen", "bleu", UNSEEN, "BLEU")
HELD_OUT, UNSEEN_ROWS = "held-out sentences", "held-out sentences (unseen languages)"
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
"""Language of FLORES-200 -> column of the paper's table 2. The paper names no scripts; Latin if there are two."""
PAPER_GSM8K = {code: code for code in ("en", "te", "bn", "sw", "ja", "zh", "th", "fr", "es", "de")}

NTL = ReportLayout(
    key="ntl",
    title="Low-resource languages",
    panels=(
        (
            "Table 5: every system",
            (FLORES_CHRF, FLORES_BLEU, FLORES_BITS, FROM_ENGLISH_CHRF, FROM_ENGLISH_BITS, MGSM),
        ),
        ("Every system, languages in no training file", (UNSEEN_CHRF, UNSEEN_BLEU, UNSEEN_BITS)),
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
        Grouped(UNSEEN_CHRF, "Languages in no training file: FLORES-200 into English, chrF1", is_plotted=True),
        Grouped(UNSEEN_BITS, "Languages in no training file: FLORES-200 into English, bits per byte"),
        Grouped(ROWS_CHRF, "Sentences that D_C does not hold, of its languages: chrF1"),
        Grouped(UNSEEN_ROWS_CHRF, "Sentences of languages in no training file: chrF1", is_plotted=True),
        Grouped(FROM_ENGLISH_CHRF, "FLORES-200 from English, chrF1 by language"),
        Grouped(FROM_ENGLISH_BITS, "FLORES-200 from English, bits per byte by language", is_plotted=True),
        Grouped(MGSM, "Table 3: MGSM, accuracy by language", paper_table="table3_high", codes=PAPER_GSM8K),
    ),
    primary=(
        *(FLORES_CHRF, FLORES_BITS, UNSEEN_CHRF, UNSEEN_BITS),
        *(ROWS_BITS, UNSEEN_ROWS_CHRF, UNSEEN_ROWS_BITS, FROM_ENGLISH_BITS),
    ),
    samples={
        "rows": Samples(3),
        "rows_unseen": Samples(6),
        "flores": Samples(5),
        "flores_unseen": Samples(5),
        "flores_from_english": Samples(3),
        "mgsm": Samples(2),
        "gsm8k": Samples(2),
    },
    kept=(GSM8K, GSM8K_BITS),
    note="The paper's figures are those of much larger models (PaLM2-XXS and PaLM2-S), trained on about a thousand"
    " languages; in table 5 they are over 192 languages.",
    paper_above="flores_languages_above_m_B",
)

HUMANEVAL = Measure("humaneval", "pass@1", "HumanEval", "pass@1", paper="humaneval_pass@1", same_records=True)
MBPP = Measure("mbpp", "pass@1", "MBPP", "pass@1", paper="mbpp_pass@1", same_records=True)
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

CODE = ReportLayout(
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
    samples={
        "codexglue": Samples(4),
        "humaneval": Samples(2),
        "humaneval_plus": Samples(1),
        "mbpp": Samples(1),
        "mbpp_plus": Samples(1),
        "gsm8k": Samples(2),
    },
    kept=(PROSE_BITS, GSM8K, GSM8K_BITS),
    note="The paper's figures are those of much larger models (PaLM2-XXS and PaLM2-S). Its CodeXGLUE figures are of"
    " the benchmark's own functions; where ours are of others, the table of protocols names the data.",
    models_table="Table 4: code",
)

KV_SUBS = Measure("kv", "kv_subs", "", "KV-SUBS", paper="kv_subs", same_records=True)
NUM_MATH = Measure("kv", "num_math", "", "NUM-MATH", paper="num_math", same_records=True)
KV_MATH = Measure("kv", "kv_math", "", "KV-MATH (stepwise)", paper="kv_math", same_records=True)
KV_MATH_DIRECT = Measure("kv", "kv_math_direct", "", "KV-MATH (direct)")
KV_MEASURES = (KV_SUBS, NUM_MATH, KV_MATH, KV_MATH_DIRECT)

KV = ReportLayout(
    key="kv",
    title="Key-value arithmetic",
    panels=(("Every system, keys all held out", KV_MEASURES),),
    primary=(KV_MATH, KV_MATH_DIRECT),
    drawn=(KV_SUBS, NUM_MATH, KV_MATH),
    sought=(KV_MATH,),
    kept=(NUM_MATH,),
    varied=(KV_MATH,),
    breakdowns=(
        Breakdown(
            "by_num_operands",
            "Accuracy by number of operands",
            "operands",
            (KV_MATH, KV_MATH_DIRECT, NUM_MATH, KV_SUBS),
            plot="lines",
        ),
        Breakdown(
            "by_stratum",
            "Held-in and held-out keys",
            "keys",
            KV_MEASURES,
            {"held_in": "all held in", "mixed": "mixed", "held_out": "all held out"},
            plot="bars",
        ),
        Breakdown(
            "by_augs",
            "Whose keys",
            "keys",
            KV_MEASURES,
            {"1": "of m_A 1 alone", "2": "of m_A 2 alone", "1+2": "of both m_As"},
        ),
    ),
    samples={
        "kv": Samples(
            5,
            {
                "substitute": ("KV-MATH, stepwise", "kv_math"),
                "solve_keys": ("KV-MATH, direct", "kv_math_direct"),
                "solve_numbers": ("NUM-MATH", "num_math"),
            },
            only=("stratum", "held_out"),
        )
    },
    note="Stepwise: the model writes the numbers, then the value. Direct: the value at once. The paper does not say how"
    " its KV-MATH was prompted; its figures stand beside the stepwise protocol. D_C subs shows no answer of KV-MATH,"
    " D_C math shows it at once. Vanilla m_A was trained on m_B's arithmetic instead of the keys' values.",
    models_table="Table 1: measured beside the paper",
)

ARITHMETIC = Measure("arithmetic", "accuracy", "arithmetic", "accuracy")
COMMONSENSE = Measure("commonsense", "accuracy", "commonsense", "accuracy")
LIKELIHOOD = "commonsense, by likelihood"
ACC = Measure("commonsense_likelihood", "acc", LIKELIHOOD, "acc")
ACC_NORM = Measure("commonsense_likelihood", "acc_norm", LIKELIHOOD, "acc_norm")

ADAPTERS = ReportLayout(
    key="adapters",
    title="Adapters on reasoning sets",
    panels=(("Every system, mean over the sets", (ARITHMETIC, COMMONSENSE, ACC, ACC_NORM)),),
    primary=(ARITHMETIC, COMMONSENSE, ACC),
    ranked=(ARITHMETIC, COMMONSENSE, ACC, ACC_NORM),
    varied=(ARITHMETIC, COMMONSENSE, ACC),
    by_set=(
        BySet(
            ARITHMETIC,
            "Arithmetic sets, as LLM-Adapters asks",
            ("arithmetic", "arithmetic_withdrawn"),
            "Its Series adapters stand before the MLP here.",
        ),
        BySet(
            COMMONSENSE,
            "Commonsense sets, as LLM-Adapters asks",
            ("commonsense",),
            "Its Series adapters stand after the MLP here.",
        ),
        BySet(ACC, "Commonsense sets by likelihood, acc"),
        BySet(ACC_NORM, "Commonsense sets by likelihood, acc_norm"),
    ),
    samples={"arithmetic": Samples(4), "commonsense": Samples(4)},
    headings={"methods": "Adapters and fine-tuning, on the same data"},
    note="The published figures are those of models of 6 to 13 billion parameters.",
)

LAYOUTS: Mapping[str, ReportLayout] = {layout.key: layout for layout in (KV, NTL, CODE, ADAPTERS)}
