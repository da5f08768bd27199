"""The training files of LLM-Adapters' sets as pairs of instruction and answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_builders.benchmarks.gsm8k import read_gsm8k
from data_builders.benchmarks.reasoning import COMMONSENSE
from data_builders.benchmarks.reasoning_rows import reasoning_file
from data_builders.errors import UserError
from data_builders.files import sha256_file
from data_builders.reasoning.config import ReasoningDataConfig
from data_builders.row_files import Fields, located_rows, require_fields

_FIELDS: Fields = {"instruction": str, "output": str}
_MAWPS_FIELDS: Fields = {"original_text": str, "equation": str, "ans": (int, float, str)}
_CALCULATION = re.compile(r"<<[^<>]*>>")
_WHOLE = re.compile(r"(?<![\d.])(\d+)\.0(?!\d)")


@dataclass(frozen=True)
class Pair:
    """A question and its answer, in the words of one source."""

    source: str
    instruction: str
    output: str


def read_sources(config: ReasoningDataConfig) -> tuple[list[Pair], dict[str, str]]:
    """Return all pairs of a mix, source after source, and the sha256 of each file.

    Raises:
        UserError: a file cannot be used, or there is none at all.
    """
    pairs: list[Pair] = []
    checksums: dict[str, str] = {}
    folder = Path(config.data_folder) if config.data_folder else None
    for name, path in _files(config, folder):
        pairs += _mawps(path) if name == "mawps" else _rows(name, path)
        checksums[name if name in config.files else f"{name}/{path.name}"] = sha256_file(path)
    if config.gsm8k is not None:
        problems, files = read_gsm8k(Path(config.gsm8k), "train")
        pairs += [Pair("gsm8k", each.question, _worked(each.solution)) for each in problems]
        checksums |= {f"gsm8k/{name}": checksum for name, checksum in files.items()}
    if not pairs:
        wanted = "mawps/trainset.json; gsm8k=FOLDER" if config.mix == "arithmetic" else "boolq/train.json and the like"
        raise UserError(
            f"data_folder: {folder} holds no training file of {config.mix} ({wanted}), and files= names none"
        )
    return pairs, checksums


def _files(config: ReasoningDataConfig, folder: Path | None) -> Iterator[tuple[str, Path]]:
    """Yield the files that are there, with the name of their set or, of further ones, as they were named."""
    names = [(each.name, "train") for each in COMMONSENSE] if config.mix == "commonsense" else []
    names += [("mawps", "trainset"), ("AQuA", "train")] if config.mix == "arithmetic" else []
    for name, stem in names:
        if folder and (path := reasoning_file(folder, name, stem)):
            yield name, path
    yield from ((each, Path(each)) for each in config.files)


def _rows(name: str, path: Path) -> list[Pair]:
    located = [(where, require_fields(row, _FIELDS, where)) for where, row in located_rows(path)]
    for where, row in located:
        if not row["instruction"].strip() or not row["output"].strip():
            raise UserError(f"{where}: its instruction or output is empty; leave the row out")
    return [Pair(name, row["instruction"], row["output"]) for _, row in located]


def _mawps(path: Path) -> list[Pair]:
    """Return MAWPS's problems; the answer is the equation, solved: `(22-14)/4 = 2. The answer is 2.`."""
    pairs = []
    for where, row in located_rows(path):
        fields = require_fields(row, _MAWPS_FIELDS, where)
        _, equals, right = fields["equation"].partition("=")
        if not equals:
            raise UserError(f"{where}: its equation {fields['equation']!r} has no '='; get the file again")
        answer = _tidy(str(fields["ans"]))
        pairs.append(Pair("mawps", fields["original_text"], f"{_tidy(right)} = {answer}. The answer is {answer}."))
    return pairs


def _worked(solution: str) -> str:
    """Return a solution of GSM8K without its calculator's annotations, with its answer in a sentence."""
    steps, _, answer = _CALCULATION.sub("", solution).rpartition("####")
    return f"{steps.strip()}\nThe answer is {answer.strip()}."


def _tidy(text: str) -> str:
    """Return an expression with 22 for 22.0."""
    return _WHOLE.sub(r"\1", text.strip())
