# ruff: noqa: E501
"""HumanEval and MBPP: byte-exact prompts, what is run, what is refused; on the real data where CALMCTL_DATA has it."""

from __future__ import annotations

import ast
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from data_builders.errors import UserError
from evals import TASKS
from evals.humaneval import STOPS, HumanEvalTask
from evals.mbpp import MbppTask
from evals.metrics import pass_at_k as metric
from evals.metrics.pass_at_k import mean_pass_at_k, pass_at_k
from evals.task import Scores, Task
from tests.code_rows import HUMANEVAL_ROW, mbpp_row, real, score, write


@pytest.fixture
def mbpp_file(tmp_path: Path) -> Path:
    return write(tmp_path / "mbpp.jsonl", [mbpp_row(number) for number in (1, 2, 3, 4, 11, 510, 511)])


def test_humaneval_asks_the_prompt_as_it_is_and_runs_the_test_with_it(tmp_path: Path) -> None:
    write(tmp_path / "HumanEval.jsonl.gz", [HUMANEVAL_ROW])
    task = HumanEvalTask(allow_code_execution=True)
    (request,) = task.requests(task.load(tmp_path))
    assert request.text == HUMANEVAL_ROW["prompt"]
    assert request.stop == STOPS == ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
    assert request.max_new_tokens == 1024
    scores = score(task, tmp_path, HUMANEVAL_ROW["canonical_solution"])
    assert (scores.metrics, scores.n) == ({"pass@1": 100.0}, 1)
    assert scores.protocol["format"] == "lme" and scores.protocol["shots"] == 0
    assert len(scores.protocol["data_sha256"]["HumanEval.jsonl.gz"]) == 64
    assert (scores.protocol["num_scored"], scores.protocol["first_prompt"]) == (1, HUMANEVAL_ROW["prompt"])
    assert "resource limits" in scores.protocol["isolation"]
    assert score(task, tmp_path, "    return 2 + x\n").metrics == {"pass@1": 0.0}
    cheat = "    return 4\nhelper = lambda x: 4\n"
    assert score(task, tmp_path, cheat).metrics == {"pass@1": 0.0}, "the prompt's helpers are the tests' own"


@pytest.mark.parametrize("stop", STOPS)
def test_a_completion_counts_up_to_the_first_stop(stop: str, tmp_path: Path) -> None:
    data = write(tmp_path / "HumanEval.jsonl", [HUMANEVAL_ROW])
    rambling = f"    return 2 * x\n{stop} and no Python from here on ("
    scores = score(HumanEvalTask(allow_code_execution=True), data, rambling)
    assert (scores.metrics, scores.samples[0]["completion"]) == ({"pass@1": 100.0}, rambling)


def test_several_samples_give_pass_at_every_k(tmp_path: Path) -> None:
    data = write(tmp_path / "HumanEval.jsonl", [HUMANEVAL_ROW, {**HUMANEVAL_ROW, "task_id": "HumanEval/1"}])
    task = HumanEvalTask(k=(1, 2), num_samples=3, allow_code_execution=True)
    records = task.load(data)
    right, wrong = "    return 2 * x\n", "    return x\n"
    scores = task.score(records, {"HumanEval/0": [right, wrong, wrong], "HumanEval/1": [wrong, wrong, wrong]})
    assert scores.metrics == {"pass@1": pytest.approx(100 / 6), "pass@2": pytest.approx(100 / 3)}
    assert scores.breakdown["statuses"] == {"failed": 5, "passed": 1}
    assert [row["correct"] for row in scores.samples] == [True] + [False] * 5
    assert [(row["id"], row["sample"]) for row in scores.samples][3] == ("HumanEval/1", 0)


def test_humaneval_plus_is_not_taken_for_humaneval(tmp_path: Path) -> None:
    row = {**HUMANEVAL_ROW, "base_input": [[1]], "plus_input": [[2], [-3]], "atol": 0, "contract": ""}
    write(tmp_path / "HumanEvalPlus.jsonl.gz", [row])
    with pytest.raises(UserError, match="subset=plus"):
        HumanEvalTask(allow_code_execution=True).load(tmp_path / "HumanEvalPlus.jsonl.gz")


