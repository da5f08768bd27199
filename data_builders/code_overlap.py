"""Overlap of a corpus with HumanEval, MBPP and CodeXGLUE: n-grams of their texts, and functions that are theirs.

A text overlaps with a test item (a prompt, a solution, a description, a function) when at least a share of the item's
n-grams of tokens is in it. A Python function overlaps when it has the name and the arguments of a function of
HumanEval or MBPP, the body of any of them, or its documentation. Names are not compared with CodeXGLUE's, which are
those of everyday methods.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_builders.code_fingerprints import digest, ids_digest, ngrams, token_ids
from data_builders.code_functions import PythonFunction, find_functions, parse
from data_builders.code_pairs import summary_tokens
from data_builders.code_to_text import find_languages, read_functions, split_sha256
from data_builders.humaneval import read_humaneval
from data_builders.mbpp import read_mbpp

_MIN_BODY_TOKENS = 12
_MIN_DOCSTRING_TOKENS = 8


@dataclass(frozen=True)
class OverlapIndex:
    """What is looked for.

    Attributes:
        grams: (num_grams,) distinct n-grams of all items, sorted.
        starts: (num_grams + 1,) where each one's items begin in `owners`.
        owners: items by n-gram.
        sizes: (num_items,) distinct n-grams of each.
        sets: (num_items,) name of the test set of each.
        functions: (num_functions,) digests of names with arguments, of bodies and of documentations, sorted.
        function_sets: (num_functions,) name of the test set of each.
        ngram: tokens in an n-gram.
        containment: share of an item's n-grams from which a text overlaps with it.
    """

    grams: NDArray[np.uint64]
    starts: NDArray[np.int64]
    owners: NDArray[np.int32]
    sizes: NDArray[np.int32]
    sets: NDArray[np.str_]
    functions: NDArray[np.uint64]
    function_sets: NDArray[np.str_]
    ngram: NDArray[np.int64]
    containment: NDArray[np.float64]

    @property
    def digest(self) -> str:
        """Return a digest of all of it."""
        return sha256(b"".join(getattr(self, field.name).tobytes() for field in fields(self))).hexdigest()[:16]

    def save(self, path: Path) -> None:
        """Write all arrays into one file."""
        np.savez(path, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> OverlapIndex:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**{field.name: arrays[field.name] for field in fields(cls)})

    def find(self, ids: NDArray[np.uint64]) -> str | None:
        """Return the test set of an item that a text (its token ids) overlaps with most, None where there is none."""
        if not len(self.grams):
            return None
        grams = ngrams(ids, int(self.ngram))
        places = np.minimum(np.searchsorted(self.grams, grams), len(self.grams) - 1)
        found = places[self.grams[places] == grams]
        if not len(found):
            return None
        lengths = self.starts[found + 1] - self.starts[found]
        offsets = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        items, counts = np.unique(self.owners[np.repeat(self.starts[found], lengths) + offsets], return_counts=True)
        shares = counts / self.sizes[items]
        best = int(shares.argmax())
        return str(self.sets[items[best]]) if shares[best] >= float(self.containment) else None

    def find_function(self, function: PythonFunction) -> str | None:
        """Return the test set that has this function's name and arguments, body or documentation."""
        marks = np.array([*_named(function), *_unnamed(function)], np.uint64)
        places = np.searchsorted(self.functions, marks)
        for place, mark in zip(places, marks, strict=True):
            if place < len(self.functions) and self.functions[place] == mark:
                return str(self.function_sets[place])
        return None

    def find_in(self, text: str, is_python: bool) -> str | None:
        """Return the test set that a text overlaps with, by its n-grams and, if it is Python, its functions."""
        if (found := self.find(token_ids(text))) is not None or not is_python:
            return found
        try:
            functions = find_functions(parse(text), text)
        except SyntaxError:
            return None
        return next(filter(None, map(self.find_function, functions)), None)


def build_index(test_sets: Mapping[str, Path], ngram: int, containment: float) -> OverlapIndex:
    """Read the test sets and index what they consist of; raises DataError where one cannot be read."""
    grams: list[NDArray[np.uint64]] = []
    names: list[str] = []
    functions: dict[int, str] = {}
    for name, path in test_sets.items():
        for text, is_python in _items(name, path):
            found = ngrams(token_ids(text), ngram)
            if len(found):
                grams.append(found)
                names.append(name)
            if is_python:
                functions |= {mark: name for mark in _function_marks(text, with_names=name != "codexglue")}
    sizes = np.fromiter(map(len, grams), np.int32, len(grams))
    every = np.concatenate(grams) if grams else np.empty(0, np.uint64)
    order = np.argsort(every, kind="stable")
    distinct, starts = np.unique(every[order], return_index=True)
    marks = np.array(sorted(functions), np.uint64)
    return OverlapIndex(
        distinct,
        np.append(starts, len(every)).astype(np.int64),
        np.repeat(np.arange(len(grams), dtype=np.int32), sizes)[order],
        sizes,
        np.array(names, dtype=np.str_),
        marks,
        np.array([functions[int(mark)] for mark in marks], dtype=np.str_),
        np.array(ngram),
        np.array(containment),
    )


def test_set_sha256(name: str, path: Path) -> dict[str, str]:
    """Return the sha256 of each file of a test set."""
    if name == "codexglue":
        languages = find_languages(path).items()
        return {file: sha for each, folder in languages for file, sha in split_sha256(folder, each, "test").items()}
    source = read_humaneval(path)[0].source if name == "humaneval" else read_mbpp(path)[0].source
    return {source.file: source.sha256}


def _items(name: str, path: Path) -> Iterator[tuple[str, bool]]:
    """Yield the texts of a test set, and whether each is Python to be parsed."""
    if name == "humaneval":
        for problem in read_humaneval(path):
            yield problem.prompt, False
            yield problem.canonical_solution, False
            yield problem.prompt + problem.canonical_solution, True
    elif name == "mbpp":
        for task in read_mbpp(path):
            yield task.code.replace("\r\n", "\n"), True
            yield "\n".join(task.tests), False
            yield task.text, False
    else:
        for language, folder in find_languages(path).items():
            for function in read_functions(folder, language, "test"):
                yield function.code.replace("\r\n", "\n"), language == "python"
                yield function.summary, False


def _function_marks(text: str, with_names: bool) -> Iterable[int]:
    try:
        found = list(find_functions(parse(text), text))
    except SyntaxError:  # CodeXGLUE has much Python 2 in it, which is found by n-grams
        return []
    return [mark for each in found for mark in (*(_named(each) if with_names else ()), *_unnamed(each))]


def _named(function: PythonFunction) -> Iterator[int]:
    yield digest(f"{function.name}({','.join(function.arguments)})".encode())


def _unnamed(function: PythonFunction) -> Iterator[int]:
    if len(body := token_ids(function.body)) >= _MIN_BODY_TOKENS:
        yield ids_digest(body)
    if len(words := summary_tokens(function.docstring)) >= _MIN_DOCSTRING_TOKENS:
        yield ids_digest(token_ids(" ".join(words)))
