"""Additions of two and three operands with a tokenizer, for the tests of what is trained on and how."""

import json
from pathlib import Path

import numpy as np
import pytest

from calmctl.training.examples import Examples, load_examples
from calmctl.training.settings import TrainSettings
from data_builders.kv.tokenizers import build_word_tokenizer

KEYS = ["ab", "cde", "fghi"]
SETTINGS = TrainSettings(
    steps=8, batch_size=4, optimizer="muon", lr=0.01, warmup_steps=2, save_every=3, log_every=1, bucket_width=1
)


@pytest.fixture(scope="module")
def tokenizer():
    return build_word_tokenizer(KEYS, ["substitute:", "solve:"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer) -> Path:
    """A tokenizer, and additions of two and three operands."""
    folder = tmp_path_factory.mktemp("training")
    tokenizer.save_pretrained(folder / "tokenizer")
    generator = np.random.default_rng(0)
    rows = []
    for count in (2, 3):
        for _ in range(30):
            numbers = generator.integers(1, 30, count)
            kind = "context" if generator.random() < 0.3 else "plain"
            rows.append(
                {
                    "prompt": f"solve: {' + '.join(map(str, numbers))} =",
                    "completion": f" {numbers.sum()}",
                    "meta": {"num_operands": count, "kind": kind},
                }
            )
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def examples(folder, tokenizer) -> Examples:
    return load_examples(folder / "train.jsonl", tokenizer, SETTINGS)


def write(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
