"""The key-value evaluation: requests, parsing of odd completions, and what each metric counts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from data_builders.errors import UserError
from data_builders.kv.build import KVDataConfig, build
from data_builders.kv.text import parse_expression, parse_substitution, parse_value
from evals import TASKS
from evals.kv import METRICS, KVRecord
from evals.task import Completion, by_id

CONFIG = KVDataConfig(
    num_keys=60,
    num_values=20,
    max_operands=4,
    num_aug_rows=50,
    num_anchor_rows=50,
    num_composition_rows=50,
    num_test_rows=5,
)
TASK = TASKS["kv"]()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("kv") / "data"
    build(CONFIG, out)
    return out


@pytest.fixture(scope="module")
def records(folder: Path) -> list[KVRecord]:
    return TASK.load(folder)


def completions(records: list[KVRecord], write: Callable[[KVRecord, str], str]) -> dict[str, Completion]:
    return by_id(
        Completion(f"{record.id}/{request}", write(record, request))
        for record in records
        for request in ("substitute", "solve_numbers", "solve_keys")
    )


def test_three_requests_a_record_with_room_for_the_answer(folder: Path, records: list[KVRecord]) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    requests = TASK.requests(records)
    assert len({request.id for request in requests}) == len(requests) == 3 * len(records) == 90
    record = records[0]
    assert [request.prompt for request in requests[:3]] == [
        f"substitute: {record.keys} =",
        f"solve: {record.numbers} =",
        f"solve: {record.keys} =",
    ]
    references = [r.reference(name) for r in records for name in ("substitute", "solve_numbers", "solve_keys")]
    for request, reference in zip(requests, references, strict=True):
        assert len(tokenizer(reference)["input_ids"]) + 2 == request.max_new_tokens


def test_room_for_any_tokenizer_counts_every_character(records: list[KVRecord]) -> None:
    fields = {**vars(records[0]), "spaces_are_free": False}
    other = KVRecord(**fields)
    assert other.max_new_tokens("substitute") == len(other.reference("substitute")) + 2


def test_perfect_completions_score_100_everywhere(records: list[KVRecord]) -> None:
    scores = TASK.score(records, completions(records, KVRecord.reference))
    assert scores.metrics == dict.fromkeys(METRICS, 100.0)
    assert scores.n == 10
    assert {key: group["n"] for key, group in scores.breakdown["by_num_operands"].items()} == {"3": 5, "4": 5}
    assert {key: group["n"] for key, group in scores.breakdown["by_stratum"].items()} == {
        "held_out": 10,
        "mixed": 10,
        "held_in": 10,
    }
    assert sum(group["n"] for group in scores.breakdown["by_num_held_in"].values()) == 30
    assert list(scores.breakdown["by_num_held_in"]) == ["0", "1", "2", "3", "4"]
    assert all(sample["correct"] and sample["completion"] == sample["reference"] for sample in scores.samples)
    assert len(scores.samples) == 90


def test_white_space_padding_and_text_after_the_answer_do_not_matter(records: list[KVRecord]) -> None:
    def write(record: KVRecord, request: str) -> str:
        value = f"{int(record.value):+09d}"
        if request != "substitute":
            return f"\n {value}\nand more"
        return f"{parse_expression(record.numbers)}={value} ="

    assert TASK.score(records, completions(records, write)).metrics == dict.fromkeys(METRICS, 100.0)


def test_each_metric_looks_at_its_own_part(records: list[KVRecord]) -> None:
    def only_subs(record: KVRecord, request: str) -> str:
        return f" {record.numbers} =" if request == "substitute" else ""

    def only_value(record: KVRecord, request: str) -> str:
        return f" 1 + 1 = {record.value}" if request == "substitute" else ""

    def headline(write: Callable[[KVRecord, str], str]) -> dict[str, float]:
        return TASK.score(records, completions(records, write)).metrics

    zero = dict.fromkeys(METRICS, 0.0)
    assert headline(only_subs) == zero | {"kv_subs": 100.0}
    assert headline(only_value) == zero | {"kv_math": 100.0}
    assert headline(lambda record, request: record.written_value) == zero | {
        "num_math": 100.0,
        "kv_math_direct": 100.0,
    }
    assert headline(lambda record, request: record.numbers) == zero | {"kv_subs": 100.0}


def test_headline_is_over_held_out_keys_only(records: list[KVRecord]) -> None:
    def write(record: KVRecord, request: str) -> str:
        return "" if record.stratum == "held_out" else record.reference(request)

    scores = TASK.score(records, completions(records, write))
    assert scores.metrics == dict.fromkeys(METRICS, 0.0)
    assert scores.breakdown["by_stratum"]["mixed"]["kv_math"] == 100.0
    assert scores.breakdown["by_num_held_in"]["0"]["kv_math"] == 0.0


def test_missing_and_doubled_completions_are_errors(records: list[KVRecord]) -> None:
    given = completions(records, KVRecord.reference)
    first = f"{records[1].id}/solve_keys"
    del given[first], given[f"{records[2].id}/substitute"]
    with pytest.raises(UserError, match=f"'{first}' is missing \\(2 of 90 requests have none\\)"):
        TASK.score(records, given)
    given = completions(records, KVRecord.reference)
    with pytest.raises(UserError, match=f"'{first}' has 2, and 1 are wanted"):
        TASK.score(records, given | {first: ["a", "b"]})
    with pytest.raises(UserError, match="'x' is no request of this task"):
        TASK.score(records, given | {"x": ["a"]})
    assert by_id([Completion("a", "1"), Completion("b", "2"), Completion("a", "3")]) == {"a": ["1", "3"], "b": ["2"]}


def test_limit_keeps_a_balanced_prefix(folder: Path, records: list[KVRecord]) -> None:
    some = TASK.load(folder, limit=6)
    assert some == records[:6]
    assert {(record.stratum, record.num_operands) for record in some} == {
        (stratum, count) for stratum in ("held_out", "mixed", "held_in") for count in (3, 4)
    }
    with pytest.raises(UserError, match="limit: 0"):
        TASK.load(folder, limit=0)
    with pytest.raises(UserError, match=r"no manifest.json"):
        TASK.load(folder / "tokenizer")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (" -014", "-14"),
        ("+014", "14"),
        ("- 1 4", "-14"),
        ("-000", "0"),
        ("14\n15", "14"),
        ("14 solve: 3", "14"),
        ("14 = 15", "14"),
        (" " + "9" * 5000, "9" * 5000),
        ("", None),
        ("=", None),
        ("-", None),
        ("12 + 3", None),
        ("12.5", None),
        ("1,000", None),
        ("14abc", None),
        ("the answer is 14", None),
        ("\u0661\u0664", None),
    ],
)
def test_values_of_odd_completions(text: str, value: str | None) -> None:
    assert parse_value(text) == value


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        (" 12 + 07 - 33 = -014", ("12+7-33", "-14")),
        ("12+7-33", ("12+7-33", None)),
        ("12 + 07 =", ("12+7", None)),
        ("12 + = 5", (None, "5")),
        ("= 5", (None, "5")),
        ("12 x 00 = 5 = 7", ("12x0", "5")),
        ("\n12 + 7\nsubstitute: ab", ("12+7", None)),
        ("-12 + 7 = -5", (None, "-5")),
        ("", (None, None)),
    ],
)
def test_substitutions_of_odd_completions(text: str, parsed: tuple[str | None, str | None]) -> None:
    assert parse_substitution(text) == parsed


def test_tasks_load_without_heavy_imports() -> None:
    code = "import sys, evals; print(sorted({'torch', 'transformers', 'pyarrow', 'calmctl'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
