"""Reports of folders in which something is missing, damaged, contradictory or hostile."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from calmctl.errors import UserError
from calmctl.reporting.report import write_report
from calmctl.reporting.results_file import load_results
from tests.report_figures import predictions
from tests.report_folder import Page, change, markdown, of, read, report_of, write, write_folder, write_lines
from tests.test_report_tables import HOSTILE

TASK = {"kv": "kv", "ntl": "flores"}
both = pytest.mark.parametrize("name", TASK)


@pytest.fixture
def made(tmp_path: Path, name: str, undrawn: None) -> Path:
    return write_folder(tmp_path / name, name)


# Missing


def test_what_was_not_run_has_no_row_or_says_so(tmp_path: Path, undrawn: None) -> None:
    text = report_of(write_folder(tmp_path / "some", "kv", keys=("m_A", "m_B", "calm")))
    assert "random m_A" not in text and not (tmp_path / "some/plots/training_random_aug.png").exists()
    folder = write_folder(tmp_path / "all", "kv")
    change(folder, lambda results: of(results, "random_aug")["runs"][0].update(metrics={}, evaluations={}))
    text = report_of(folder)
    assert "| [random m_A](random_aug) | 123,456 | ±0.0% | not run | not run | not run | not run |" in text
    assert "m_B 0.3, random m_A not run." in text


@both
def test_a_folder_with_little_in_it_is_reported(tmp_path: Path, undrawn: None, name: str) -> None:
    folder = write_folder(tmp_path, name, keys=("calm",))
    shutil.rmtree(folder / "data")
    shutil.rmtree(folder / "eval")
    shutil.rmtree(folder / "calm")
    (folder / "run.json").unlink()
    text = report_of(folder)
    not_measured = {"kv": "Not measured by KV-MATH (stepwise)", "ntl": "Not measured by FLORES-200 chrF1"}[name]
    for fact in (not_measured, "no data/manifest.json", "composed model: not run", "not recorded", "| not here |"):
        assert fact in text
    figure = {"kv": "86.7 (paper 84.3, +2.4)", "ntl": "26.9 (paper 60.5)"}[name]
    assert f" {figure} |" in text


def test_models_used_as_they_are_have_no_runs(folder: Path) -> None:
    def edit(results: dict) -> None:
        for system in results["systems"][:2]:
            system["runs"][0] |= {"is_trained": False, "run": "org/model", "cost": None, "trainable_parameters": None}

    change(folder, edit)
    shutil.rmtree(folder / "aug")
    text = report_of(folder)
    assert "| m_A alone | 0 | org/model | used as it is |" in text
    assert "| m_A alone | – |" in text and "(aug)" not in text


# Contradictory


@pytest.mark.parametrize("name, metric, said, told", [
    ("kv", "kv_math", 99.0, "results.json says 99.0, eval/kv/calm/metrics.json says 86.7"),
    ("ntl", "bits_per_byte", 1.7, "results.json says 1.700, eval/flores/calm/metrics.json says 1.904"),
])  # fmt: skip
def test_a_figure_that_its_evaluation_does_not_confirm_is_pointed_out(
    made: Path, name: str, metric: str, said: float, told: str
) -> None:
    assert load_results(made).disagreements() == []
    change(made, lambda results: of(results, "calm")["runs"][0]["metrics"][TASK[name]].update({metric: said}))
    assert told in report_of(made) and told in Page(made).text


@both
def test_evaluations_that_differ_in_more_than_the_model_are_pointed_out(made: Path, name: str) -> None:
    path = made / "eval" / TASK[name] / "calm/metrics.json"
    metrics = read(path)
    write(path, metrics | {"protocol": metrics["protocol"] | {"shots": 9}})
    write_report(made)
    shots = metrics["protocol"]["shots"]
    assert f"{TASK[name]}: not comparable, as the evaluations differ in shots ({shots} and 9)." in Page(made).text


def test_a_run_that_failed_is_said_to_have(folder: Path) -> None:
    write(folder / "run.json", read(folder / "run.json") | {"status": "failed"})
    assert "This run is failed: it may be incomplete." in report_of(folder)


# Hostile


@both
def test_hostile_texts_are_shown_not_obeyed(made: Path, name: str) -> None:
    def edit(results: dict) -> None:
        results |= {"preset": HOSTILE, "deviations": [HOSTILE], "hardware": {"cpu": HOSTILE}, "git_commit": HOSTILE}
        of(results, "calm")["label"] = HOSTILE

    change(made, edit)
    said = dict.fromkeys(("prompt", "completion", "answer", "reference"), HOSTILE)
    rows = [row | said for row in predictions(name, TASK[name], "calm")]
    write_lines(made / "eval" / TASK[name] / "calm/predictions.jsonl", rows)
    write_report(made)
    page, outside_code = Page(made), re.sub(r"(`+) .*? \1", "", markdown(made))
    assert "script" not in page.tags and page.text.count(HOSTILE) >= 8
    assert not [link for link in page.links if "evil" in link]
    assert "<script" not in outside_code and not re.search(r"(?<!\\)\[link\]\(", outside_code)
    samples = markdown(made).split("## Sample predictions")[1].split("\n## ")[0]
    lines = [line for line in samples.splitlines() if line.startswith("| prompt")]
    assert lines and {line.count("|") - line.count("\\|") for line in lines} == {5 if name == "kv" else 3}


# Damaged


@pytest.mark.parametrize("name, file, content, message", [
    ("ntl", "results.json", "{", "damaged"),
    ("ntl", "results.json", "[]", "expected names and figures"),
    ("ntl", "results.json", '{"section": "xy"}', "'xy' is not one of kv, ntl, code"),
    ("ntl", "results.json", '{"section": "ntl"}', "names no systems"),
    ("ntl", "results.json", '{"section": "ntl", "systems": [{"key": "calm"}]}', "no 'runs'"),
    ("ntl", "results.json", '{"section": "ntl", "systems": [7]}', "damaged"),
    ("ntl", "eval/flores/calm/metrics.json", None, "no such file"),
    ("ntl", "eval/flores/calm/metrics.json", '{"task": "flores", "metrics": {}}', "no task and figures"),
    ("kv", "eval/kv/calm/metrics.json", '{"metrics": 3}', "expected names and figures"),
    ("kv", "eval/kv/calm/predictions.jsonl", "{}\nnot json\n{}\n", "predictions.jsonl.*JSON"),
    ("ntl", "data/manifest.json", "{", "damaged"),
    ("ntl", "calm/run.json", None, "no run.json"),
    ("kv", "calm/train_log.jsonl", "{}\nnot json\n{}\n", "train_log.jsonl:2: is no JSON"),
])  # fmt: skip
def test_missing_and_damaged_files_are_named(made: Path, file: str, content: str | None, message: str) -> None:
    (made / file).unlink() if content is None else (made / file).write_text(content)
    with pytest.raises(UserError, match=message) as error:
        write_report(made)
    assert file.split("/")[0] in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("edit, message", [
    (lambda run, system: run["cost"].pop("model_bytes"), "no 'model_bytes'"),
    (lambda run, system: run.pop("seed"), "no 'seed'"),
    (lambda run, system: system.update(group="luck"), "group 'luck' is not one of models"),
    (lambda run, system: system.update(runs=[]), "it has no runs"),
])  # fmt: skip
def test_what_a_system_lacks_is_named(folder: Path, edit, message: str) -> None:
    change(folder, lambda results: edit(of(results, "calm")["runs"][0], of(results, "calm")))
    with pytest.raises(UserError, match=rf"results\.json: damaged .*{message}"):
        write_report(folder)


def test_other_folders_are_refused_and_the_message_names_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such folder; expected .*calmctl reproduce"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no results\.json .*calmctl reproduce"):
        write_report(tmp_path)
    write(tmp_path / "run.json", {"kind": "train", "status": "complete"})
    with pytest.raises(UserError, match="kind 'train'"):
        write_report(tmp_path)
