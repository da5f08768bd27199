"""Read grade-school mathematics: GSM8K (train.jsonl, test.jsonl) and MGSM (mgsm_<language>.tsv, exemplars.py).

Both can also be hub datasets, by id or as a copy: openai/gsm8k, juletxara/mgsm.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_builders.errors import UserError
from data_builders.files import read_lines, read_text, sha256_file
from data_builders.hub import hub_configs, is_hub, read_hub
from data_builders.row_files import Fields, find_file, located_rows, require_fields

EXEMPLARS_FILE = "exemplars.py"
MGSM_ROWS = 250
_EXEMPLARS = "MGSM_EXEMPLARS"
_GSM8K_FIELDS: Fields = {"question": str, "answer": str}
_HUB_TEST_FIELDS: Fields = {"question": str, "answer_number": int}
_NUMBER = re.compile(r"-?[0-9][0-9,]*(\.[0-9]+)?")
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')
_MGSM_FILE = re.compile(r"mgsm_(\w+)\.tsv(?:\.gz)?")


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        id: `<split>/<row>` of GSM8K, `<language>/<row>` of MGSM.
        answer: the final number, as written.
        solution: the reasoning that ends in the answer; empty for MGSM's test problems.
    """

    id: str
    question: str
    answer: str
    solution: str = ""


@dataclass(frozen=True)
class Exemplar:
    """A worked example of MGSM as published: labels included, reasoning in the example's language."""

    id: str
    question: str
    answer: str


def read_gsm8k(folder: Path, split: str) -> tuple[list[Problem], dict[str, str]]:
    """Return the problems of train or test, and the sha256 of their file; raises UserError if it is not GSM8K's."""
    if is_hub(folder):
        rows, source = read_hub(folder, "main", (split,), _GSM8K_FIELDS)
        located = [(f"{folder}, row {row}", fields) for row, fields in enumerate(rows)]
        files = {source.file: source.sha256}
    else:
        path = _gsm8k_file(folder, split)
        located = [(where, require_fields(row, _GSM8K_FIELDS, where)) for where, row in located_rows(path)]
        files = {path.name: sha256_file(path)}
    problems = []
    for row, (where, fields) in enumerate(located):
        _, marker, answer = fields["answer"].rpartition("####")
        if not marker:
            raise UserError(f"{where}: has no '#### <number>' at its end; get the official file")
        problems.append(Problem(f"{split}/{row}", fields["question"], _number(answer, where), fields["answer"]))
    if not problems:
        raise UserError(f"{folder}: {split} holds no rows; get the official file")
    return problems, files


def _gsm8k_file(data: Path, split: str) -> Path:
    """Return the file of a split in the folder `data`; a file `data` is the test file, and train is beside it."""
    if not data.is_dir() and split == "test":
        return find_file(data, ())
    folder = data if data.is_dir() else data.parent
    found = [path for end in ("jsonl", "jsonl.gz") if (path := folder / f"{split}.{end}").is_file()]
    if not found:
        raise UserError(
            f"{folder / f'{split}.jsonl'}: no such file; name a folder with GSM8K's train.jsonl and test.jsonl"
        )
    return found[0]


def _number(answer: str, where: str) -> str:
    """Return the stripped answer; raises UserError if it is not a number, as predictions are compared by number."""
    if not _NUMBER.fullmatch(answer.strip()):
        raise UserError(f"{where}: its answer {answer.strip()!r} is no number; write digits only, as in 1,250 or -2.5")
    return answer.strip()


def mgsm_languages(folder: Path) -> list[str]:
    """Return the languages that the data has problems in; raises UserError if there are none."""
    if is_hub(folder):
        return sorted(hub_configs(folder))
    languages = sorted(_mgsm_files(folder))
    if not languages:
        raise UserError(f"{folder}: holds no mgsm_<language>.tsv; name a folder with MGSM's files, or one of them")
    return languages


