"""`calmctl report`: of one folder, of several seeds, of evaluations, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from calmctl.cli.main import main
from calmctl.reporting.report import measured
from tests.report_folder import EVERY_SYSTEM, read, write, write_folder


def run(capsys, *arguments) -> tuple[int, str, str]:
    code = main(["report", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.mark.parametrize("name, shown", [("kv", "86.7 percent, paper 84.3"), ("ntl", "Ligurian"), ("code", "ruby")])
def test_one_folder_prints_its_answers_and_tables(tmp_path, undrawn, capsys, name, shown):
    folder = write_folder(tmp_path / name, name)
    status, out, err = run(capsys, folder)
    assert status == 0 and "Does composition give more" in out and shown in out and "…" not in out
    assert "report.html" in err and f"and {len(list((folder / 'plots').iterdir()))} plots" in err
    told = json.loads(run(capsys, folder, "--json")[1])
    assert told["headline"] == measured(folder)["headline"] and told["section"] == name
    assert told["systems"] == read(folder / "results.json")["systems"] and str(folder / "report.md") in told["files"]


def test_key_value_tables_stand_in_the_json_as_they_were(tmp_path, undrawn, capsys):
    folder = write_folder(tmp_path, "kv", keys=EVERY_SYSTEM)
    told = json.loads(run(capsys, folder, "--json")[1])
    assert told["calm"]["kv_math"] == 86.68 and told["table5"] == read(folder / "table5.json")
    assert told.items() >= read(folder / "table1.json").items()


@pytest.mark.parametrize("name, mean", [("kv", "87.2 ± 0.7"), ("ntl", "27.4 ± 0.7")])
def test_several_folders_print_and_write_the_mean(tmp_path, capsys, name, mean):
    folders = [write_folder(tmp_path / f"s{seed}", name, seed=seed, shift=float(seed)) for seed in (0, 1)]
    status, out, err = run(capsys, *folders, "--out", tmp_path / "both")
    assert status == 0 and mean in out and "seeds.md" in err and mean in (tmp_path / "both/seeds.md").read_text()
    assert json.loads(run(capsys, *folders, "--json")[1]) == read(tmp_path / "both/seeds.json")
    (folders[1] / "config.yaml").unlink()
    for named in ([folders[0], folders[0]], folders):
        status, out, error = run(capsys, *named)
        assert status == 2 and not out and error.count("\n") == 1


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
