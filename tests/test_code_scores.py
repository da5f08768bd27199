"""Scoring completions of code tasks: which are run, as what, and what becomes of their verdicts."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from calmctl.errors import UserError
from calmctl.evaluation.scoring import ScoreConfig, run_scoring
from data_builders.benchmarks.mbpp import read_mbpp
from evals import TASKS
from evals.humaneval import HumanEvalTask
from evals.mbpp import MbppTask
from evals.sandbox import Journal, Limits, Program, Verdict, detect, references, run_alone
from evals.sandbox import journal as verdicts
from tests.code_rows import HUMANEVAL_ROW, mbpp_row, real, score, write


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where results of references are kept meanwhile."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    references._folder.cache_clear()
    yield tmp_path / "cache"
    references._folder.cache_clear()


def plus(tmp_path: Path, reference: str, inputs: list[Any]) -> Path:
    row = {
        **HUMANEVAL_ROW,
        "base_input": inputs,
        "plus_input": [],
        "atol": 0,
        "canonical_solution": reference,
    }
    return write(tmp_path / "HumanEvalPlus.jsonl", [row])


PLUS = HumanEvalTask(subset="plus", allow_code_execution=True)
FLOATS = "    return [2.0 * x] if x else 0\n"


@pytest.mark.parametrize(
    ("reference", "inputs", "answer", "passes"),
    [
        ("    return 2 * x\n", [[2], [-3]], "    return x + x\n", True),
        ("    return 2 * x\n", [[2], [-3]], "    return x + abs(x)\n", False),
        ("    return 2 * x\n", [[2]], "    return [2 * x]\n", False),
        ("    return tuple(set(x))\n", [[["a", "b", "c", "d", "e"]]], "    return tuple(set(x))\n", True),
        ("    return {x: float('inf'), 1j: b'x', frozenset([x]): None}\n", [[2]],
         "    return {frozenset([x]): None, x: 1e999, 1j: b'x'}\n", True),
        ("    x.clear()\n    return 1\n", [[[1, 2]]], "    return len(x) - 1\n", True),  # a copy was cleared
        (FLOATS, [[1], [2]], "    return [2.0 * x + 1e-9]\n", True),
        (FLOATS, [[1], [0]], "    return [2.0 * x] if x else 1e-9\n", False),  # another type
        (FLOATS, [[1]], "    return [2.0 * x + 1e-3]\n", False),
        ("    print('noise')\n    return 2 * x\n", [[2]], "    return 2 * x\n", True),
    ],
)  # fmt: skip
def test_plus_compares_with_what_the_reference_returned(
    reference: str, inputs: list[Any], answer: str, passes: bool, tmp_path: Path
) -> None:
    scores = score(PLUS, plus(tmp_path, reference, inputs), answer)
    assert scores.metrics == {"pass@1": 100.0 * passes}, scores.samples


def test_references_run_once_and_not_on_the_clock_of_a_program(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = plus(tmp_path, "    import time\n    time.sleep(1.5)\n    return 2 * x\n", [[2]])
    assert score(replace(PLUS, timeout=1.0), data, "    return 2 * x\n").metrics == {"pass@1": 100.0}
    (kept,) = cache.glob("calmctl/expected/*")
    monkeypatch.setattr(references, "ask", None)
    assert score(PLUS, data, "    return 4\n").metrics == {"pass@1": 100.0}
    assert [*cache.glob("calmctl/expected/*")] == [kept]
    with pytest.raises(TypeError):
        score(PLUS, plus(tmp_path, "    return 4\n", [[2]]), "    return 4\n")  # another reference is computed


@pytest.mark.slow
def test_an_input_has_a_time_limit_of_its_own(tmp_path: Path) -> None:
    data = plus(tmp_path, "    return 2 * x\n", [[1], [2]])
    (row,) = score(PLUS, data, "    while x == 2: pass\n    return 2 * x\n").samples
    assert (row["status"], row["detail"]) == ("timeout", "more than 4 s") and row["seconds"] < 30


@pytest.mark.parametrize("reference", ["    return 1 / 0\n", "    import os\n    os._exit(0)\n"])
def test_a_reference_that_fails_is_an_error_of_the_data(reference: str, tmp_path: Path, cache: Path) -> None:
    with pytest.raises(UserError, match="HumanEval/0: the reference solution fails"):
        score(PLUS, plus(tmp_path, reference, [[1]]), "    return 1\n")
    assert not [*cache.glob("calmctl/expected/*")]


def test_a_program_cannot_read_what_is_expected(tmp_path: Path) -> None:
    """Neither from a descriptor, however high its number is, nor from the memory that its process starts with."""
    data = plus(tmp_path, "    return 'sesame-' + str(x)\n", [[1]])
    answer = (
        "    import os\n    for each in range(3, 400):\n        try:\n            os.lseek(each, 0, 0)\n"
        "            return 'sesame-1' if os.read(each, 9) else ''\n        except OSError: pass\n"
    )
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(100)]
    try:
        assert score(PLUS, data, answer).metrics == {"pass@1": 0.0}
    finally:
        for each in held:
            os.close(each)


@pytest.mark.parametrize("subset", ["full", "sanitized"])
def test_mbpp_tests_use_modules_that_the_program_has_and_imports_that_they_come_with(
    subset: Any, tmp_path: Path
) -> None:
    row = mbpp_row(11, code="def half(x): return x / 2", test_list=["assert math.isclose(half(3), 1.5)"] * 3)
    row |= {"prompt": "Halve.", "test_imports": ["import math"]}
    data = write(tmp_path / ("mbpp.jsonl" if subset == "full" else "sanitized-mbpp.json.jsonl"), [row])
    task = MbppTask(subset=subset, shots=0, allow_code_execution=True)
    assert score(task, data, f"import math\n{row['code']}").metrics == {"pass@1": 100.0}
    expected = 100.0 if subset == "sanitized" else 0.0
    assert score(task, data, row["code"]).metrics == {"pass@1": expected}


@pytest.mark.parametrize("name", ["humaneval", "mbpp"])
def test_completions_run_as_given_where_that_is_asked_for(name: str, tmp_path: Path) -> None:
    """A whole program is cut to nothing by the stop strings of HumanEval, which is counted."""
    row = HUMANEVAL_ROW if name == "humaneval" else mbpp_row(11)
    end = "" if name == "humaneval" else "\nimport sys\n"
    whole = f"\ndef helper(x):\n  return x\n\ndef twice(x):\n  return 2 * x\n\ndef add(x):\n  return x + 11\n{end}"
    data = write(tmp_path / "data.jsonl", [row])
    options: dict[str, Any] = {"allow_code_execution": True} | ({"shots": 0} if name == "mbpp" else {})
    cut = score(TASKS[name](**options), data, whole)  # type: ignore[call-arg]
    given = score(TASKS[name](**options, as_given=True), data, whole)  # type: ignore[call-arg]
    assert given.metrics == {"pass@1": 100.0} and given.breakdown["cut_to_nothing"] == 0
    is_cut = name == "humaneval"
    assert (cut.metrics["pass@1"], cut.breakdown["cut_to_nothing"]) == ((0.0, 1) if is_cut else (100.0, 0))
    assert given.protocol["stop"] == [] and given.protocol["post_processing"] == "none"


def test_ids_are_named_and_any_of_them_can_be_scored(tmp_path: Path) -> None:
    data = write(tmp_path / "HumanEval.jsonl.gz", [HUMANEVAL_ROW | {"task_id": f"HumanEval/{n}"} for n in range(5)])
    right, wrong = "    return 2 * x\n", "    return x\n"
    rows = [{"id": "HumanEval/3", "completion": right}, {"id": "HumanEval/1", "completion": wrong}]
    predictions = write(tmp_path / "p.jsonl", rows)
    options = {"allow_code_execution": True}
    config = ScoreConfig(task="humaneval", options=options, dataset=str(data), predictions=str(predictions))
    with pytest.raises(UserError, match=r"'HumanEval/0' 'HumanEval/1' ... 'HumanEval/4'.*ids=given"):
        run_scoring(config, tmp_path / "all")
    result = json.loads(
        (run_scoring(replace(config, ids="given"), tmp_path / "some").path / "metrics.json").read_text()
    )
    assert (result["metrics"], result["n"]) == ({"pass@1": 50.0}, 2)
    write(predictions, [*rows, {"id": "5", "completion": ""}])
    with pytest.raises(UserError, match=r"'5' is no request.*its ids are 'HumanEval/"):
        run_scoring(replace(config, ids="given"), tmp_path / "other")


def test_a_sandbox_that_does_not_start_is_no_score_of_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write(tmp_path / "HumanEval.jsonl", [HUMANEVAL_ROW])
    monkeypatch.setattr(verdicts, "run_alone", lambda *_: Verdict("refused", "no", 0.0))
    with pytest.raises(UserError, match="sandbox does not start here: no"):
        score(HumanEvalTask(allow_code_execution=True), data, "")


def test_an_interrupted_scoring_goes_on_with_the_verdicts_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write(tmp_path / "HumanEval.jsonl", [HUMANEVAL_ROW | {"task_id": f"HumanEval/{n}"} for n in range(3)])
    texts = ["    return 2 * x\n", "    return x\n", "    return x + x\n", "    return 2 * x\n"]
    rows = [{"id": f"HumanEval/{n}", "completion": text} for n in range(3) for text in texts]
    predictions = write(tmp_path / "p.jsonl", rows)
    options = {"allow_code_execution": True, "num_samples": 4}
    config = ScoreConfig(task="humaneval", options=options, dataset=str(data), predictions=str(predictions))
    out, judged = tmp_path / "out", []

    def judge(program: Program, *arguments: Any, limit: float) -> Verdict:
        judged.append(program.code)
        if len(judged) > limit:
            raise KeyboardInterrupt
        return run_alone(program, *arguments)

    monkeypatch.setattr(verdicts, "usable_cores", lambda: 1)
    monkeypatch.setattr(verdicts, "run_alone", partial(judge, limit=2))
    with pytest.raises(KeyboardInterrupt):
        run_scoring(config, out)
    progress = json.loads((out / "progress.json").read_text())
    assert (progress["stage"], progress["total"]) == ("scoring", 3), "one program runs once, however often it is there"
    kept = (out / "verdicts.jsonl").read_text()
    (out / "verdicts.jsonl").write_text(kept + '{"program": "torn')
    judged.clear()
    monkeypatch.setattr(verdicts, "run_alone", partial(judge, limit=math.inf))
    result = json.loads((run_scoring(config, out).path / "metrics.json").read_text())
    assert (len(kept.splitlines()), len(judged)) == (2, 1)
    assert result["metrics"] == {"pass@1": pytest.approx(75.0)} and not (out / "verdicts.jsonl").exists()
    assert json.loads((out / "progress.json").read_text())["step"] == 3


def test_verdicts_are_kept_for_all_that_they_depend_on(tmp_path: Path) -> None:
    isolation = detect()
    base = Program("def f(): return 1", "assert f() == 1", names=("f",))
    others = [replace(base, tests="assert f() == 2"), replace(base, code=""), replace(base, names=())]
    Journal(tmp_path / "v").judge([base], Limits(), isolation)
    journal = Journal(tmp_path / "v")
    assert [each.status for each in journal.judge([base, *others, base], Limits(), isolation)].count("passed") >= 2
    assert len((tmp_path / "v").read_text().splitlines()) == 4
    journal.judge([base], Limits(timeout=2.0), isolation)
    assert len((tmp_path / "v").read_text().splitlines()) == 5


@pytest.mark.parametrize("line", ["7", "{}", '{"program": 1}', '{"program": "a", "status": "passed"}', "{"])
def test_a_damaged_verdict_is_named_and_the_others_stay(line: str, tmp_path: Path) -> None:
    row = '{"program": "a", "status": "passed", "detail": "", "seconds": 1.0}'
    (tmp_path / "v").write_text(f"{row}\n{line}\n")
    with pytest.raises(UserError, match="v:2: "):
        Journal(tmp_path / "v")
    assert (tmp_path / "v").read_text() == f"{row}\n{line}\n"


def test_verdicts_are_never_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = '{"program": "a", "status": "passed", "detail": "", "seconds": 1.0}\n'
    (tmp_path / "v").write_text(row + '{"program": "b')
    monkeypatch.setattr(Path, "write_text", lambda *_: pytest.fail("a kill, or a full disk, would lose them all"))
    Journal(tmp_path / "v").judge([Program("def f(): return 1", "assert f() == 1", names=("f",))], Limits(), detect())
    first, second = (tmp_path / "v").read_text().splitlines(keepends=True)
    assert first == row and json.loads(second)["status"] == "passed"


@pytest.mark.parametrize(
    ("subset", "changes"),
    [
        ("sanitized", {"test_imports": [None]}),
        ("plus", {"task_id": "Mbpp/two"}),
        ("plus", {"atol": 10**400}),
        ("plus", {"task_id": "Mbpp/106", "base_input": [1]}),
        ("plus", {"task_id": "Mbpp/307", "plus_input": [[]]}),
        ("plus", {"task_id": "Mbpp/722", "plus_input": [[7]]}),
    ],
)
def test_values_that_no_problem_of_mbpp_has_are_refused(subset: Any, changes: dict[str, Any], tmp_path: Path) -> None:
    row = mbpp_row(11, prompt="Add.", test_imports=[], canonical_solution="", assertion="", entry_point="add")
    row |= {"base_input": [], "plus_input": [], "atol": 0, **({"task_id": "Mbpp/11"} if subset == "plus" else {})}
    file = write(tmp_path / "mbpp.jsonl", [row | changes])
    with pytest.raises(UserError, match=r"mbpp.jsonl, task .*: cannot be used \("):
        read_mbpp(file, subset)


@pytest.mark.slow
def test_the_official_example_agrees_sample_by_sample() -> None:
    folder = real("humaneval")
    task = HumanEvalTask(num_samples=6, allow_code_execution=True)
    records = task.load(folder / "example_problem.jsonl")
    rows = [json.loads(line) for line in (folder / "example_samples.jsonl").read_text().splitlines()]
    scores = task.score(records, {"test/0": [row["completion"] for row in rows]})
    assert [row["correct"] for row in scores.samples] == [False, False, False, True, True, True]
    assert scores.metrics == {"pass@1": pytest.approx(50.0)}
