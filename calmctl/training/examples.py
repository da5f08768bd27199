"""Training examples: a JSONL or Parquet file of prompt/completion or text rows, as token ids."""

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from calmctl.errors import UserError
from calmctl.modeling.prompt_ids import prompt_ids

READERS = {".jsonl": pyarrow.json.read_json, ".parquet": pyarrow.parquet.read_table}
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
        append_eos: end every completion or text with the tokenizer's end-of-text token, except rows whose
            `meta.open_ended` says that the text goes on.

    Raises:
        UserError: the file is missing, of another format, empty, lacks the columns or has empty rows; or there is no
            eos token.
    """
    table = _read(path)
    if append_eos and tokenizer.eos_token_id is None:
        raise UserError(f"train.append_eos: the tokenizer {tokenizer.name_or_path!r} has no end-of-text token")
    meta = _meta(table)
    is_open = meta.get("open_ended", np.zeros(table.num_rows, dtype=bool))
    closed = np.array([value is None or not value for value in is_open])
    ends = [[tokenizer.eos_token_id] if append_eos and is_closed else [] for is_closed in closed]
    has_prompt = "prompt" in table.column_names
    sequences: list[list[int]] = []
    completion_starts: list[int] = []
    for batch in table.to_batches(max_chunksize=TOKENIZER_BATCH):
        completions = _tokenise(tokenizer, batch["completion" if has_prompt else "text"], not has_prompt)
        prompts = _tokenise(tokenizer, batch["prompt"], True) if has_prompt else [[]] * len(completions)
        completion_starts += map(len, prompts)
        here = ends[len(sequences) : len(sequences) + len(completions)]
        sequences += [
            prompt + completion + end for prompt, completion, end in zip(prompts, completions, here, strict=True)
        ]
    if empty := [row for row, sequence in enumerate(sequences) if not sequence]:
        raise UserError(f"{path}: row {empty[0] + 1} is empty ({len(empty)} such rows); remove them")
    lengths = np.fromiter(map(len, sequences), np.int64, len(sequences))
    return Examples(
        np.fromiter(chain.from_iterable(sequences), np.int32, lengths.sum()),
        np.concatenate([[0], np.cumsum(lengths)]),
        np.asarray(completion_starts, np.int32),
        meta,
    )


def _tokenise(tokenizer: PreTrainedTokenizerBase, texts: pa.Array, opens: bool) -> list[list[int]]:
    """Tokenise texts; those that open a sequence get what the tokenizer puts there (a beginning-of-text token)."""
    if opens:
        return prompt_ids(tokenizer, texts.to_pylist())
    return tokenizer(texts.to_pylist(), add_special_tokens=False, return_attention_mask=False)["input_ids"]


def _meta(table: pa.Table) -> dict[str, NDArray[Any]]:
    if "meta" not in table.column_names or not pa.types.is_struct(table.schema.field("meta").type):
        return {}
    meta = table["meta"].combine_chunks()
    return {field.name: meta.field(field.name).to_numpy(zero_copy_only=False) for field in meta.type}


def _read(path: Path) -> pa.Table:
    if path.suffix not in READERS:
        raise UserError(f"{path}: training data must be {' or '.join(READERS)}, not {path.suffix or 'a folder'!r}")
    if not path.is_file():
        raise UserError(f"{path}: no such training file; build it with `calmctl data`, or check the path")
    try:
        table = READERS[path.suffix](path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: cannot be read as {path.suffix[1:]} ({str(error).splitlines()[0]})") from error
    if not table.num_rows:
        raise UserError(f"{path}: there are no rows in it")
    columns = set(table.column_names)
    if not ({"prompt", "completion"} <= columns or "text" in columns):
        raise UserError(f"{path}: needs columns `prompt` and `completion`, or `text`; found {table.column_names}")
    for name in columns & {"prompt", "completion", "text"}:
        if not pa.types.is_string(table.schema.field(name).type) or table[name].null_count:
            raise UserError(f"{path}: column `{name}` must hold text in every row")
    return table
