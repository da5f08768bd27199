"""Rows of the user's own: prompts and completions in any file, scored over groups."""

import json
from pathlib import Path

import pytest
import sacrebleu

from calmctl.cli.main import main
from data_builders.errors import UserError
from data_builders.values import read_json
from evals.rows import RowsTask
from tests.task_data import write_models

ROWS = [
    {"prompt": "de: Guten Tag\nen:", "completion": " Good day", "meta": {"language": "deu_Latn"}},
    {"prompt": "de: Ich habe zwei Katzen.\nen:", "completion": " I have two cats.", "meta": {"language": "deu_Latn"}},
    {"prompt": "fr: Il pleut.\nen:", "completion": " It is raining.", "meta": {"language": "fra_Latn"}},
]


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_scores_are_sacrebleus_of_each_group_and_their_mean(tmp_path: Path) -> None:
    task = RowsTask(group="language")
    records = task.load(write(tmp_path / "rows.jsonl", ROWS))
    written = {"1": [" Good day\nand more"], "2": [" I have two dogs."], "3": [""]}
    scores = task.score(records, written)
    german = sacrebleu.corpus_chrf(["Good day", "I have two dogs."], [["Good day", "I have two cats."]], beta=1).score
    assert scores.breakdown["by_language"]["deu_Latn"]["chrf1"] == pytest.approx(german)
    assert scores.metrics["chrf1"] == pytest.approx(german / 2) and scores.metrics["exact_match"] == 25
    assert [row["correct"] for row in scores.samples] == [True, False, False]
    assert scores.breakdown["by_language"]["fra_Latn"]["name"] == "French"
    assert [request.reference for request in task.requests(records)] == [row["completion"] for row in ROWS]
    assert [record.id for record in task.load(tmp_path / "rows.jsonl", 1)] == ["1", "3"]  # of each language
    plain = RowsTask().score(RowsTask().load(tmp_path / "rows.jsonl"), written)
    assert plain.metrics["exact_match"] == pytest.approx(100 / 3) and "by_language" not in plain.breakdown


@pytest.mark.parametrize("rows, options, message", [
    ([{"prompt": "a"}], {}, "needs columns `prompt` and `completion`"),
    ([{"prompt": "a", "completion": "b\nc"}], {}, "row 1: its completion holds '.n', which ends an answer"),
    ([{"prompt": "a", "completion": "b", "meta": {"language": None}}], {"group": "language"}, "no meta.language"),
    ([{"prompt": "a", "completion": " "}], {}, "row 1 has an empty prompt or completion"),
    ([{"prompt": "a", "completion": "b"}], {"group": "language"}, "row 1 has no meta.language"),
    ([{"id": "x", "prompt": "a", "completion": "b"}] * 2, {}, "two rows have the same id"),
    ([], {}, "no rows in it"),
])  # fmt: skip
def test_bad_files_are_one_clear_error(tmp_path: Path, rows, options, message) -> None:
    with pytest.raises(UserError, match=message):
        RowsTask(**options).load(write(tmp_path / "rows.jsonl", rows))
    with pytest.raises(UserError, match="stop"):
        RowsTask(stop=("",))


def test_a_model_answers_rows_and_their_bits_are_measured(tmp_path: Path) -> None:
    model = write_models(tmp_path)["plain"]
    data = write(tmp_path / "rows.jsonl", ROWS)
    named = ["eval", "rows", "--preset", "rows", "--model", str(model), "--data", str(data)]
    assert main([*named, "--out", str(tmp_path / "out"), "options.group=language", "options.max_new_tokens=4"]) == 0
    result = read_json(tmp_path / "out" / "metrics.json")
    assert result["metrics"]["bits_per_byte"] > 0 and set(result["breakdown"]["by_language"]) == {
        "deu_Latn",
        "fra_Latn",
    }
    assert len((tmp_path / "out" / "predictions.jsonl").read_text().splitlines()) == 3
