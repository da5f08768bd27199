"""A made-up task, data of two tasks, a tiny model, and evaluations of it: as several test files need them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
import yaml
from transformers import AutoTokenizer

from calmctl.config import from_dict
from calmctl.evaluation.config import EvalConfig
from calmctl.evaluation.work_files import SAMPLES_FILE
from data_builders.errors import UserError
from data_builders.kv.build import build
from data_builders.values import read_json
from evals import Request, Scores, Task
from tests.kv_settings import SMALL
from tests.models import llama

SAMPLING = ("decoding.temperature=1.5", "decoding.batch_size=2")


@dataclass(frozen=True)
class Words(Task[str]):
    """Counts words: a made-up task with shots, several samples and a choice of languages.

    Its data is a text file with a question a line.
    """

    name: ClassVar[str] = "words"
    version: ClassVar[int] = 3
    shots: int = 2
    num_samples: int = 1
    languages: tuple[str, ...] = ("en",)

    def read(self, data: Path, limit: int | None) -> list[str]:
        if not data.is_file():
            raise UserError(f"{data}: no such file; give one with a question a line")
        return data.read_text().splitlines()[:limit]

    def requests(self, records: Sequence[str]) -> list[Request]:
        shots = ("solve: 1 + 2 = 3 ", "solve: 12 - 4 = 8 ", "solve: 9 - 9 = 0 ")[: self.shots]
        return [
            Request(f"{language}/{place}", text, 4, ("=",), shots, self.num_samples)
            for language in self.languages
            for place, text in enumerate(records)
        ]

    def judge(self, records: Sequence[str], requests: Sequence[Request], completions: Any) -> Scores:
        samples = [{"id": each.id, "completion": text} for each in requests for text in completions[each.id]]
        counts = [len(sample["completion"].split()) for sample in samples]
        return Scores({"words": sum(counts) / len(counts)}, len(records), {}, {"shots": self.shots}, samples)


def write_place(folder: Path) -> Path:
    """Write data of two tasks and a tiny model."""
    build(replace(SMALL, num_test_rows=4), folder / "data" / "kv")
    (folder / "data" / "words.txt").write_text("solve: 1 + 2 =\nsolve: 4 =\nsolve: 12 + 33 - 4 =\n9\n")
    tokenizer = AutoTokenizer.from_pretrained(folder / "data" / "kv" / "tokenizer")
    model = llama(seed=4)
    model.resize_token_embeddings(len(tokenizer))
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder


def command(place: Path, out: Path, *more: str) -> list[str]:
    named = ["eval", "kv", "--model", str(place / "model"), "--data", str(place / "data" / "kv"), "--out", str(out)]
    return [*named, *more]


def config_of(run: Path) -> EvalConfig:
    return from_dict(EvalConfig, yaml.safe_load((run / "config.yaml").read_text()))


def results(out: Path) -> tuple[Any, str, str]:
    """Return what has to be the same however a run came to its end."""
    metrics = read_json(out / "metrics.json")
    assert read_json(out / "run.json")["status"] == "complete"
    return metrics["metrics"], (out / "predictions.jsonl").read_text(), (out / SAMPLES_FILE).read_text()
