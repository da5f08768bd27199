"""What every task checks, whatever it evaluates."""

from pathlib import Path

import pytest

from data_builders.errors import UserError
from evals import TASKS, Task
from tests.task_data import write_data

OPTIONS = {"humaneval": {"allow_code_execution": True}, "mbpp": {"allow_code_execution": True}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("tasks"))


def task(name: str) -> Task:
    return TASKS[name](**OPTIONS.get(name, {}))


def test_tasks_are_listed_by_their_names() -> None:
    assert {name: kind.name for name, kind in TASKS.items()} == {name: name for name in TASKS}


@pytest.mark.parametrize("name", TASKS)
def test_what_leaves_nothing_to_score_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="limit: 0 is too small; use at least 1"):
        task(name).load(tmp_path, 0)
    with pytest.raises(UserError, match="records: there are none; score at least one"):
        task(name).score([], {})


@pytest.mark.parametrize("name", ["kv", "gsm8k", "codexglue", "rows", "humaneval"])
def test_every_request_has_its_completions_and_nothing_else_does(name: str, data: Path) -> None:
    asked = task(name)
    records = asked.load(data / name, 2)
    given = {request.id: ["1"] for request in asked.requests(records)}
    first, *_ = given
    for other, message in (
        ({**given, "x": ["1"]}, "'x' is no request of this task"),
        ({key: value for key, value in given.items() if key != first}, f"'{first}' is missing"),
        ({**given, first: ["1", "2"]}, f"'{first}' has 2, and 1 are wanted"),
    ):
        with pytest.raises(UserError, match=message):
            asked.score(records, other)


@pytest.mark.parametrize(("name", "option", "value", "message"), [
    ("flores", "max_new_tokens", 0, "max_new_tokens: 0 is too small; use at least 1"),
    ("rows", "max_new_tokens", 0, "max_new_tokens: 0 is too small; use at least 1"),
    ("codexglue", "shots", -1, "shots: -1 is too small; use at least 0"),
    ("mgsm", "shots", -1, "shots: -1 is too small; use at least 0"),
    ("text", "window", 0, "window: 0 is too small; use at least 1"),
])  # fmt: skip
def test_options_out_of_range_are_refused(name: str, option: str, value: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        TASKS[name](**{option: value})
