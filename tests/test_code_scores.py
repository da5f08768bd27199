"""Scoring completions of code tasks: which are run, as what, and what becomes of their verdicts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from calmctl.errors import UserError
from calmctl.experiments.scoring import ScoreConfig, run_scoring
from data_builders.errors import DataError
from evals import TASKS
from evals.humaneval import HumanEvalTask
from evals.mbpp import MbppTask
from evals.sandbox import Verdict
from tests.code_rows import HUMANEVAL_ROW, mbpp_row, score, write


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
    monkeypatch.setattr("evals.code_scores.run_programs", lambda programs, *_: [Verdict("refused", "no", 0.0)])
    with pytest.raises(DataError, match="sandbox does not start here: no"):
        score(HumanEvalTask(allow_code_execution=True), data, "")
