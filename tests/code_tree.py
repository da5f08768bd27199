"""A small tree of source files, each with its own functions, and small test sets to keep out of it."""

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from data_builders.code.config import CodeDataConfig

TRAINING = ("aug_train", "anchor_train", "pairs_train", "dc", "dc_pairs")
VALIDATION = ("code_validation", "pairs_validation", "prose_validation", "dc_validation")
VERBS = "merge split invert rotate filter widen sort trim".split()
NOUNS = "edges tokens rows words frames pages cells paths files layers".split()
SOLUTION = """\
    total = 0
    for index, letter in enumerate(reversed(letters)):
        total += (ord(letter) - ord('a') + 1) * weight ** index
    return total % modulus if modulus else total
"""
PROMPT = '''\
def weighted_letter_sum(letters, weight, modulus):
    """ Sum the places of the letters in the alphabet, each times the weight to the power of its place
    from the right, and take the remainder by the modulus.
    """
'''
MBPP_CODE = """\
def longest_even_run(numbers, limit):
    best = current = 0
    for number in numbers[:limit]:
        current = current + 1 if number % 2 == 0 else 0
        best = max(best, current)
    return best"""


def module(name: str) -> str:
    """Return a module about one noun: functions, docstrings, comments, a class."""
    parts = [f'"""What can be done with the {name} of a document, one function for each of the things."""\n\n']
    for number, verb in enumerate(VERBS):
        parts.append(
            f"def {verb}_{name}({name}, {verb}_limit={number}):\n"
            f'    """Return the {name} of the document after we {verb} the first {number} of them.\n\n'
            f"    Nothing else about the {name} is changed by this.\n"
            f'    """\n'
            f"    # The {name} that are left over after this {verb} are for the caller to look at.\n"
            f"    {verb}_found = [each for each in {name} if each.{verb} > {number * 7 + len(name)}]\n"
            f"    return {verb}_found[{number}:] + {name}[{verb}_limit:]\n\n\n"
        )
    return "".join(parts)


def write_tree(folder: Path, count: int = 24) -> Path:
    """Write `count` modules, a document and an MIT licence; returns the folder."""
    folder.mkdir(parents=True)
    for number in range(count):
        noun = NOUNS[number % len(NOUNS)] + "abcdefghij"[number // len(NOUNS)] * 2
        (folder / f"{noun}.py").write_text(module(noun))
    (folder / "LICENSE").write_text("MIT License\n\nPermission is hereby granted, free of charge, to any person ...\n")
    (folder / "README.md").write_text(
        "# Tree\n\nThis is a small tree of files that the tests of the builder write and read again.\n\n"
        "    >>> merge_edges([])\n\nIt has nothing in it that anyone would want to run for its own sake.\n"
    )
    return folder


def write_test_sets(folder: Path) -> Path:
    """Write a problem of each test set; returns the folder."""
    problem = {
        "task_id": "HumanEval/0",
        "prompt": PROMPT,
        "entry_point": "weighted_letter_sum",
        "canonical_solution": SOLUTION,
        "test": "def check(candidate):\n    assert candidate('a', 1, 0) == 1\n",
    }
    task = {
        "task_id": 11,
        "text": "Write a function to find the length of the longest run of even numbers before a limit.",
        "code": MBPP_CODE,
        "test_list": [f"assert longest_even_run([2, 4, {n}], 3) == 2" for n in (1, 3, 5)],
        "test_setup_code": "",
    }
    words = "Draws the outline of every polygon that the canvas was given since the last flush .".split()
    function = {
        "code": "def outline(canvas)\n  canvas.polygons.each { |polygon| stroke(polygon.points, canvas.pen, 2) }\nend",
        "docstring": " ".join(words),
        "docstring_tokens": words,
        "language": "ruby",
    }
    for path, row in (
        ("humaneval/HumanEval.jsonl", problem),
        ("mbpp/mbpp.jsonl", task),
        ("codexglue/ruby/test.jsonl", function),
    ):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_text(json.dumps(row) + "\n")
    return folder


def settings(source: Path, tests: Path, **changes: object) -> CodeDataConfig:
    """Return settings for the small tree."""
    facts = {"validation_share": 0.2, "dc_share": 0.2, "vocab_size": None, **changes}
    return CodeDataConfig(sources=(str(source),), tests=str(tests), **facts)  # type: ignore[arg-type]


def rows(folder: Path, name: str) -> list[dict]:
    """Return the rows of a file of a build."""
    return pq.read_table(folder / f"{name}.parquet").to_pylist()


def files(folder: Path, *names: str) -> set[str]:
    """Return the source files that rows of these files come from."""
    return {row["meta"]["file"] for name in names for row in rows(folder, name)}


def left_out(manifest: dict) -> Counter[str]:
    """Return how many source files were left out, by reason."""
    return sum((Counter(each["left_out"]) for each in manifest["counts"]["files"].values()), Counter())
