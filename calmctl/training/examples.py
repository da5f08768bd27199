"""Training examples: a JSONL or Parquet file of prompt/completion or text rows, as token ids."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetGenerationError
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from calmctl.errors import UserError

FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}
TOKENIZER_BATCH = 10_000


@dataclass(frozen=True)
class Examples:
    """Tokenised examples, stored end to end.

    Attributes:
        ids: all token ids, one example after the other.
        starts: (n + 1,) where each example begins in `ids`, and the end.
        completion_starts: (n,) tokens of each example that come before the first one to be learned.
        meta: fields of the rows' `meta`, each (n,).
    """

    ids: NDArray[np.int32]
    starts: NDArray[np.int64]
    completion_starts: NDArray[np.int32]
    meta: dict[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.completion_starts)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Return the length of each example in tokens."""
        return np.diff(self.starts)

    def example(self, index: int) -> NDArray[np.int32]:
        """Return the token ids of one example."""
        return self.ids[self.starts[index] : self.starts[index + 1]]


def load_examples(path: Path, tokenizer: PreTrainedTokenizerBase, append_eos: bool = True) -> Examples:
    """Read and tokenise a training file.

    Prompt and completion are tokenised apart, so that the boundary between them is a boundary between tokens and what
    is learned is exactly what is generated later.

    Args:
        append_eos: end every completion or text with the tokenizer's end-of-text token.

    Raises:
        UserError: the file is missing, of another format, empty, or lacks the columns; or there is no eos token.
    """
    rows = _read(path)
    if append_eos and tokenizer.eos_token_id is None:
        raise UserError(f"train.append_eos: the tokenizer {tokenizer.name_or_path!r} has no end-of-text token")
    eos = [tokenizer.eos_token_id] if append_eos else []
    pieces: list[NDArray[np.int32]] = []
    lengths, completion_starts = [], []
    for start in range(0, len(rows), TOKENIZER_BATCH):
        batch = rows[start : start + TOKENIZER_BATCH]
        has_prompt = "prompt" in batch
        completions = _tokenise(tokenizer, batch["completion" if has_prompt else "text"], not has_prompt)
        prompts = _tokenise(tokenizer, batch["prompt"], True) if has_prompt else [[]] * len(completions)
        for prompt, completion in zip(prompts, completions, strict=True):
            ids = prompt + completion + eos
            pieces.append(np.asarray(ids, np.int32))
            lengths.append(len(ids))
            completion_starts.append(len(prompt))
    return Examples(
        np.concatenate(pieces),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.asarray(completion_starts, np.int32),
        _meta(rows),
    )


def _tokenise(tokenizer: PreTrainedTokenizerBase, texts: list[str], opens: bool) -> list[list[int]]:
    """Tokenise texts; those that open a sequence get what the tokenizer puts there (a beginning-of-text token)."""
    return tokenizer(texts, add_special_tokens=opens, return_attention_mask=False)["input_ids"]


def _meta(rows: Dataset) -> dict[str, NDArray[Any]]:
    if "meta" not in rows.column_names:
        return {}
    flat = rows.select_columns("meta").flatten()
    return {name.removeprefix("meta."): np.asarray(flat.with_format("arrow")[name]) for name in flat.column_names}


def _read(path: Path) -> Dataset:
    if path.suffix not in FORMATS:
        raise UserError(f"{path}: training data must be one of {', '.join(FORMATS)}, not {path.suffix or 'a folder'!r}")
    if not path.is_file():
        raise UserError(f"{path}: no such training file; build it with `calmctl data`, or check the path")
    try:
        rows = load_dataset(FORMATS[path.suffix], data_files=str(path), split="train")
    except (DatasetGenerationError, ValueError, OSError) as error:
        raise UserError(f"{path}: cannot be read as {FORMATS[path.suffix]} ({error})") from error
    if not len(rows):
        raise UserError(f"{path}: there are no rows in it")
    if not ({"prompt", "completion"} <= set(rows.column_names) or "text" in rows.column_names):
        raise UserError(f"{path}: needs columns `prompt` and `completion`, or `text`; found {rows.column_names}")
    return rows
