"""Tables, sample predictions and means over seeds say what the files say, in every format."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy
import pytest

from calmctl.errors import UserError
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
from calmctl.reporting.kv_results import CALM, KV_MATH
from calmctl.reporting.kv_samples import is_right, kv_samples
from calmctl.reporting.plots.groups import wilson_interval
from calmctl.reporting.seeds import aggregate_seeds, write_seed_summary
from tests.kv_folder import write, write_folder

HOSTILE = "<script>alert('x')</script> | `code` [link](http://evil) **bold**"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "kv")


# Samples


def test_samples_are_held_out_first_right_then_wrong(folder: Path) -> None:
    samples = kv_samples(folder)
    assert [sample.record for sample in samples] == [
        "test-004",
        "test-001",
        "test-002",
        "test-000",
        "test-003",
    ]
    verdicts = [sample.rows["calm"]["substitute"]["correct"] for sample in samples]
    assert verdicts == [True, True, True, False, False]
    assert all(int(sample.record[-3:]) < 10 for sample in samples)
    table = samples[0].table()
    assert [column.label for column in table.columns] == [
        "",
        "KV-MATH, stepwise",
        "KV-MATH, direct",
        "NUM-MATH",
    ]
    assert [cell.text for cell in column(table, 0)] == ["prompt", "m_A", "m_B", "CALM", "reference"]
    assert [cell.text for cell in column(table, 1)][3:] == ["12 + 07 - 33 = -014"] * 2
    assert [cell.asides() for cell in column(table, 1)] == [[], ["wrong"], ["wrong"], ["right"], []]


def test_a_model_without_predictions_is_said_to_be_not_run(folder: Path) -> None:
    (folder / "eval" / "anchor" / "predictions.jsonl").unlink()
    cells = kv_samples(folder)[0].table().rows[2]
    assert {cell.text for cell in cells if isinstance(cell, Text)} == {"m_B", "not run"}


def test_the_verdict_is_that_of_the_metric_asked_for(folder: Path) -> None:
    row = {"correct": False, "metrics": {"kv_subs": False, "kv_math": True}}
    assert is_right(row, "kv_math") is True
    assert is_right({"correct": True}, "kv_math") is True
    assert is_right({}, "kv_math") is None


def column(table: Table, index: int) -> list[Text]:
    return [cell for cell in (cells[index] for cells in table.rows) if isinstance(cell, Text)]


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


def test_wilson_interval_holds_the_value_and_narrows() -> None:
    for value in (0.0, 37.0, 100.0):
        (low, high), (lower, higher) = wilson_interval(value, 1000), wilson_interval(value, 10)
        assert 0 <= lower <= low <= value <= high <= higher <= 100
    assert wilson_interval(50.0, 100) == pytest.approx((40.38, 59.62), abs=0.01)
    assert wilson_interval(50.0, None) == (50.0, 50.0)


# Seeds


def test_mean_and_deviation_over_seeds(tmp_path: Path) -> None:
    changes = enumerate((-1.0, 0.0, 2.5))
    folders = [write_folder(tmp_path / str(seed), seed, change) for seed, change in changes]
    for path in (folders[2] / "eval" / "calm_dc_math", folders[2] / "calm_dc_math"):
        shutil.rmtree(path)
    table = json.loads((folders[2] / "table1.json").read_text())
    del table["dc_math"]
    write(folders[2] / "table1.json", table)

    summary = aggregate_seeds(folders)
    spread = summary.spread(CALM, KV_MATH)
    assert spread.values == (85.68, 86.68, 89.18)
    assert spread.mean == pytest.approx(numpy.mean(spread.values))
    assert spread.std == pytest.approx(numpy.std(spread.values, ddof=1))
    text = to_markdown(summary.table())
    assert "87.2 ± 1.8 (paper 84.3, +2.9)" in text
    assert "2 of 3 seeds" in text
    assert "seeds 0, 1, 2" in text

    paths = write_seed_summary(summary, tmp_path / "out")
    assert [path.name for path in paths] == ["seeds.md", "seeds.json"]
    found = json.loads(paths[1].read_text())
    assert found["systems"]["calm"]["kv_math"]["values"] == [85.68, 86.68, 89.18]
    assert found["systems"]["calm"]["kv_math"]["paper"] == 84.3
    assert len(found["systems"]["dc_math"]["kv_math"]["values"]) == 2


def test_one_seed_has_no_deviation(folder: Path) -> None:
    spread = aggregate_seeds([folder]).spread(CALM, KV_MATH)
    assert (spread.mean, spread.std) == (86.68, None)


def test_seeds_of_different_presets_and_twice_the_same_seed_are_refused(tmp_path: Path) -> None:
    first, second = (write_folder(tmp_path / name) for name in "ab")
    with pytest.raises(UserError, match="both of seed 7"):
        aggregate_seeds([first, second])
    table = json.loads((second / "table1.json").read_text())
    write(second / "table1.json", table | {"preset": "other", "seed": 8})
    with pytest.raises(UserError, match="other, synthetic"):
        aggregate_seeds([first, second])
    with pytest.raises(UserError, match="no folder"):
        aggregate_seeds([])
