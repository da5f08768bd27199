"""`calmctl report` of experiments on real text: one, several seeds, evaluations, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from calmctl.cli.main import main
from calmctl.reporting.report import measured, terminal_tables
from tests.kv_folder import write
from tests.section_folder import change, leave_plots_out, write_section


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    leave_plots_out(monkeypatch)
    return write_section(tmp_path / "run", seeds=(0,))


def run(capsys, *arguments) -> tuple[int, str, str]:
    code = main(["report", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_one_folder_prints_its_answers_and_tables(folder, capsys):
    status, out, err = run(capsys, folder)
    assert status == 0 and "Does composition give more" in out and "Ligurian" in out and "report.html" in err
    status, out, _ = run(capsys, folder, "--json")
    assert json.loads(out)["headline"] == measured(folder)["headline"] and json.loads(out)["section"] == "ntl"
    terminal_tables(folder)
    assert "…" not in capsys.readouterr().out


def test_several_seeds_are_averaged_a_folder_being_a_run(tmp_path, capsys):
    folders = [write_section(tmp_path / f"s{seed}", seed=seed, change=float(seed)) for seed in (0, 1)]
    status, out, _ = run(capsys, *folders, "--out", tmp_path / "both")
    assert status == 0 and "27.4 ± 0.7" in out and "19.1 ± 0.7" in out
    assert "27.4 ± 0.7" in (tmp_path / "both/seeds.md").read_text()
    figures = json.loads((tmp_path / "both/seeds.json").read_text())["systems"]["calm"]["metrics"]["flores"]["chrf1"]
    assert figures["values"] == pytest.approx([26.93, 27.93]) and figures["mean"] == pytest.approx(27.43)
    assert run(capsys, folders[0], folders[0])[0] == 2
    other = write_section(tmp_path / "code", "code", seed=2)
    assert "different sections (code, ntl)" in run(capsys, folders[0], other)[2]
    change(folders[1], lambda results: results["systems"].pop(3))
    assert "random m_A (1 of 2 seeds)" in run(capsys, *folders)[1]


def test_only_runs_that_differ_in_nothing_but_the_seed_are_averaged(tmp_path, capsys):
    folders = [write_section(tmp_path / f"s{seed}", seed=seed) for seed in (0, 1)]
    for seed, folder in enumerate(folders):
        settings = f"seed: {seed}\njobs: {seed}\ndata:\n  seed: {seed}\ncompose:\n  train:\n    steps: "
        more = f"compare: [lora{', prefix' * seed}]\ntasks: [flores{', gsm8k' * seed}]\n"  # one of them was given more
        more += f"num_bridge_seeds: {1 + seed}\n"
        more += f"flores:\n  task: flores\n  limit: 9\ngsm8k:\n  task: gsm8k\n  limit: {seed}\n"
        (folder / "config.yaml").write_text(f"{more}{settings}600\n")
    assert run(capsys, *folders)[0] == 0
    (folders[1] / "config.yaml").write_text(f"{more}{settings}700\n")
    status, _, error = run(capsys, *folders)
    assert status == 2 and "differ in more than their seed (compose.train.steps: 600 -> 700)" in error
    (folders[1] / "config.yaml").write_text(f"{more.replace('limit: 9', 'limit: 8')}{settings}600\n")
    assert "differ in more than their seed (flores.limit: 9 -> 8)" in run(capsys, *folders)[2]
    # A third folder that was not asked a task does not hide what the others were asked.
    third = write_section(tmp_path / "s2", seed=2)
    (third / "config.yaml").write_text(f"{more.replace('[flores, gsm8k]', '[]')}{settings}600\n")
    assert "flores.limit: 9 -> 8" in run(capsys, *folders, third)[2]
    (folders[1] / "config.yaml").unlink()
    status, _, error = run(capsys, *folders)
    assert status == 2 and "config.yaml: missing or damaged" in error and error.count("\n") == 1


def test_seeds_that_were_asked_other_records_are_not_averaged(tmp_path, capsys):
    folders = [write_section(tmp_path / f"s{seed}", seed=seed) for seed in (0, 1)]
    for path in folders[1].glob("eval/flores/*/metrics.json"):
        metrics = json.loads(path.read_text())
        write(path, metrics | {"protocol": {**metrics["protocol"], "release": "flores_plus"}})
    status, _, error = run(capsys, *folders)
    assert (
        status == 2 and 'flores: not comparable, as the evaluations differ in release (null and "flores_plus")' in error
    )
    assert error.count("\n") == 1


def test_evaluations_stand_side_by_side(folder, tmp_path, capsys):
    runs = [folder / "eval/flores" / name for name in ("calm", "lora")]
    for path in runs:
        write(path / "run.json", {"kind": "eval", "status": "complete"})
    status, out, _ = run(capsys, *runs, "--out", tmp_path / "side")
    assert status == 0 and re.search(r"calm +– +500 +26\.9 +1\.904", out) and "not comparable" not in out
    text = (tmp_path / "side/report.md").read_text()
    assert "[calm](../run/eval/flores/calm)" in text and (tmp_path / "side/report.html").exists()
    metrics = json.loads((runs[0] / "metrics.json").read_text())
    write(runs[0] / "metrics.json", metrics | {"n": 7})
    assert "flores: not comparable, as the evaluations differ in n (7 and 500)." in run(capsys, *runs)[1]
    told = json.loads(run(capsys, folder / "eval/flores", "--json")[1])
    assert [each["n"] for each in told["evaluations"]] == [7, 500] and told["not_comparable"]


@pytest.mark.parametrize("files", [None, {"devtest": "c"}])
def test_evaluations_of_other_data_are_pointed_out(folder, files, capsys):
    """Unless the protocol says that the files are the same, wherever they lie."""
    runs = [folder / "eval/flores" / name for name in ("calm", "lora")]
    for path, checksum in zip(runs, "ab", strict=True):
        write(path / "run.json", {"kind": "eval", "status": "complete"})
        found = json.loads((path / "metrics.json").read_text())
        found["data"]["sha256"] = checksum
        found["protocol"] |= {"data_sha256": files} if files else {}
        write(path / "metrics.json", found)
    told = "flores: not comparable, as the evaluations differ in data_sha256" in run(capsys, *runs)[1]
    assert told == (files is None)


def test_other_folders_and_mixtures_are_one_clear_line(folder, tmp_path, capsys):
    write(tmp_path / "eval/run.json", {"kind": "eval", "status": "complete"})
    unfinished = tmp_path / "unfinished"
    write(unfinished / "run.json", {"kind": "train", "status": "running"})
    for arguments, message in (
        ([tmp_path / "nowhere"], "no such folder"),
        ([folder / "data"], "nothing to report; name"),
        ([unfinished], "nothing to report (kind train, interrupted)"),
        ([folder, folder / "calm"], "of a training; report them one by one"),
        ([tmp_path / "eval"], "metrics.json: no such file"),
        ([folder, "--out", tmp_path / "x"], "--out"),
    ):
        status, out, err = run(capsys, *arguments)
        assert status == 2 and message in err and err.count("\n") == 1 and not out


def test_one_broken_run_is_named_and_the_others_are_reported(tmp_path, capsys):
    facts = {"kind": "eval", "status": "complete", "seconds": 1.0}
    metrics = {"task": "gsm8k", "metrics": {"accuracy": 50.0}, "n": 4}
    breaks = {
        "no run.json": ("run.json", None),
        "damaged run.json": ("run.json", "{"),
        "no metrics.json": ("metrics.json", None),
        "damaged metrics.json": ("metrics.json", "[]"),
        "no figures": ("metrics.json", "{}"),
        "unfinished": ("run.json", json.dumps(facts | {"status": "running"})),
    }
    for name, (file, content) in breaks.items():
        root = tmp_path / name.replace(" ", "-")
        for run_name in ("bad", "good", "well"):
            (root / run_name).mkdir(parents=True)
            write(root / run_name / "run.json", facts)
            write(root / run_name / "metrics.json", metrics)
        broken = root / "bad" / file
        broken.unlink() if content is None else broken.write_text(content)
        for named in ([root], [root / "bad", root / "good", root / "well"]):
            status, out, error = run(capsys, *named, "--json")
            assert (status, error.count("\n")) == (1, 1) and str(root / "bad") in error, name
            assert [row["run"] for row in json.loads(out)["errors"]] == [str(root / "bad")]
            assert str(root / "good") in out and "1 of 3 runs" in error
        status, out, error = run(capsys, root / "bad", root / "bad")
        assert (status, out, error.count("\n")) == (2, "", 1), name
        assert main(["ls", "runs", str(root), "--json"]) == 0
        assert {Path(row["path"]).name for row in json.loads(capsys.readouterr().out)} >= {"good", "well"}