def test_the_mbpp_prompt_is_the_official_one_to_the_byte(mbpp_file: Path) -> None:
    task = MbppTask(allow_code_execution=True)
    scores = score(task, mbpp_file, "import sys\ndef add(x):\n  return x + 11\n[DONE]\n\nYou are")
    assert {row["id"]: row["correct"] for row in scores.samples} == {"mbpp/11": True, "mbpp/510": False}
    assert scores.protocol["exemplars"] == {"mbpp": ["mbpp/2", "mbpp/3", "mbpp/4"]}
    requests = task.requests(task.load(mbpp_file))
    assert [request.id for request in requests] == ["mbpp/11", "mbpp/510"]
    shots = "".join(
        f"You are an expert Python programmer, and here is your task: Write a function to add {n}. Your code should pass "
        f"these tests:\n\nassert add(1) == {1 + n}\nassert add(2) == {2 + n}\nassert add(0) < sys.maxsize \n[BEGIN]\n"
        f"import sys\r\ndef add(x):\r\n  return x + {n} \n[DONE]\n\n"
        for n in (2, 3, 4)
    )
    assert requests[0].text == shots + (
        "You are an expert Python programmer, and here is your task: Write a function to add 11. Your code should pass "
        "these tests:\n\nassert add(1) == 12\nassert add(2) == 13\nassert add(0) < sys.maxsize \n[BEGIN]\n"
    )
    assert (requests[0].stop, requests[0].max_new_tokens, len(requests[0].shots)) == (("[DONE]",), 256, 3)


@pytest.mark.parametrize("shots", [0, 1, 3])
def test_mbpp_examples_are_never_among_the_test_records(mbpp_file: Path, shots: int) -> None:
    task = MbppTask(shots=shots, split="all", allow_code_execution=True)
    records = task.load(mbpp_file)
    assert {2, 3, 4} - {record.problem.task_id for record in records} == set((2, 3, 4)[:shots])
    assert len(records) == 7 - shots
    assert {shot.task_id for record in records for shot in record.shots} == set((2, 3, 4)[:shots])


def test_mbpp_set_up_code_runs_after_the_solution_and_only_if_asked(tmp_path: Path) -> None:
    row = mbpp_row(
        11,
        code="class Node:\n  def __init__(self, x): self.x = x\ndef value(node): return node.x",
        test_setup_code="root = Node(1)\r\nroot.x = 5",
        test_list=["assert value(root) == 5"] * 3,
    )
    data = write(tmp_path / "mbpp.jsonl", [row])
    for asked, expected, says in ((True, 100.0, "run before the tests"), (False, 0.0, "not run")):
        task = MbppTask(shots=0, test_setup_code=asked, allow_code_execution=True)
        scores = score(task, data, row["code"])
        assert (scores.metrics["pass@1"], scores.protocol["test_setup_code"]) == (expected, says)


def test_mbpp_programs_may_be_named_like_builtins_but_cannot_replace_those_of_the_tests(tmp_path: Path) -> None:
    row = mbpp_row(11, code="def sum(a, b): return a + b", test_list=["assert abs(sum(1, 2) - 3) < 1e-6"] * 3)
    data = write(tmp_path / "mbpp.jsonl", [row])
    task = MbppTask(shots=0, allow_code_execution=True)
    assert score(task, data, row["code"]).metrics == {"pass@1": 100.0}
    assert score(task, data, "def sum(a, b): return 7\ndef abs(x): return 0").metrics == {"pass@1": 0.0}


