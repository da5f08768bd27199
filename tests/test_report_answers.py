"""What came out, in sentences: compared with either model, with LoRA and with the paper, whichever way it falls."""

from __future__ import annotations

from pathlib import Path

import pytest

from calmctl.reporting.headline import difference_of, headline
from calmctl.reporting.layouts import FLORES_BITS, FLORES_CHRF, KV_MATH, LAYOUTS, PAPER_FLORES
from calmctl.reporting.measures import paper_figure
from calmctl.reporting.paper import TABLE_1, paper_table
from calmctl.reporting.results_file import load_results
from calmctl.reporting.values import Spread
from data_builders.benchmarks.languages import LANGUAGES
from tests.report_folder import change, of, write_folder


def test_the_papers_tables_agree_with_one_another() -> None:
    """Averages are those of their rows, and what stands in two tables is the same in both."""
    for name in ("table2", "table3_high", "table3_low"):
        for system, figures in paper_table(name).systems.items():
            values = [value for code, value in figures.items() if code != "avg"]
            assert len(values) == 10 and sum(values) / 10 == pytest.approx(figures["avg"], abs=0.06), (name, system)
    for system, metric in ((s, m) for s in ("calm", "m_B_finetuned") for m in ("humaneval_pass@1", "mbpp_pass@1")):
        assert paper_table("table4").figure(system, metric) == paper_table("table5").figure(system, metric)
    for system, metric in (("calm", 60.5), ("lora", 59.2), ("random_aug", 58.8)):
        assert paper_figure(system, FLORES_CHRF) == metric
    assert TABLE_1 == {
        "m_A": {"kv_subs": 98.1, "num_math": 4.2, "kv_math": 0.7},
        "m_B": {"kv_subs": 0.0, "num_math": 73.7, "kv_math": 0.0},
        "calm": {"kv_subs": 92.9, "num_math": 72.0, "kv_math": 84.3},
    }
    assert paper_figure("calm", KV_MATH) == 84.3 and "2401.02412" in paper_table("table1").source
    with pytest.raises(KeyError, match="table1"):
        paper_table("table99")


def test_what_stands_beside_the_papers_figures_is_what_the_paper_has() -> None:
    assert PAPER_FLORES.keys() <= LANGUAGES.keys()
    assert set(PAPER_FLORES.values()) == paper_table("table2").systems["calm"].keys() - {"avg"}
    measures = {measure.paper for layout in LAYOUTS.values() for measure in layout.measures if measure.paper}
    tables = [paper_table(name) for name in ("table1", "table4", "table5")]
    assert measures <= {metric for table in tables for figures in table.systems.values() for metric in figures}


@pytest.mark.parametrize("measure, ours, theirs, outcome", [
    (FLORES_CHRF, (20.0, 21.0), (15.0,), "better"),
    (FLORES_CHRF, (20.0, 21.0), (25.0,), "worse"),
    (FLORES_CHRF, (20.0, 24.0), (20.0, 21.0), "within the spread"),
    (FLORES_CHRF, (20.0, 22.0), (19.0,), "within the spread"),
    (FLORES_CHRF, (20.01,), (20.04,), "equal"),
    (FLORES_CHRF, (), (20.0,), "not run"),
    (FLORES_BITS, (1.9, 1.91), (2.0,), "better"),
    (FLORES_BITS, (2.1,), (2.0,), "worse"),
    (FLORES_BITS, (1.9, 2.1), (2.05,), "within the spread"),
])  # fmt: skip
def test_differences(measure, ours, theirs, outcome) -> None:
    assert difference_of(Spread(ours), Spread(theirs), measure).outcome == outcome


def test_answers_on_real_text_whichever_way_they_fall(folder: Path) -> None:
    def answers() -> tuple[str, ...]:
        return headline(load_results(folder))[:2]

    assert answers()[0].endswith("? Yes by FLORES-200 chrF1 and FLORES-200 bits per byte.")
    assert "(it has 0.5 percent fewer parameters)" in answers()[1]

    def worse(results: dict) -> None:
        figures = {key: of(results, key)["runs"][0]["metrics"]["flores"] for key in ("calm", "m_A")}
        figures["calm"] |= {"chrf1": figures["m_A"]["chrf1"], "bits_per_byte": 2.0}

    change(folder, worse)
    assert answers()[0].endswith("? Yes by FLORES-200 bits per byte; no difference by FLORES-200 chrF1.")
    assert answers()[1].endswith("? No by FLORES-200 chrF1 and FLORES-200 bits per byte.")
    change(folder, lambda results: of(results, "lora")["runs"][0].update(metrics={}))
    assert answers()[1].endswith("? Not measured by FLORES-200 chrF1 and FLORES-200 bits per byte.")
    change(folder, lambda results: results["systems"].remove(of(results, "lora")))
    assert not [sentence for sentence in headline(load_results(folder)) if "LoRA" in sentence]


def test_answers_on_key_values_compare_with_the_paper_and_say_whether_num_math_is_kept(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "kv")

    def answers() -> tuple[str, ...]:
        return headline(load_results(folder))

    def set_figure(key: str, value: float) -> None:
        change(folder, lambda results: of(results, key)["runs"][0]["metrics"]["kv"].update(num_math=value))

    first, second, third, _, kept, last = answers()
    assert first == "KV-MATH (stepwise), composed: 86.7 percent, paper 84.3 (+2.4 points)."
    assert second == "Does composition give more than either model? Yes by KV-MATH (stepwise)."
    assert third == "KV-MATH (stepwise): composed 86.7, m_A 0.4, m_B 0.3, random m_A 0.1."
    assert "NUM-MATH is kept: 90.9 composed against 91.6 alone" in kept and "in the paper 72.0 against 73.7" in kept
    assert last == "One seed: how much of a difference is chance was not measured."
    set_figure("calm", 80.0)
    assert "NUM-MATH is not kept: 80.0" in answers()[4]
    set_figure("m_B", 0.0)
    assert "no NUM-MATH that could be kept" in answers()[4]


def test_it_is_said_what_is_known_of_chance(reported: dict[str, Path], folder: Path) -> None:
    assert "seeds 0, 1, 2" in headline(load_results(reported["ntl"]))[-1]
    assert headline(load_results(folder))[-1] == "One seed: how much of a difference is chance was not measured."
    first = headline(load_results(reported["code"]))[0]
    assert first.endswith("; no difference by HumanEval pass@1 and CodeXGLUE BLEU-4.")


def test_languages_stand_from_low_to_high_resource_as_the_anchor_has_it(reported: dict[str, Path]) -> None:
    results = load_results(reported["ntl"])
    bits = [results.group_spread("m_B", FLORES_BITS, code).mean for code in results.groups(FLORES_CHRF)]
    assert bits == sorted(bits, reverse=True) and results.groups(FLORES_CHRF) == results.groups(FLORES_BITS)
    assert results.above("calm", FLORES_BITS) == (5, 5) and results.above("m_B", FLORES_CHRF) == (0, 5)
