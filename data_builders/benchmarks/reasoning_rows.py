"""Read the reasoning sets of LLM-Adapters: in the layout of its repository, or as their authors' data on the hub.

The layout is `<set>/test.json`, a JSON list (or JSON Lines, `.gz` or not) of rows with `instruction` and `answer`. The
field `output` of the arithmetic sets is a generated rationale that is often wrong; it is not read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from data_builders.benchmarks.reasoning import ANSWER_FORMAT, ReasoningProblem, ReasoningSet
from data_builders.benchmarks.reasoning_hub import HUB_SETS, read_hub_set
from data_builders.errors import UserError
from data_builders.files import sha256_file
from data_builders.hub import is_hub
from data_builders.row_files import Fields, located_rows, require_fields

HUB = "hub"
"""The name of the data that are read from the hub, each set by the id that lm-evaluation-harness has."""
_FIELDS: Fields = {"instruction": str, "answer": str}
_ENDS = (".json", ".json.gz", ".jsonl", ".jsonl.gz")
_TEST = "test"
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


def reasoning_file(folder: Path, name: str, stem: str = _TEST) -> Path | None:
    """Return a file of a set in a folder of sets (JSON or JSON Lines, `.gz` or not), or None.

    Raises:
        UserError: there are several.
    """
    found = [path for end in _ENDS if (path := folder / name / f"{stem}{end}").is_file()]
    if len(found) > 1:
        raise UserError(f"{folder / name} holds {' and '.join(path.name for path in found)}; keep one of them")
    return found[0] if found else None


def find_set(folder: Path, which: ReasoningSet) -> Path | None:
    """Return where a set is: its file in the published layout, a copy of its hub dataset, or its hub id; or None.

    Raises:
        UserError: there are several files.
    """
    if folder == Path(HUB) and not folder.exists():
        return Path(HUB_SETS[which.name].id) if which.name in HUB_SETS else None
    if (path := reasoning_file(folder, which.name)) is not None:
        return path
    copy = folder / which.name
    return copy if which.name in HUB_SETS and copy.is_dir() and is_hub(copy) else None


def choose_sets(folder: Path, known: Sequence[ReasoningSet], names: Sequence[str]) -> list[ReasoningSet]:
    """Return the named sets in the order of `known`; without names, all of them.

    Raises:
        UserError: a name is unknown or twice there, or a set is not in the folder: a mean over fewer sets is another
            figure, so nothing is left out unless `names` does.
    """
    all_names = [each.name for each in known]
    if unknown := [name for name in names if name not in all_names]:
        raise UserError(f"sets: {unknown[0]!r} is not one of {', '.join(all_names)}")
    if len(set(names)) < len(names):
        raise UserError(f"sets: {', '.join(names)} names one twice")
    chosen = [each for each in known if not names or each.name in names]
    there = [each.name for each in known if find_set(folder, each)]
    if not there:
        raise UserError(
            f"{folder} holds none of {', '.join(f'{name}/{_TEST}.json' for name in all_names)}; "
            f"name the folder `dataset` of LLM-Adapters, one laid out like it, or {HUB}"
        )
    if missing := [each.name for each in chosen if each.name not in there]:
        raise UserError(
            f"{folder / missing[0]} holds no {_TEST}.json; get it, or name the sets to measure: "
            f"options.sets=[{','.join(there)}]"
        )
    return chosen


def read_reasoning(folder: Path, which: ReasoningSet) -> tuple[list[ReasoningProblem], dict[str, str]]:
    """Return the problems of a set in a folder of sets (or on the hub), and the sha256 of its file or rows.

    Raises:
        UserError: the file is missing, empty, or a row is none of this set.
    """
    path = find_set(folder, which)
    if path is None:
        raise UserError(f"{folder / which.name} holds no {_TEST}.json (or .jsonl, .gz or not)")
    if not path.is_file():
        return read_hub_set(path, which)
    problems = []
    for row, (where, found) in enumerate(located_rows(path)):
        fields = require_fields(found, _FIELDS, where)
        instruction, answer = fields["instruction"], fields["answer"].strip()
        if not instruction.strip():
            raise UserError(f"{where}: its instruction is empty; get the file again")
        choices = _choices(which, instruction, where)
        if which.kind == "number" and not _NUMBER.fullmatch(answer):
            raise UserError(f"{where}: its answer {answer!r} is no number; write it as in 12 or -2.5")
        if choices and answer not in choices:
            raise UserError(f"{where}: its answer {answer!r} is not one of {', '.join(choices)}")
        passage = found.get("passage") or ""
        if not isinstance(passage, str):
            raise UserError(f"{where}: its passage is no text; write it as text, or leave it out")
        problems.append(ReasoningProblem(f"{which.name}/{row}", instruction, answer, choices, passage))
    if not problems:
        raise UserError(f"{path}: holds no rows; get the file again")
    return problems, {f"{which.name}/{path.name}": sha256_file(path)}


def _choices(which: ReasoningSet, instruction: str, where: str) -> tuple[str, ...]:
    """Return the answers that an instruction allows: after `Answer format: `, the letters, or none for numbers."""
    if which.kind != "label":
        return which.labels
    _, marker, listed = instruction.rpartition(ANSWER_FORMAT)
    choices = tuple(listed.strip().split("/"))
    if not marker or not set(choices) <= set(which.labels):
        raise UserError(
            f"{where}: its instruction does not end in '{ANSWER_FORMAT}{'/'.join(which.labels)}', or fewer of these; "
            f"it is no row of {which.name}"
        )
    return choices
