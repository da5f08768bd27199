"""Overlap of a corpus with HumanEval, MBPP and CodeXGLUE: shared n-grams of texts, and matching functions.

A text overlaps with a test item (a prompt, a solution, a description, a function) if it contains at least a given share
of the item's token n-grams; Python is searched with and without its comments. A Python function overlaps if it has the
name and arguments of a function of HumanEval or MBPP, its arguments and body under another name, or the body or
docstring of a function of any test set. Names and arguments are not compared with CodeXGLUE, whose functions are
everyday methods.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_builders.benchmarks.codexglue import find_languages, read_functions, split_sha256
from data_builders.benchmarks.humaneval import read_humaneval
from data_builders.benchmarks.mbpp import read_mbpp
from data_builders.code.fingerprints import ids_digest, ngrams, token_ids, without_comments
from data_builders.code.functions import PythonFunction, find_functions, parse, summary_tokens
from data_builders.hashing import Hashes, hash64
from data_builders.postings import Postings, open_arrays, save_arrays

_MIN_FUNCTION_TOKENS = 10
_MIN_BODY_TOKENS = 12
_MIN_DOCSTRING_TOKENS = 8
_PARTS = ("hashes", "owners", "sizes", "sets", "functions", "function_sets", "settings")


class CodeOverlapIndex:
    """A searchable index of test items: their n-grams, and digests of their functions."""

    def __init__(self, parts: dict[str, NDArray[Any]]) -> None:
        self._parts = parts
        self._postings = Postings(parts["hashes"], parts["owners"], parts["sizes"])
        self._sets = parts["sets"]
        self._functions = parts["functions"]
        self._function_sets = parts["function_sets"]
        self._ngram, self._containment = int(parts["settings"][0]), float(parts["settings"][1])

    @property
    def digest(self) -> str:
        """Return a digest of the whole index."""
        return sha256(b"".join(self._parts[name].tobytes() for name in _PARTS)).hexdigest()[:16]

    def save(self, folder: Path) -> None:
        """Write the index into a folder."""
        save_arrays(self._parts, folder)

    @classmethod
    def open(cls, folder: Path) -> CodeOverlapIndex:
        """Memory-map the index that `save` wrote."""
        return cls(open_arrays(folder, _PARTS))

    def find(self, ids: Hashes) -> str | None:
        """Return the test set of the item that a text (its token ids) overlaps with most, or None."""
        grams = ngrams(ids, self._ngram)
        _, items, shared = self._postings.shared(grams, np.zeros(len(grams), np.int64))
        if not len(items):
            return None
        shares = shared / self._postings.sizes[items]
        best = int(shares.argmax())
        return str(self._sets[items[best]]) if shares[best] >= self._containment else None

    def find_function(self, function: PythonFunction) -> str | None:
        """Return the test set with a function of the same name and arguments, body or docstring, or None."""
        marks = np.array([*_named(function), *_unnamed(function)], np.uint64)
        places = np.searchsorted(self._functions, marks)
        for place, mark in zip(places, marks, strict=True):
            if place < len(self._functions) and self._functions[place] == mark:
                return str(self._function_sets[place])
        return None

    def find_text(self, text: str, is_python: bool) -> str | None:
        """Return the test set that a text overlaps with by n-grams, or None; Python also without its comments."""
        if (found := self.find(token_ids(text))) is not None or not is_python or "#" not in text:
            return found
        return self.find(token_ids(without_comments(text)))

    def find_in(self, text: str, is_python: bool) -> str | None:
        """Return the test set that a text overlaps with by n-grams or, if it is Python, by functions; or None."""
        if (found := self.find_text(text, is_python)) is not None or not is_python:
            return found
        return next(filter(None, map(self.find_function, _functions(text))), None)


def build_index(test_sets: Mapping[str, Path], ngram: int, containment: float) -> CodeOverlapIndex:
    """Read the test sets and index their items; raises UserError if one cannot be read.

    Args:
        test_sets: path or hub id by name.
        ngram: tokens in an n-gram.
        containment: share of an item's n-grams from which a text overlaps with it.
    """
    grams: list[Hashes] = []
    names: list[str] = []
    functions: dict[int, str] = {}
    for name, path in test_sets.items():
        for text, is_python in _items(name, path):
            for view in dict.fromkeys((text, without_comments(text) if is_python else text)):
                found = ngrams(token_ids(view), ngram)
                if len(found):
                    grams.append(found)
                    names.append(name)
            if is_python:
                functions |= {mark: name for mark in _function_marks(text, with_names=name != "codexglue")}
    owners = np.repeat(np.arange(len(grams)), [len(each) for each in grams])
    postings = Postings.of(np.concatenate([np.empty(0, np.uint64), *grams]), owners, len(grams))
    marks = np.array(sorted(functions), np.uint64)
    return CodeOverlapIndex(
        {
            "hashes": postings.hashes,
            "owners": postings.owners,
            "sizes": postings.sizes,
            "sets": np.array(names, dtype=np.str_),
            "functions": marks,
            "function_sets": np.array([functions[int(mark)] for mark in marks], dtype=np.str_),
            "settings": np.array([ngram, containment]),
        }
    )


def test_set_sha256(name: str, path: Path) -> dict[str, str]:
    """Return the sha256 of each file of a test set."""
    if name == "codexglue":
        languages = find_languages(path).items()
        return {file: sha for each, folder in languages for file, sha in split_sha256(folder, each, "test").items()}
    source = read_humaneval(path)[0].source if name == "humaneval" else read_mbpp(path)[0].source
    return {source.file: source.sha256}


def _items(name: str, path: Path) -> Iterator[tuple[str, bool]]:
    """Yield (text, whether it is Python to parse) for every item of a test set."""
    if name == "humaneval":
        for problem in read_humaneval(path):
            yield problem.prompt, False
            yield problem.canonical_solution, False
            yield problem.prompt + problem.canonical_solution, True
            for function in _functions(problem.prompt + problem.canonical_solution):
                yield function.body, False
                yield " ".join(summary_tokens(function.docstring)), False
    elif name == "mbpp":
        for task in read_mbpp(path):
            yield task.code.replace("\r\n", "\n"), True
            yield "\n".join(task.tests), False
            yield task.text, False
    else:
        for language, folder in find_languages(path).items():
            for published in read_functions(folder, language, "test"):
                yield published.code.replace("\r\n", "\n"), language == "python"
                yield published.summary, False


def _functions(text: str) -> list[PythonFunction]:
    try:
        return list(find_functions(parse(text), text))
    except SyntaxError:  # Python 2, frequent in CodeXGLUE, is compared by n-grams only
        return []


def _function_marks(text: str, with_names: bool) -> list[int]:
    found = _functions(text)
    return [mark for each in found for mark in (*(_named(each) if with_names else ()), *_unnamed(each))]


def _named(function: PythonFunction) -> Iterator[int]:
    """Yield digests of a function's name and arguments, and of its arguments and body."""
    yield hash64(f"{function.name}({','.join(function.arguments)})".encode())
    whole = token_ids(" ".join([*function.arguments, "\n", without_comments(function.body)]))
    if len(whole) >= _MIN_FUNCTION_TOKENS:
        yield ids_digest(whole)


def _unnamed(function: PythonFunction) -> Iterator[int]:
    if (body := body_digest(function)) is not None:
        yield body
    if len(words := summary_tokens(function.docstring)) >= _MIN_DOCSTRING_TOKENS:
        yield ids_digest(token_ids(" ".join(words)))


def body_digest(function: PythonFunction) -> int | None:
    """Return a digest of a function's body without comments, or None if the body is too short to be distinctive."""
    body = token_ids(without_comments(function.body))
    return ids_digest(body) if len(body) >= _MIN_BODY_TOKENS else None