@pytest.mark.parametrize("task", [HumanEvalTask(), MbppTask()])
def test_nothing_loads_without_permission(task: Task[Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--allow-code-execution"):
        task.load(tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"k": (1, 5)}, "k=.1, 5.*num_samples"),
        ({"k": ()}, "k=..*num_samples"),
        ({"num_samples": 0}, "num_samples=0"),
        ({"timeout": 0.0}, "timeout=0.0"),
        ({"timeout": float("nan")}, "timeout=nan"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    for name in ("humaneval", "mbpp"):
        with pytest.raises(UserError, match=words):
            TASKS[name](allow_code_execution=True, **options).load(tmp_path)  # type: ignore[call-arg]


def test_bad_files_are_refused_with_one_line(tmp_path: Path) -> None:
    humaneval, mbpp = HumanEvalTask(allow_code_execution=True), MbppTask(allow_code_execution=True)
    with pytest.raises(UserError, match="no such file or folder"):
        humaneval.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no HumanEval.jsonl"):
        humaneval.load(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        (tmp_path / "broken.jsonl.gz").write_bytes(gzip.compress(b"{}")[:9])
        humaneval.load(tmp_path / "broken.jsonl.gz")
    with pytest.raises(UserError, match="cannot be read"):
        (tmp_path / "bits.jsonl.gz").write_bytes(gzip.compress(b"{}")[:10] + b"\xff" * 20)
        humaneval.load(tmp_path / "bits.jsonl.gz")
    with pytest.raises(UserError, match="no JSON object"):
        (tmp_path / "list.jsonl").write_text("7\n")
        humaneval.load(tmp_path / "list.jsonl")
    with pytest.raises(UserError, match="a.jsonl:2: no usable 'test'"):
        humaneval.load(write(tmp_path / "a.jsonl", [HUMANEVAL_ROW, {**HUMANEVAL_ROW, "test": None}]))
    with pytest.raises(UserError, match="appears twice"):
        humaneval.load(write(tmp_path / "b.jsonl", [HUMANEVAL_ROW] * 2))
    with pytest.raises(UserError, match="is no Python"):
        humaneval.load(write(tmp_path / "c.jsonl", [{**HUMANEVAL_ROW, "prompt": "def f("}]))
    with pytest.raises(UserError, match="task 2, which is shown as an example, is missing"):
        mbpp.load(write(tmp_path / "d.jsonl", [mbpp_row(11)]))
    with pytest.raises(UserError, match="fewer than 3 tests"):
        mbpp.load(write(tmp_path / "e.jsonl", [mbpp_row(11, test_list=["assert add(1)"])]))
    with pytest.raises(UserError, match="no task of split='test'"):
        mbpp.load(write(tmp_path / "f.jsonl", [mbpp_row(number) for number in (2, 3, 4, 5)]))
    for changes in ({"code": "def f("}, {"test_list": ["assert (", "a", "b"]}, {"test_list": [1, 2, 3]}):
        with pytest.raises(UserError, match="task 11: its code or a test is no Python"):
            mbpp.load(write(tmp_path / "g.jsonl", [mbpp_row(11, **changes)]))
    write(tmp_path / "mbpp.jsonl", [mbpp_row(2)])
    write(tmp_path / "mbpp.jsonl.gz", [mbpp_row(2)])
    with pytest.raises(UserError, match="name one of these files"):
        mbpp.load(tmp_path)


def test_pass_at_k_is_the_chance_that_a_draw_of_k_has_a_right_one() -> None:
    from itertools import combinations

    for n, c in ((1, 0), (1, 1), (5, 2), (6, 5)):
        for k in range(1, n + 1):
            draws = list(combinations([True] * c + [False] * (n - c), k))
            assert pass_at_k(n, c, k) == pytest.approx(sum(any(draw) for draw in draws) / len(draws))
    assert pass_at_k(10_000, 1, 1) == pytest.approx(1e-4)
    for n, c, k in ((1, 0, 2), (1, 0, 0), (1, 2, 1)):
        with pytest.raises(ValueError):
            pass_at_k(n, c, k)
    with pytest.raises(ValueError, match="at least one problem"):
        mean_pass_at_k([], 1)


def test_the_metric_loads_from_the_package_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import evaluate

    loaded = evaluate.load(metric.__file__, cache_dir=str(tmp_path))
    outcomes = [[True, False, False], [False, False, False]]
    expected = {"pass@1": pytest.approx(1 / 6), "pass@2": pytest.approx(1 / 3)}
    assert loaded.compute(predictions=outcomes, k=[1, 2]) == expected
    assert metric.PassAtK(cache_dir=str(tmp_path)).compute(predictions=outcomes, k=[1, 2]) == expected


def score_references(task: Task[Any], data: Path, limit: int | None = None) -> Scores:
    records = task.load(data, limit)
    requests = task.requests(records)
    references = [getattr(record, "canonical_solution", None) or record.problem.code for record in records]
    return task.score(records, {request.id: [text] for request, text in zip(requests, references, strict=True)})


def failures(scores: Scores) -> list[tuple[str, str, str]]:
    return [(row["id"], row["status"], row["detail"]) for row in scores.samples if not row["correct"]]


class _Mutation(ast.NodeTransformer):
    """Exchange the first comparison or operator for another."""

    swaps = {ast.Lt: ast.GtE, ast.Gt: ast.LtE, ast.Eq: ast.NotEq, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mod: ast.Mult}
    done = False

    def generic_visit(self, node: ast.AST) -> ast.AST:
        swap = self.swaps.get(type(node))
        if swap and not self.done:
            self.done = True
            return swap()
        return super().generic_visit(node)


@pytest.mark.slow
def test_real_humaneval_solutions_pass_and_mutated_ones_do_not() -> None:
    task, data = HumanEvalTask(allow_code_execution=True), real("humaneval")
    scores = score_references(task, data)
    assert (failures(scores), scores.n, scores.metrics) == ([], 164, {"pass@1": 100.0})
    records = task.load(data)
    mutated: dict[str, list[str]] = {}
    for record in records:
        mutation = _Mutation()
        tree = mutation.visit(ast.parse("def f():\n" + record.canonical_solution))
        if mutation.done:
            mutated[record.task_id] = [ast.unparse(tree).partition("\n")[2] + "\n"]
    records = [record for record in records if record.task_id in mutated]
    assert len(records) > 100
    assert task.score(records, mutated).metrics["pass@1"] < 20


@pytest.mark.slow
@pytest.mark.parametrize(("subset", "n"), [("full", 974), ("sanitized", 427)])
def test_real_mbpp_solutions_pass_with_set_up_code(subset: Any, n: int) -> None:
    task = MbppTask(subset=subset, shots=0, split="all", test_setup_code=True, allow_code_execution=True)
    scores = score_references(task, real("mbpp"))
    assert (failures(scores), scores.n) == ([], n)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "task"), [
    ("humaneval_plus", HumanEvalTask(subset="plus", allow_code_execution=True)),
    ("mbpp_plus", MbppTask(subset="plus", shots=0, allow_code_execution=True)),
])  # fmt: skip
def test_real_plus_solutions_pass(name: str, task: Task[Any]) -> None:
    scores = score_references(task, real(name))
    # What its solution returns, 128 million words, takes longer to hand over than its limit (docs/code-execution.md).
    too_large = {"mbpp/255"} if name == "mbpp_plus" else set()
    assert {failure[0] for failure in failures(scores)} == too_large
    assert scores.n == (164 if name == "humaneval_plus" else 378)


def test_the_real_mbpp_prompt_of_task_11() -> None:
    task = MbppTask(allow_code_execution=True)
    records = task.load(real("mbpp"))
    assert [record.problem.task_id for record in records] == list(range(11, 511))
    text = task.requests(records)[0].text
    assert text.startswith(
        "You are an expert Python programmer, and here is your task: Write a function to find the similar elements from "
        "the given two tuple lists. Your code should pass these tests:\n\nassert similar_elements((3, 4, 5, 6),(5, 7, 4, "
        "10)) == (4, 5)\nassert similar_elements((1, 2, 3, 4),(5, 4, 3, 7)) == (3, 4)\nassert similar_elements((11, 12, "
        "14, 13),(17, 15, 14, 13)) == (13, 14)\n[BEGIN]\ndef similar_elements(test_tup1, test_tup2):\r\n  res = tuple("
        "set(test_tup1) & set(test_tup2))\r\n  return (res) \n[DONE]\n\nYou are an expert"
    )
    assert text.endswith(
        "\n[DONE]\n\nYou are an expert Python programmer, and here is your task: Write a python function to remove first "
        'and last occurrence of a given character from the string. Your code should pass these tests:\n\nassert remove_Occ("hello","l") '
        '== "heo"\nassert remove_Occ("abcda","a") == "bcd"\nassert remove_Occ("PHP","P") == "H"\n[BEGIN]\n'
    )  # fmt: skip


def test_the_benchmark_of_the_sandbox_reports_every_isolation(tmp_path: Path) -> None:
    import subprocess
    import sys

    data, figures = write(tmp_path / "HumanEval.jsonl", [HUMANEVAL_ROW]), tmp_path / "figures.json"
    script = Path(__file__).resolve().parents[1] / "benchmarks" / "sandbox.py"
    subprocess.run([sys.executable, script, data, "--runs", "1", "--json", figures], check=True, capture_output=True)
    results = json.loads(figures.read_text())["results"]
    assert results and all(row["passed"] == row["programs"] == 1 for row in results)
