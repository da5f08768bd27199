"""Every task from end to end: untrained models generate, are interrupted, go on, and are scored.

What a `kill -9` leaves behind is the work files' matter, whichever the task: see test_interrupted_evaluation.py.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from calmctl.cli.main import main
from calmctl.evaluation.work_files import SAMPLES_FILE, WorkFiles
from data_builders.row_files import read_jsonl
from data_builders.values import read_json
from evals import TASKS
from tests.real_data import real_data
from tests.task_data import write_data, write_models

pytestmark = pytest.mark.slow
WRITING = [name for name in TASKS if name != "text"]  # text has no completions: see test_text_task.py
OPTIONS = {
    "flores": ["--languages", "fra_Latn", "--shots", "2"],
    "humaneval": ["--allow-code-execution"],
    "mbpp": ["--allow-code-execution"],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data of every task, two models, and evaluations of both that nothing interrupted."""
    folder = tmp_path_factory.mktemp("every")
    write_data(folder / "data")
    for model in write_models(folder):
        for task in WRITING:
            assert main(command(folder, model, task, folder / "straight" / model)) == 0
    return folder


def command(place: Path, model: str, task: str, out: Path) -> list[str]:
    named = ["--model", str(place / model), "--data", str(place / "data" / task), "--out", str(out / task)]
    few = ["--limit", "2", "decoding.max_new_tokens=5", "decoding.batch_size=1"]
    return ["eval", task, *named, *OPTIONS.get(task, []), *few]


def results(out: Path) -> dict[str, Any]:
    """Return what has to be the same of every task, however its run came to its end."""
    found = {}
    for run in sorted(out.iterdir()):
        assert read_json(run / "run.json")["status"] == "complete"
        made = [(row["id"], row["sample"]) for row in read_jsonl(run / SAMPLES_FILE)]
        assert len(set(made)) == len(made) > 0
        metrics = read_json(run / "metrics.json")["metrics"]
        # How long a program ran, and nothing else, may differ.
        rows = [{**row, "seconds": None} for row in read_jsonl(run / "predictions.jsonl")]
        found[run.name] = metrics, rows, (run / SAMPLES_FILE).read_text()
    return found


@pytest.mark.parametrize("model", ["plain", "composed"])
def test_every_task_runs_and_says_what_the_model_wrote(place: Path, model: str) -> None:
    found = results(place / "straight" / model)
    assert set(found) == set(WRITING)
    for metrics, predictions, samples in found.values():
        assert metrics and all(0 <= value <= 100 for value in metrics.values())
        assert len(predictions) == len(samples.splitlines()) >= 2
        assert any(json.loads(line)["completion"] for line in samples.splitlines())


def test_an_untrained_composed_model_writes_what_its_anchor_does(place: Path) -> None:
    """At the start bridges add nothing: the completions are the anchor's."""
    plain, with_augs = (results(place / "straight" / model) for model in ("plain", "composed"))
    assert [found[:2] for found in plain.values()] == [found[:2] for found in with_augs.values()]


def test_every_task_goes_on_after_an_interruption(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append, made = WorkFiles.append, []
    straight = results(place / "straight" / "plain")

    def interrupted(self: WorkFiles, samples: Any) -> None:
        rows = list(samples)
        append(self, rows)
        made.append(len(rows))
        if self.folder.name not in seen:
            seen.add(self.folder.name)
            raise KeyboardInterrupt

    seen: set[str] = set()
    monkeypatch.setattr(WorkFiles, "append", interrupted)
    for task in WRITING:
        assert main(command(place, "plain", task, tmp_path)) != 0
        assert len(read_jsonl(tmp_path / task / SAMPLES_FILE)) == 1
        assert main(command(place, "plain", task, tmp_path)) == 0
    assert results(tmp_path) == straight
    assert sum(made) == sum(len(samples.splitlines()) for _, _, samples in straight.values())


REAL = {
    "flores": ("flores200", ["--languages", "fra_Latn,zho_Hans", "--shots", "2"]),
    "gsm8k": ("gsm8k", ["--shots", "2"]),
    "mgsm": ("mgsm", ["--shots", "0"]),
    "humaneval": ("humaneval", ["--allow-code-execution"]),
    "mbpp": ("mbpp/mbpp.jsonl", ["--allow-code-execution"]),
    "codexglue": ("codexglue/code_to_text/ruby_official", ["--shots", "1"]),
}


@pytest.mark.parametrize("task", REAL)
def test_the_real_data_of_a_task_runs_and_goes_on(
    place: Path, tmp_path: Path, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, options = REAL[task]
    shared = ["eval", task, "--model", str(place / "composed"), "--data", str(real_data(name)), *options]
    shared += ["--limit", "2", "decoding.max_new_tokens=5", "decoding.batch_size=1", "--out"]
    assert main([*shared, str(tmp_path / "straight" / task)]) == 0
    append = WorkFiles.append

    def once(self: WorkFiles, samples: Any) -> None:
        append(self, samples)
        monkeypatch.setattr(WorkFiles, "append", append)
        raise KeyboardInterrupt

    monkeypatch.setattr(WorkFiles, "append", once)
    assert main([*shared, str(tmp_path / "run" / task)]) != 0
    assert main([*shared, str(tmp_path / "run" / task)]) == 0
    assert results(tmp_path / "run") == results(tmp_path / "straight")
