"""Tables and sample predictions say what the files say, in every format."""

from __future__ import annotations

from pathlib import Path

import pytest

from calmctl.reporting.answering_costs import training_costs
from calmctl.reporting.document.tables import (
    Column,
    Number,
    Table,
    Text,
    md_code,
    md_text,
    signed,
    to_html,
    to_markdown,
)
from calmctl.reporting.report import terminal_tables
from calmctl.reporting.results_file import load_results
from calmctl.reporting.samples import Sample, choose_samples, labels
from tests.report_figures import ABLATIONS, KV, NAMES
from tests.report_folder import change, markdown, of, write_folder, write_lines, write_training

HOSTILE = "<script>alert('x')</script> | `code` [link](http://evil) **bold**"


@pytest.fixture
def kv(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "kv", "kv")


def samples_of(folder: Path) -> tuple[list[Sample], list[Table]]:
    results = load_results(folder)
    samples = choose_samples(results)
    return samples, [sample.table(labels(results)) for sample in samples]


def column(table: Table, index: int) -> list[Text]:
    return [cell for cell in (cells[index] for cells in table.rows) if isinstance(cell, Text)]


# Samples


def test_samples_of_key_values_are_held_out_first_right_then_wrong(kv: Path) -> None:
    samples, tables = samples_of(kv)
    verdicts = [sample.rows["calm"]["substitute"]["correct"] for sample in samples]
    assert verdicts == [True, True, True, False, False] == sorted(verdicts, reverse=True)
    assert all(int(sample.record[-3:]) < 10 for sample in samples)
    names = [each.label for each in tables[0].columns]
    assert names == ["", "KV-MATH, stepwise", "KV-MATH, direct", "NUM-MATH"]
    assert [cell.text for cell in column(tables[0], 0)] == ["prompt", "m_A alone", "m_B alone", "CALM", "reference"]
    assert [cell.text.strip() for cell in column(tables[0], 1)][3:] == ["12 + 07 - 33 = -014"] * 2
    assert [cell.asides() for cell in column(tables[0], 1)] == [[], ["wrong"], ["wrong"], ["right"], []]
    assert [cell.asides() for cell in column(tables[0], 3)] == [[], ["wrong"], ["right"], ["right"], []]


def test_samples_of_texts_span_the_compositions_scores_over_different_languages(reported: dict[str, Path]) -> None:
    samples, _ = samples_of(reported["ntl"])
    numbers = [int(sample.record.rpartition("/")[2]) for sample in samples]
    assert numbers[0] < 4 and numbers[-1] > 15 and numbers == sorted(numbers)
    assert len({sample.record.split("/")[0] for sample in samples}) == len(NAMES) + 1
    text = markdown(reported["ntl"])
    for key in ("m_A", "m_B", "calm", "m_B_finetuned"):
        assert f"`{key} says {numbers[0]}`" in text
    assert f"`reference {numbers[0]}`" in text


def test_a_model_without_predictions_is_said_to_be_not_run(kv: Path) -> None:
    (kv / "eval/kv/anchor/predictions.jsonl").unlink()
    cells = samples_of(kv)[1][0].rows[2]
    assert {cell.text for cell in cells if isinstance(cell, Text)} == {"m_B alone", "not run"}


def test_the_verdict_is_that_of_the_metric_asked_for(kv: Path) -> None:
    """`correct` is that of the whole answer; a metric that the prediction has a verdict of goes before it."""
    said = {"prompt": "p", "completion": "c", "reference": "r"}
    parts: list[dict] = [{"correct": False, "metrics": {"kv_subs": False, "kv_math": True}}, {"correct": True}, {}]
    names = ("substitute", "solve_keys", "solve_numbers")
    rows = [{"id": f"test-1/{name}", **said, **verdict} for name, verdict in zip(names, parts, strict=True)]
    write_lines(kv / "eval/kv/calm/predictions.jsonl", rows)
    asides = [cell.asides() for cell in samples_of(kv)[1][0].rows[3][1:] if isinstance(cell, Text)]
    assert asides == [["right"], ["right"], []]


# Tables


def test_numbers_show_difference_spread_and_absence() -> None:
    assert Number(86.68, paper=84.3).main() == "86.7"
    assert Number(86.68, paper=84.3).asides() == ["paper 84.3", "+2.4"]
    assert Number(84.0, paper=84.3, spread=0.55).main() == "84.0 ± 0.6"
    assert Number(84.0, paper=84.3).asides() == ["paper 84.3", "−0.3"]
    assert Number(None, paper=84.3).main() == "not run"
    assert Number(None, paper=84.3).asides() == ["paper 84.3"]
    assert [signed(value) for value in (0.04, -0.04, 1.0, -1.0)] == ["±0.0", "±0.0", "+1.0", "−1.0"]


def test_a_row_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="1 cells under 2 columns"):
        Table("t", (Column("a"), Column("b")), ((Text("x"),),))


def test_markdown_and_html_escape_cells() -> None:
    table = Table("", (Column("a|b"),), ((Text(HOSTILE, is_code=True),), (Text("<b>m_A</b> _x_"),)))
    assert to_markdown(table).splitlines()[0] == "| a\\|b |"
    assert "&lt;b>m_A&lt;/b> \\_x\\_" in to_markdown(table)
    assert "<script" not in to_html(table)
    assert md_code("a`b``c") == "``` a`b``c ```"
    assert md_code("  ") == "(empty)"
    assert md_text("# no\nheading") == "\\# no heading"


def test_a_terminal_has_every_figure_and_cuts_nothing(
    reported: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    terminal_tables(reported["kv"])
    printed = capsys.readouterr().out
    assert "…" not in printed and "CALM, by share of keys in D_C (its own: 20%)" in printed
    figures = [f"{value:.1f}" for made in {**KV, **ABLATIONS}.values() for value in made.figures]
    assert not [figure for figure in figures if figure not in printed]


def test_a_training_that_several_systems_needed_stands_in_the_costs_once(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "ntl", keys=("m_A", "m_B", "calm", "lora"))
    write_training(folder, "aug_scratch", 0, 1000)
    shown = load_results(folder).systems[0].runs[0].run

    def need(results) -> None:
        for key in ("calm", "lora"):
            of(results, key)["runs"][0]["others"] = [shown, "aug_scratch"]

    change(folder, need)
    table = training_costs(load_results(folder))
    assert table is not None
    names = [cell.text for cell in column(table, 0)]
    assert len(names) == 5 == len(set(names)) and sum(name.endswith("aug_scratch") for name in names) == 1
