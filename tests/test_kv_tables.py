"""`table1.json` and `table5.json`: what is exported, and folders of the version before, which had nothing else."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from calmctl.cli.main import main
from calmctl.errors import UserError
from calmctl.reporting.kv_tables import table1, table5
from calmctl.reporting.paper import TABLE_1
from calmctl.reporting.report import write_report
from calmctl.reporting.results_file import load_results
from calmctl.reporting.systems_table import SYSTEMS
from tests.report_figures import ABLATIONS, KV, METRICS, VALUES
from tests.report_folder import EVERY_SYSTEM, of, read, report_of, write, write_before, write_folder

PUBLISHED = Path(__file__).parents[1] / "docs" / "results"
PROVENANCE = {"seed", "preset", "git_commit", "hardware", "seconds"}


@pytest.fixture
def before(tmp_path: Path, undrawn: None) -> Path:
    return write_before(tmp_path / "before")


# What is exported


def test_table_1_holds_what_the_evaluations_say_and_has_the_keys_it_had(reported: dict[str, Path]) -> None:
    folder = reported["kv"]
    table = read(folder / "table1.json")
    assert table.keys() == KV.keys() | {"dc_mix", "paper", "deviations"} | PROVENANCE
    published = read(PUBLISHED / "kv-tiny-seed0" / "table1.json")
    assert list(table) == list(published) and table["calm"].keys() == published["calm"].keys() == {*METRICS}
    for key, made in KV.items():
        assert table[key] == read(folder / f"eval/kv/{made.run}/metrics.json")["metrics"], key
    assert table["dc_mix"] == table["calm"] and table["paper"] == TABLE_1


def test_table_5_holds_what_evaluations_and_runs_say_and_has_the_keys_it_had(reported: dict[str, Path]) -> None:
    folder = reported["kv"]
    table, published = read(folder / "table5.json"), read(PUBLISHED / "kv-tiny-ablations" / "table5.json")
    assert table.keys() == published.keys() == {"rows", "calm_values"} | PROVENANCE
    assert list(table["rows"]) == [*EVERY_SYSTEM] and table["calm_values"] == VALUES
    assert table["calm_values"].keys() == published["calm_values"].keys()
    for key, row in table["rows"].items():
        assert row.keys() == published["rows"]["calm"].keys()
        assert row["metrics"] == read(folder / row["evaluation"] / "metrics.json")["metrics"], key
        facts = read(folder / row["run"] / "run.json")
        assert row["trainable_parameters"] == facts["trainable_parameters"] and row["seconds"] == facts["seconds"]
        assert row["cost"].items() >= facts["cost"].items()
        assert (row["value"], row["metrics"]["kv_math"]) == (
            {**KV, **ABLATIONS}[key].value, {**KV, **ABLATIONS}[key].figures[2],
        )  # fmt: skip
        if key in published["rows"]:
            assert row["group"] == published["rows"][key]["group"]
    assert table["rows"]["lora"]["matched_parameters"] == 123_456


def test_tables_of_several_seeds_hold_their_means(tmp_path: Path) -> None:
    results = read(write_folder(tmp_path, "kv", seeds=(0, 1, 2), keys=EVERY_SYSTEM) / "results.json")
    metrics = [run["metrics"]["kv"]["kv_math"] for run in of(results, "share_0.5")["runs"]]
    assert len(set(metrics)) == 3
    assert table5(results, tmp_path)["rows"]["share_0.5"]["metrics"]["kv_math"] == pytest.approx(sum(metrics) / 3)
    assert table1(results, tmp_path)["calm"]["kv_math"] == pytest.approx(86.68)


def test_table_1_says_whose_keys_they_are(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "kv")
    path = folder / "eval/kv/calm/metrics.json"
    metrics = read(path)
    metrics["breakdown"]["by_augs"] = {"1": {"n": 3, "kv_math": 4.0}}
    write(path, metrics)
    assert table1(read(folder / "results.json"), folder)["calm_by_augs"] == {"1": {"n": 3, "kv_math": 4.0}}


# Folders of the version before


def test_a_folder_of_the_version_before_is_reported_with_the_same_figures(
    before: Path, tmp_path: Path, undrawn: None
) -> None:
    now = write_folder(tmp_path / "now", "kv", keys=EVERY_SYSTEM)
    for ours, theirs in zip(load_results(now).systems, load_results(before).systems, strict=True):
        assert (ours.key, ours.group, ours.value) == (theirs.key, theirs.group, theirs.value)
        assert ours.runs[0].metrics == theirs.runs[0].metrics and ours.runs[0].cost == theirs.runs[0].cost
    ours, theirs = (re.sub(r"\]\([^)]*\)", "]", report_of(folder)) for folder in (now, before))
    different = set(ours.splitlines()) ^ set(theirs.splitlines())
    assert not [line for line in different if not line.endswith("[metrics] |")], "beside the names of their folders"


def test_a_folder_with_nothing_but_its_table_is_reported(tmp_path: Path, undrawn: None) -> None:
    write(tmp_path / "table1.json", {"calm": {"kv_subs": 1.0, "kv_math": None}})
    text = report_of(tmp_path)
    assert "KV-MATH (stepwise), composed: not run (paper: 84.3)." in text and "seed not recorded" in text
    assert "| CALM | – |" in text and "1.0 (paper 92.9, −91.9)" in text
    for fact in ("Not measured by KV-MATH (stepwise)", "composed model: not run", "| not here |"):
        assert fact in text


@pytest.mark.parametrize("file, content, message", [
    ("table1.json", "{", "damaged"),
    ("table1.json", "[]", "expected names and figures"),
    ("table1.json", "{}", "names none of m_A"),
    ("ablations/table5.json", "[]", "expected names and figures"),
    ("ablations/table5.json", '{"rows": {}}', "expected names and figures"),
    ("ablations/table5.json", '{"calm_values": {}, "rows": {"lora": {}}}', "damaged .*has no metrics"),
    ("ablations/table5.json", '{"calm_values": {}, "rows": {"luck": {"metrics": {}}}}', "damaged .*unknown"),
    ("eval/calm/metrics.json", '{"metrics": 3}', "expected names and figures"),
])  # fmt: skip
def test_damaged_tables_are_named(before: Path, file: str, content: str, message: str) -> None:
    (before / file).write_text(content)
    with pytest.raises(UserError, match=message) as error:
        write_report(before)
    assert file in str(error.value) and "\n" not in str(error.value)


def test_a_new_run_into_it_is_refused_in_one_line_and_changes_nothing(
    before: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(before / "ablations")
    listing = {path: path.stat().st_mtime_ns for path in before.rglob("*")}
    for more in ([], ["--ablations"], ["--dry-run"]):
        assert main(["reproduce", "kv", "--preset", "smoke", "--out", str(before), *more]) == 2
        error = capsys.readouterr().err
        assert "made by an earlier version of calmctl" in error and "choose another --out" in error
        assert error.count("\n") == 1
    assert {path: path.stat().st_mtime_ns for path in before.rglob("*")} == listing


@pytest.mark.parametrize("folder", sorted(PUBLISHED.glob("*/table1.json")), ids=lambda path: path.parent.name)
def test_published_results_are_reported(folder: Path) -> None:
    results, table = load_results(folder.parent), read(folder)
    more = read(path)["rows"] if (path := folder.with_name("table5.json")).exists() else {}
    keys = [key for key in table if key in SYSTEMS]
    assert [system.key for system in results.systems] == [*keys, *(key for key in more if key not in keys)]
    for system in results.systems:
        assert system.runs[0].metrics == {
            "kv": table[system.key] if system.key in keys else more[system.key]["metrics"]
        }
