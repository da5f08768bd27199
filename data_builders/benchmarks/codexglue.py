"""Read CodeXGLUE code-to-text: functions of six languages and the first paragraph of their documentation.

The layout is the official release after its preprocessing: a folder per language with train, valid and test as .jsonl
or .jsonl.gz; or google/code_x_glue_ct_code_to_text of the hub, by id or as a copy. A prompt must not contain its
reference: Python's `code` still has its docstring, which is found with Python's tokenizer and removed; then the code of
every language is searched for the reference.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from data_builders.errors import UserError
from data_builders.files import sha256_file
from data_builders.hub import hub_configs, is_hub, read_hub
from data_builders.row_files import Fields, Row, iter_rows

LANGUAGES = ("python", "php", "go", "java", "javascript", "ruby")
# The line that asks for the summary, a comment in the function's own language.
CUES = {language: "# Summary:" if language in ("python", "ruby") else "// Summary:" for language in LANGUAGES}
_FIELDS: Fields = {"code": str, "docstring": str, "docstring_tokens": list, "language": str}
_HUB_SPLITS = {"test": "test", "valid": "validation", "train": "train"}
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Function:
    """One function.

    Attributes:
        id: `<language>/<split>/<row>`, rows counted from 0 as in the file.
        code: as published, without its documentation.
        summary: the tokens of the documentation's first paragraph, joined by spaces: the official reference.
        problem: why the row cannot be used; empty if it can.
    """

    id: str
    code: str
    summary: str
    problem: str = ""


def question(language: str, code: str) -> str:
    """Return the prompt: the code, and the line that asks for its summary (which follows after a space)."""
    return f"{code.rstrip()}\n{CUES[language]}"


def find_languages(path: Path) -> dict[str, Path]:
    """Return the folder of each language, in the order of LANGUAGES: `path` itself, or folders directly in it.

    The language folders may also be in a folder `code_to_text` of `path`.

    Raises:
        UserError: no folder has a test split, a test split is of another language, or two are of the same.
    """
    if is_hub(path):
        there = hub_configs(path)
        return {language: path for language in LANGUAGES if language in there}
    if path.is_file() and path.name.startswith("test.jsonl"):
        path = path.parent
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; name CodeXGLUE's code-to-text data, a folder a language")
    if (path / "code_to_text").is_dir():
        path = path / "code_to_text"
    found: dict[str, Path] = {}
    for folder in [path, *sorted(each for each in path.iterdir() if each.is_dir())]:
        if (file := split_file(folder, "test")) is None:
            continue
        first = next(iter_rows(file, _FIELDS), None)
        language = first["language"].lower() if first else "nothing"
        if language not in LANGUAGES:
            raise UserError(f"{file} is of {language!r}, which is not one of {', '.join(LANGUAGES)}")
        if language in found:
            raise UserError(f"{path}: both {found[language].name} and {folder.name} hold {language}; keep one")
        found[language] = folder
    if not found:
        raise UserError(f"{path}: holds no test.jsonl or test.jsonl.gz; name CodeXGLUE's code-to-text data")
    return {language: found[language] for language in LANGUAGES if language in found}


def has_split(folder: Path, split: str) -> bool:
    """Tell whether a split exists; the hub has all splits."""
    return is_hub(folder) or split_file(folder, split) is not None


def split_file(folder: Path, split: str) -> Path | None:
    """Return the file of a split, plain or else gzipped, or None."""
    return next((file for end in ("jsonl", "jsonl.gz") if (file := folder / f"{split}.{end}").is_file()), None)


def read_functions(folder: Path, language: str, split: str, limit: int | None = None) -> Iterator[Function]:
    """Yield the functions of a split, unusable ones included; raises UserError if the data is not the release's."""
    for row, fields in enumerate(islice(_rows(folder, language, split), limit)):
        summary = " ".join(" ".join(map(str, fields["docstring_tokens"])).split())
        yield make_function(f"{language}/{split}/{row}", language, fields["code"], fields["docstring"], summary)


def _rows(folder: Path, language: str, split: str) -> Iterable[Row]:
    if is_hub(folder):
        return read_hub(folder, language, (_HUB_SPLITS[split],), _FIELDS)[0]
    file = split_file(folder, split)
    if file is None:
        raise UserError(f"{folder}: has no {split}.jsonl or {split}.jsonl.gz; get all of {language}'s data")
    return iter_rows(file, _FIELDS)


def split_sha256(folder: Path, language: str, split: str) -> dict[str, str]:
    """Return the sha256 of a split by `<language>/<file>`, or by its name on the hub."""
    if is_hub(folder):
        source = read_hub(folder, language, (_HUB_SPLITS[split],), _FIELDS)[1]
        return {source.file: source.sha256}
    file = split_file(folder, split)
    return {f"{language}/{file.name}": sha256_file(file)} if file else {}


def remove_docstring(code: str) -> str:
    """Return Python code without the docstring of its function and the lines that only the docstring occupied.

    It uses the tokenizer rather than the parser, which cannot read the data's many Python 2 functions.

    Raises:
        ValueError: the code cannot be tokenized.
    """
    lines = list(io.StringIO(code))  # as the tokenizer counts them
    try:
        span = _docstring_span(tokenize.generate_tokens(io.StringIO(code).readline))
    except (tokenize.TokenError, SyntaxError) as error:
        raise ValueError(f"its Python cannot be tokenized: {error.args[0]}") from None
    if span is None:
        return code
    (first, start), (last, end) = span
    before, after = lines[first - 1][:start], lines[last - 1][end:]
    joined = before.rstrip(" \t") + after if before.strip() else before + after.lstrip(" \t;")
    return "".join([*lines[: first - 1], joined if joined.strip() else "", *lines[last:]])


def leaks(code: str, text: str) -> bool:
    """Tell whether the code contains the words of `text` consecutively; anything but words is ignored."""
    wanted = _WORD.findall(text.lower())
    return bool(wanted) and f" {' '.join(wanted)} " in f" {' '.join(_WORD.findall(code.lower()))} "


def make_function(name: str, language: str, code: str, docstring: str, summary: str) -> Function:
    """Return a published function without its docstring, or with the problem that makes it unusable."""
    try:
        code = remove_docstring(code) if language == "python" else code
    except ValueError as error:
        return Function(name, code, summary, str(error))
    if not summary:
        return Function(name, code, summary, "it has no documentation")
    if leaks(code, summary) or leaks(code, docstring):
        return Function(name, code, summary, "its code still holds its documentation")
    return Function(name, code, summary)


def _docstring_span(tokens: Iterator[tokenize.TokenInfo]) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Return (line, column) of start and end of the string that a function's body begins with, or None."""
    depth = 0
    for token in tokens:  # up to the function, past its decorators
        if token.type == tokenize.NAME and token.string in ("def", "class"):
            break
    for token in tokens:  # up to the colon that ends its head
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(token.string, 0)
        if token.string == ":" and depth == 0:
            break
    skipped = (tokenize.NEWLINE, tokenize.NL, tokenize.COMMENT, tokenize.INDENT)
    strings = []
    for token in tokens:
        if token.type == tokenize.STRING:
            strings.append(token)
        elif strings or token.type not in skipped:
            ends = token.type in (tokenize.NEWLINE, tokenize.COMMENT, tokenize.ENDMARKER) or token.string == ";"
            return (strings[0].start, strings[-1].end) if strings and ends else None
    return (strings[0].start, strings[-1].end) if strings else None
