"""Two tiny models with data, and the command that sweeps over their composition."""

import json
from pathlib import Path

import pytest

from data_builders.kv.tokenizers import build_word_tokenizer
from tests.models import llama

SWEPT = ("every=1,2", "train.lr=1e-3,1e-2")
NAMES = ["every=1,lr=0.001", "every=1,lr=0.01", "every=2,lr=0.001", "every=2,lr=0.01"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An anchor and an aug with their tokenizer, and a few sums."""
    folder = tmp_path_factory.mktemp("sweeps")
    tokenizer = build_word_tokenizer(["ab"], ["solve:"])
    for name, model in (("anchor", llama(seed=1)), ("aug", llama(seed=2, width=16, heads=2, kv_heads=1))):
        model.resize_token_embeddings(len(tokenizer))
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    rows = [{"prompt": f"solve: {a} + {b} =", "completion": f" {a + b}"} for a in range(5) for b in range(5)]
    (folder / "dc.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def command(folder: Path, out: Path) -> list[str]:
    """Return the command that composes the models of a folder by two steps, without what is swept over."""
    options = [word for name in ("anchor", "aug") for word in (f"--{name}", str(folder / name))]
    settings = ["train.steps=2", "train.batch_size=4", "train.warmup_steps=0", "train.validation_share=0.2"]
    return ["compose", *options, "--data", str(folder / "dc.jsonl"), "--out", str(out), *settings]
