"""The smallest real training: a tokenizer, a file of sums, and a configuration that takes a moment."""

import json
from pathlib import Path

import numpy as np

from calmctl.training.configs import TrainConfig
from calmctl.training.settings import TrainSettings
from data_builders.kv.tokenizers import build_word_tokenizer

MODEL = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip


def write_sums(folder: Path) -> None:
    """Write `tokenizer/`, and sums to train (`train.jsonl`, 40) and to validate on (`validation.jsonl`, 10)."""
    build_word_tokenizer(["ab"], ["solve:"]).save_pretrained(folder / "tokenizer")
    generator = np.random.default_rng(0)
    for name, count in (("train", 40), ("validation", 10)):
        numbers = [generator.integers(1, 30, 2 + row % 2) for row in range(count)]
        rows = [
            {"prompt": f"solve: {' + '.join(map(str, each))} =", "completion": f" {each.sum()}"} for each in numbers
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def sums_config(folder: Path, validate: bool = False, **settings: object) -> TrainConfig:
    """Return a configuration of 8 steps on what `write_sums` wrote."""
    defaults = {"steps": 8, "batch_size": 4, "lr": 0.01, "warmup_steps": 2, "save_every": 3, "log_every": 1}
    return TrainConfig(
        str(folder / "tokenizer"),
        dataset=str(folder / "train.jsonl"),
        model=MODEL,
        validation=str(folder / "validation.jsonl") if validate else "",
        seed=3,
        train=TrainSettings(**{**defaults, **settings}),
    )
