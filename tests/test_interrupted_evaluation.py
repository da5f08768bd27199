"""Evaluations that are interrupted or shared between processes: what is done is kept, and nothing is done twice."""

import os
import shutil
import signal
import subprocess
import sys
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from calmctl.cli.main import main
from calmctl.errors import UserError
from calmctl.evaluation.evaluating import _share, run_evaluation
from calmctl.evaluation.work_files import SAMPLES_FILE, WorkFiles
from calmctl.inference.prompt import FittedPrompts
from calmctl.modeling.bases.locating import source_sha256
from calmctl.processes.ranks import Ranks
from data_builders.row_files import read_jsonl
from data_builders.values import read_json
from evals import Request
from tests.evaluations import SAMPLING, command, config_of, results

ROOT = Path(__file__).resolve().parents[1]


def start(arguments: Sequence[str], launcher: Sequence[str] = (sys.executable,)) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*launcher, "-m", "calmctl", *arguments],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_where_it_was(place: Path, straight: Path, tmp_path: Path) -> None:
    out, total = tmp_path / "run", len(read_jsonl(straight / SAMPLES_FILE))
    kills, seen = 0, 0
    while kills < 2:
        process = start(command(place, out, *SAMPLING))
        while process.poll() is None and len(read_jsonl(out / SAMPLES_FILE)) < seen + 4:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, process.stdout and process.stdout.read()
        kills, seen = kills + 1, len(read_jsonl(out / SAMPLES_FILE))
        assert 0 < seen < total and not (out / "metrics.json").exists()
        with (out / SAMPLES_FILE).open("a") as stream:
            stream.write('{"id": "torn')
    kept = (out / SAMPLES_FILE).read_text().splitlines()[:seen]
    assert main(command(place, out, *SAMPLING)) == 0
    assert results(out) == results(straight)
    assert set(kept) <= set((out / SAMPLES_FILE).read_text().splitlines())
    assert read_json(out / "run.json")["resumes"] == 2


