"""Held-out text: windows, and the bits that models need for them."""

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM

from calmctl.cli.main import main
from data_builders.errors import UserError
from data_builders.values import read_json
from evals.text import TextTask, split_windows
from tests.task_data import byte_tokenizer, write_models

TEXTS = [
    {"id": "a", "text": "".join(f"line {n} of a\n" for n in range(9)), "meta": {"language": "python"}},
    {"id": "b", "text": "".join(f"{n} größer\n" for n in range(9)), "meta": {"language": "go"}},
    {"id": "c", "text": "short\n", "meta": {"language": "go"}},
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "held_out.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in TEXTS))
    return path


def test_windows_end_with_lines_and_are_the_whole_text() -> None:
    for row in TEXTS[:2]:
        windows = split_windows(row["text"], 30)
        assert "".join(windows) == row["text"] and len(windows) > 1
        assert all(len(window.encode()) >= 30 and window.endswith("\n") for window in windows)
    assert split_windows("no line end", 3) == ["no line end"] and split_windows("short\n", 30) == []


def test_every_window_but_the_first_is_measured_after_the_one_before(file: Path) -> None:
    task = TextTask(window=30)
    requests = task.requests(task.load(file))
    for row in TEXTS:
        windows = split_windows(row["text"], 30)
        mine = [request for request in requests if request.id.startswith(f"{row['id']}#")]
        assert [(request.prompt, request.reference) for request in mine] == list(
            zip(windows, windows[1:], strict=False)
        )
        assert {request.group for request in mine} <= {row["meta"]["language"]}
    assert {request.num_samples for request in requests} == {0}


def test_parquet_is_read_as_json_lines_are(file: Path, tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(TEXTS), tmp_path / "held_out.parquet", row_group_size=2)
    task = TextTask(window=30)
    assert task.load(tmp_path / "held_out.parquet") == task.load(file)


def test_bits_per_byte_are_those_of_the_model(file: Path, tmp_path: Path) -> None:
    path = write_models(tmp_path)["plain"]
    tokenizer, model = byte_tokenizer(), AutoModelForCausalLM.from_pretrained(path)
    command = ["eval", "text", "--model", str(path), "--data", str(file), "--out", str(tmp_path / "run")]
    assert main([*command, "options.window=30"]) == 0
    task, nats, sizes = TextTask(window=30), {}, {}
    for record in task.load(file):
        before, whole = (tokenizer(text)["input_ids"] for text in (record.before, record.before + record.window))
        with torch.no_grad():
            scores = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        mine = -sum(float(scores[place - 1, whole[place]]) for place in range(len(before), len(whole)))
        nats[record.group] = nats.get(record.group, 0.0) + mine
        sizes[record.group] = sizes.get(record.group, 0) + len(record.window.encode())
    found = read_json(tmp_path / "run" / "metrics.json")
    expected = sum(nats.values()) / math.log(2) / sum(sizes.values())
    assert found["metrics"]["bits_per_byte"] == pytest.approx(expected, abs=2e-3)
    for group, bits in found["breakdown"]["bits_per_byte"].items():
        assert bits == pytest.approx(nats[group] / math.log(2) / sizes[group], abs=2e-3)
    assert set(found["breakdown"]["bits_per_byte"]) == {"python", "go"}


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"prompt": "a"}], {}, "no usable 'text'"),
        (TEXTS[2:], {}, "no text has two windows"),
        (TEXTS, {"window": 0}, "window: 0 is too small"),
    ],
)
def test_what_cannot_be_measured_is_refused(tmp_path: Path, rows: list, options: dict, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=message):
        TextTask(**options).load(path)
