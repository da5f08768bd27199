"""Rows of the user's own: prompts and completions in any file, scored over groups."""

import json
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
from transformers import AutoTokenizer

from calmctl.cli.main import main
from data_builders.errors import UserError
from data_builders.files import sha256_file
from data_builders.row_files import read_jsonl
from data_builders.values import read_json
from evals import Scores
from evals.rows import RowsTask, plain_prompt
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
    for name in ("extract", "matches"):
        with pytest.raises(UserError, match=f"{name}='.' is no pattern"):
            RowsTask(**{name: "("})
    with pytest.raises(UserError, match="stop"):
        RowsTask(stop=("",))


def scored(path: Path, rows: list[dict[str, object]], answers: list[str], **options: Any) -> Scores:
    task = RowsTask(**options)
    records = task.load(write(path, rows))
    return task.score(records, {record.id: [text] for record, text in zip(records, answers, strict=True)})


def test_numbers_what_is_contained_and_patterns(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "completion": text} for text in ("So it is.\n#### 1,000", "#### 2", "#### 3")]
    answers = ["It is $1000 in all. 7 of 7 agree. #### 1000.0", "two, which is 2", "#### 3 or 4"]
    found = scored(tmp_path / "a.jsonl", rows, answers, stop=())
    assert found.metrics["number_match"] == 100 and found.metrics["exact_match"] == 0
    assert [row["contains"] for row in found.samples] == [False, False, True]
    assert "matches" not in found.metrics
    found = scored(tmp_path / "a.jsonl", rows, answers, stop=(), extract=r"#### ([\d.,]+)", matches=r"^\d+\.\d")
    assert [row["answer"] for row in found.samples] == ["1000.0", "", "3"]
    assert [row["reference"] for row in found.samples] == ["1,000", "2", "3"]
    assert [row["exact_match"] for row in found.samples] == [False, False, True]
    assert found.metrics["matches"] == pytest.approx(100 / 3) and found.protocol["extract"] == r"#### ([\d.,]+)"
    rows[1]["completion"] = "no number"
    assert "number_match" not in scored(tmp_path / "a.jsonl", rows, answers, stop=()).metrics


def test_extracting_all_or_nothing_leaves_the_older_metrics_as_they_are(tmp_path: Path) -> None:
    answers = [" Good day\n", "I have", "It is raining."]
    plain, whole = (scored(tmp_path / "a.jsonl", ROWS, answers, extract=pattern) for pattern in ("", "(?s).*"))
    assert plain.metrics == whole.metrics and plain.metrics["exact_match"] == pytest.approx(200 / 3)


TALK = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Name two\nlines."},
    {"role": "assistant", "content": "one\ntwo"},
    {"role": "user", "content": "left over"},
]


def test_of_a_conversation_the_last_answer_is_asked_for(tmp_path: Path) -> None:
    task = RowsTask()
    (record,) = task.load(write(tmp_path / "a.jsonl", [{"messages": TALK}]))
    (request,) = task.requests([record])
    assert (list(request.messages), request.reference, request.stop) == (TALK[:3], "one\ntwo", ())
    assert request.prompt == "User:\nHi\n\nAssistant:\nHello\n\nUser:\nName two\nlines.\n\nAssistant:\n"
    assert task.score([record], {record.id: ["one\ntwo"]}).metrics["exact_match"] == 100
    for messages in (TALK[:1], TALK[1:2]):
        with pytest.raises(UserError, match="row 1 has no message of the assistant after another"):
            task.load(write(tmp_path / "a.jsonl", [{"messages": messages}]))


def test_groups_and_columns_of_a_csv_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("q,a,language\r\n1,2,fra_Latn\r\n3,4,deu_Latn\r\n5,6,deu_Latn\r\n")
    task = RowsTask(group="language", columns={"prompt": "q", "completion": "a"})
    assert [record.group for record in task.load(path)] == ["fra_Latn", "deu_Latn", "deu_Latn"]
    assert [record.id for record in task.load(path, 1)] == ["1", "2"]
    assert task.data_sha256(path) == sha256_file(path) == task.data_sha256(tmp_path / "*.csv")


def test_a_model_reads_a_conversation_through_its_template(tmp_path: Path) -> None:
    folder = write_models(tmp_path)["plain"]
    rendered = {"prompt": "[Hi][Hello][Name two\nlines.]>", "completion": "one\ntwo"}
    plain = {"prompt": plain_prompt(TALK[:3]), "completion": "one\ntwo"}
    template = "{% for m in messages %}[{{ m.content }}]{% endfor %}>"
    dated = "{% if strftime_now is defined %}{% endif %}" + template
    asked = {}
    for name, row, written in (
        ("chat", {"messages": TALK}, dated),
        ("rendered", rendered, template),
        ("without a template", {"messages": TALK}, None),
        ("plain", plain, None),
    ):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.chat_template = written
        (folder / "chat_template.jinja").unlink(missing_ok=True)
        tokenizer.save_pretrained(folder)
        data, out = write(tmp_path / f"{name}.jsonl", [row]), tmp_path / "runs" / name
        line = ["eval", "rows", "--model", folder, "--data", data, "--out", out, "options.max_new_tokens=4"]
        assert main([*map(str, line), "bits_per_byte=true", "options.stop=[]"]) == 0
        result = read_json(out / "metrics.json")
        assert bool(result["protocol"].get("chat_template")) == (name == "chat")
        assert result["protocol"].get("chat_date") == ("2024-07-26" if name == "chat" else None)
        # The hash is over model, prompt and settings: the same only if the model was asked the same.
        asked[name] = read_jsonl(out / "samples.jsonl")[0]["request"], result["metrics"]
        assert read_jsonl(out / "predictions.jsonl")[0]["prompt"] == (rendered if written else plain)["prompt"]
    assert asked["chat"] == asked["rendered"] and asked["without a template"] == asked["plain"]
    assert asked["chat"][0] != asked["plain"][0]


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