def test_what_is_done_is_not_generated_again(
    place: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (straight / SAMPLES_FILE).read_text().splitlines(keepends=True)
    made: list[int] = []
    append = WorkFiles.append

    def counting(self: WorkFiles, samples: Any) -> None:
        rows = list(samples)
        made.append(len(rows))
        append(self, rows)
        if len(made) == len(lines) // 2 - 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(WorkFiles, "append", counting)
    with pytest.raises(KeyboardInterrupt):
        run_evaluation(config_of(straight), tmp_path / "run")
    assert read_json(tmp_path / "run" / "run.json")["status"] == "interrupted"
    run_evaluation(config_of(straight), tmp_path / "run")
    assert sum(made) == len(lines)
    assert results(tmp_path / "run") == results(straight)
    run_evaluation(config_of(straight), tmp_path / "run")
    assert sum(made) == len(lines)


def test_another_configuration_or_other_requests_are_refused(
    place: Path, straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(place, straight, "decoding.temperature=1.5", "decoding.batch_size=3")) == 2
    assert "decoding.batch_size: 2 -> 3" in capsys.readouterr().err
    requests = [Request("a", "1 =", 4), Request("b", "2 =", 4)]
    work = WorkFiles(tmp_path, requests, "m")
    work.append([(0, 0, "x")])
    assert WorkFiles(tmp_path, requests[:1], "m").read() == {(0, 0): "x"}
    for others in ([Request("a", "1 =", 5)], [Request("b", "1 =", 4)], [Request("a", "1 =", 4, shots=("s",))]):
        with pytest.raises(UserError, match="completion of .a. that this model is not asked for"):
            WorkFiles(tmp_path, others, "m").read()
    with pytest.raises(UserError, match="the model, the data or the program has changed"):
        WorkFiles(tmp_path, requests, "another").read()


@pytest.mark.parametrize("name", ["tokenizer.json", "generation_config.json", "config.json"])
def test_a_model_with_another_tokenizer_or_end_of_text_is_another_model(place: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(place / "model", tmp_path / "model")
    before = source_sha256(str(tmp_path / "model"))
    assert before == source_sha256(str(place / "model"))
    file = tmp_path / "model" / name
    file.write_text(file.read_text() + " ")
    assert source_sha256(str(tmp_path / "model")) != before


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_processes_share_prompts_evenly_and_each_once(count: int) -> None:
    lengths = [9, 1, 7, 7, 3, 8, 2, 20, 4, 6]
    prompts = [Request("", "x", 4 if length % 2 else 64) for length in lengths]
    fitted = FittedPrompts(prompts, [array("i", range(length)) for length in lengths])
    shares = [_share(fitted, Ranks(index, count)) for index in range(count)]
    assert sorted(place for share in shares for place in share) == list(range(len(lengths)))
    long = [sum(prompts[place].max_new_tokens == 64 for place in share) for share in shares]
    assert max(long) - min(long) <= 1


def test_work_files_of_several_processes_become_one_without_repeats(tmp_path: Path) -> None:
    requests = [Request(name, "1 =", 4, num_samples=2) for name in "abc"]
    WorkFiles(tmp_path, requests, "m", 1).append([(1, 1, "b1"), (1, 0, "b0")])
    WorkFiles(tmp_path, requests, "m").append([(2, 0, "c0"), (0, 0, "a0"), (1, 1, "again"), (0, 1, "a1"), (2, 1, "c1")])
    assert WorkFiles(tmp_path, requests, "m").read()[1, 1] == "again"
    gathered = WorkFiles(tmp_path, requests, "m").gather()
    assert gathered == {"a": ["a0", "a1"], "b": ["b0", "again"], "c": ["c0", "c1"]}
    assert [path.name for path in tmp_path.iterdir()] == [SAMPLES_FILE]
    assert WorkFiles(tmp_path, requests, "m").gather() == gathered


@pytest.mark.slow
def test_several_processes_share_the_work(place: Path, straight: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(command(place, out, *SAMPLING, "--json", "--nproc-per-node", "2"))
    while process.poll() is None and not (out / "samples.rank1.jsonl").exists():
        time.sleep(0.02)
    half = len(read_jsonl(straight / SAMPLES_FILE)) // 2
    mine = [row["id"] for row in read_jsonl(straight / SAMPLES_FILE)][1::2]
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0, printed
    assert results(out) == results(straight)
    said = read_json(out / "metrics.json")
    assert said["generation"]["processes"] == 2 and printed.count('"kv_math"') >= 1
    assert not list(out.glob("samples.rank*")) and len(mine) == half
    # The same again does nothing, with any number of processes; and a mistake is an error everywhere.
    assert main(command(place, out, *SAMPLING)) == 0
    process = start(command(place, out, "decoding.batch_size=5", "--nproc-per-node=2"))
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 2 and printed.startswith("calmctl: error: ") and printed.count("\n") == 1


@pytest.mark.slow
def test_a_killed_job_of_several_processes_goes_on_with_one(place: Path, straight: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    process = start(command(place, out, *SAMPLING), torchrun)
    while process.poll() is None and not (
        len(read_jsonl(out / SAMPLES_FILE)) > 4 and len(read_jsonl(out / "samples.rank1.jsonl")) > 4
    ):
        time.sleep(0.005)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in [*children, process.pid]:
        os.kill(int(pid), signal.SIGKILL)
    process.communicate()
    before = read_jsonl(out / "samples.rank1.jsonl")
    assert before and not (out / "metrics.json").exists()
    assert main(command(place, out, *SAMPLING)) == 0
    assert results(out) == results(straight)


def test_likelihoods_of_another_choice_are_refused(tmp_path: Path) -> None:
    requests = [Request("a#0", "1 =", 0, num_samples=0, reference=text) for text in (" 2", " 3")]
    WorkFiles(tmp_path, requests[:1], "model").append_bits([(0, 1.5)])
    assert WorkFiles(tmp_path, requests[:1], "model").read_bits() == {0: 1.5}
    with pytest.raises(UserError, match="holds a likelihood of 'a#0' that this model is not asked for"):
        WorkFiles(tmp_path, requests[1:], "model").read_bits()


def test_processes_share_likelihoods_and_forget_them(tmp_path: Path) -> None:
    requests = [Request(f"a#{n}", "1 =", 0, num_samples=0, reference=f" {n}") for n in range(4)]
    first, second = (WorkFiles(tmp_path, requests, "model", rank) for rank in (0, 1))
    first.append_bits([(0, 1.5), (2, 2.5)])
    second.append_bits([(1, 3.5)])
    assert first.read_bits() == second.read_bits() == {0: 1.5, 1: 3.5, 2: 2.5}
    first.forget_bits()
    assert WorkFiles(tmp_path, requests, "model").read_bits() == {} and not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="two requests have the id 'a#0'"):
        WorkFiles(tmp_path, [*requests, requests[0]], "model")