def read_mgsm(folder: Path, language: str) -> tuple[list[Problem], dict[str, str]]:
    """Return the 250 problems of a language, and the sha256 of their file; raises UserError if it is not MGSM's."""
    if is_hub(folder):
        rows, source = read_hub(folder, language, ("test",), _HUB_TEST_FIELDS)
        problems = [
            Problem(f"{language}/{row}", fields["question"], str(fields["answer_number"]))
            for row, fields in enumerate(rows)
        ]
        _require_all(f"{folder} ({language})", problems)
        return problems, {source.file: source.sha256}
    path = _mgsm_files(folder).get(language)
    if path is None:
        there = ", ".join(mgsm_languages(folder))
        raise UserError(f"languages: {language!r} is none of those in {folder} ({there})")
    problems = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        question, *answers = map(_unquoted, line.split("\t"))
        if len(answers) != 1 or not question.strip() or not answers[0].strip():
            raise UserError(f"{path}:{number}: is not <question><tab><answer>; get the official file")
        answer = _number(answers[0], f"{path}:{number}")
        problems.append(Problem(f"{language}/{len(problems)}", question, answer))
    _require_all(str(path), problems)
    return problems, {path.name: sha256_file(path)}


def _mgsm_files(data: Path) -> dict[str, Path]:
    """Return the files in the folder `data` by language; `data` can also be one such file."""
    paths = [path for path in data.glob("mgsm_*.tsv*") if path.is_file()] if data.is_dir() else [find_file(data, ())]
    return {found[1]: path for path in sorted(paths) if (found := _MGSM_FILE.fullmatch(path.name))}


def _unquoted(field: str) -> str:
    """Return a field without the quotes that spreadsheet programs put around it."""
    found = _QUOTED.fullmatch(field)
    return found[1].replace('""', '"') if found else field


def _require_all(where: str, problems: Sequence[Problem]) -> None:
    if len(problems) != MGSM_ROWS:
        raise UserError(f"{where} has {len(problems)} rows, and MGSM has {MGSM_ROWS}; get the official data")


def read_mgsm_exemplars(folder: Path, languages: Sequence[str]) -> tuple[dict[str, list[Exemplar]], dict[str, str]]:
    """Return the worked examples by language, and the sha256 of their sources.

    In a folder, the source is the authors' `exemplars.py`, which is parsed, never run; on the hub, the split `train`.

    Raises:
        UserError: examples are missing, or not in the published form.
    """
    if is_hub(folder):
        return _hub_exemplars(folder, languages)
    path = (folder if folder.is_dir() else folder.parent) / EXEMPLARS_FILE
    if not path.is_file():
        raise UserError(
            f"{path} is missing, which has MGSM's worked examples; put mgsm/{EXEMPLARS_FILE} of google-research/url-nlp"
            " there, or set shots=0"
        )
    table = _literal(path)
    exemplars: dict[str, list[Exemplar]] = {}
    for language in languages:
        rows = table.get(language)
        if not isinstance(rows, dict) or not rows:
            raise UserError(f"{path}: {_EXEMPLARS} has no examples in {language!r}; get the official file")
        for key, row in rows.items():
            if not isinstance(row, dict) or not all(isinstance(row.get(part), str) for part in ("q", "a")):
                raise UserError(f"{path}: {_EXEMPLARS}[{language!r}][{key!r}] has no texts 'q' and 'a'; get it again")
            exemplars.setdefault(language, []).append(Exemplar(f"{language}/exemplar/{key}", row["q"], row["a"]))
    return exemplars, {path.name: sha256_file(path)}


def _hub_exemplars(data: Path, languages: Sequence[str]) -> tuple[dict[str, list[Exemplar]], dict[str, str]]:
    exemplars, files = {}, {}
    for language in languages:
        rows, source = read_hub(data, language, ("train",), _GSM8K_FIELDS)
        exemplars[language] = [
            Exemplar(f"{language}/exemplar/{number}", row["question"], row["answer"])
            for number, row in enumerate(rows, start=1)
        ]
        files[source.file] = source.sha256
    return exemplars, files


def _literal(path: Path) -> dict[str, Any]:
    """Return the dictionary that a Python file assigns to MGSM_EXEMPLARS; it must be a literal."""
    try:
        for node in ast.parse(read_text(path)).body:
            if isinstance(node, ast.Assign) and any(getattr(name, "id", None) == _EXEMPLARS for name in node.targets):
                value = ast.literal_eval(node.value)
                if isinstance(value, dict):
                    return value
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise UserError(f"{path}: cannot be read as Python data ({error}); get the official file") from None
    raise UserError(f"{path}: assigns no dictionary to {_EXEMPLARS}; get the official file")
