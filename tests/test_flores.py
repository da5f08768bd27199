"""FLORES: prompts to the byte, options that are refused, and scores by language and against another run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from data_builders.errors import UserError
from evals.flores import FloresRecord, FloresTask
from evals.metrics.translation import METRICS, corpus_scores, sentence_statistics
from tests.flores_folder import ODD, load, write_flores
from tests.real_data import real_data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_flores(tmp_path_factory.mktemp("flores"))


def echo(records: list[FloresRecord]) -> dict[str, list[str]]:
    return {record.id: [f" {record.reference}\nFrench sentence: more"] for record in records}


def test_the_prompt_is_this_to_the_byte(folder: Path) -> None:
    (record, *_) = records = load(folder, languages=("fra_Latn",), shots=2)
    request = FloresTask(shots=2).requests(records)[0]
    assert request.text == (
        "French sentence: fra_Latn says dev 0.\nEnglish sentence: eng_Latn says dev 0.\n\n"
        "French sentence: fra_Latn says dev 1.\nEnglish sentence: eng_Latn says dev 1.\n\n"
        "French sentence: fra_Latn says devtest 0.\nEnglish sentence:"
    )
    assert request.id == record.id == "fra_Latn/0"
    assert (request.stop, request.max_new_tokens) == (("\n",), 128)
    assert record.reference == "eng_Latn says devtest 0."


def test_the_other_direction_and_no_shots(folder: Path) -> None:
    task = FloresTask(languages=("min_Arab",), direction="en-xx", shots=0)
    (request, *_) = task.requests(task.load(folder, 1))
    assert request.text == "English sentence: eng_Latn says devtest 0.\nMinangkabau (Arabic script) sentence:"


def test_five_real_shots_and_the_first_question() -> None:
    task = FloresTask(languages=("fra_Latn",))
    request = task.requests(task.load(real_data("flores200"), 1))[0]
    lines = request.text.split("\n")
    assert len(request.shots) == 5 and len(lines) == 5 * 3 + 2
    assert [line.partition(" sentence:")[0] for line in lines] == ["French", "English", ""] * 5 + ["French", "English"]
    assert (
        hashlib.sha256(request.text.encode()).hexdigest()
        == "93975379750c99f07aea25fef59567e5a4599eaadf0da285a2ada83e1be66d6c"
    )


def test_requests_of_a_language_share_their_shots_and_limit_is_per_language(folder: Path) -> None:
    records = load(folder, languages=("fra_Latn", "zho_Hans"))
    requests = FloresTask().requests(records)
    assert [request.id for request in requests] == [f"{c}/{row}" for c in ("fra_Latn", "zho_Hans") for row in range(3)]
    assert len({id(request.shots) for request in requests}) == 2
    assert records[1].sentence == "fra_Latn says devtest 1."
    assert load(folder, None, languages=("fra_Latn",))[3].sentence == ODD


def test_later_rows_keep_their_numbers_and_their_worked_examples(folder: Path) -> None:
    codes = ("fra_Latn", "zho_Hans")
    whole = load(folder, None, languages=codes)
    for first, limit in ((0, 2), (3, 2), (1010, 9), (1011, None)):
        rows = [row for row in range(1012) if row >= first][:limit]
        expected = [record for record in whole if int(record.id.partition("/")[2]) in rows]
        assert load(folder, limit, languages=codes, first_row=first) == expected
        assert {record.id for record in expected} == {f"{code}/{row}" for code in codes for row in rows}
    task = FloresTask(languages=codes, first_row=3)
    records = task.load(folder, 2)
    assert task.score(records, echo(records)).protocol["first_row"] == 3
    two = load(folder, 2, languages=codes)
    assert "first_row" not in FloresTask(languages=codes).score(two, echo(two)).protocol  # as in earlier results


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shots": -1}, "shots: -1 is not within 0 and 997"),
        ({"shots": 998}, "shots: 998"),
        ({"direction": "fr-en"}, "direction: 'fr-en' is not one of"),
        ({"max_new_tokens": 0}, "max_new_tokens: 0"),
        ({"first_row": -1}, "first_row: -1 is not within 0 and 1011"),
        ({"first_row": 1012}, "first_row: 1012"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        FloresTask(**options)


def test_references_score_100_and_the_protocol_says_how(folder: Path) -> None:
    task = FloresTask(languages=("fra_Latn", "zho_Hans"))
    records = task.load(folder, 20)
    scores = task.score(records, echo(records))
    assert {name: round(value, 9) for name, value in scores.metrics.items()} == dict.fromkeys(METRICS, 100.0)
    assert scores.n == 40 and [each["n"] for each in scores.breakdown["by_language"].values()] == [20, 20]
    protocol = scores.protocol
    assert protocol["format"] == "sentence-pairs" and protocol["shots"] == 5 and protocol["stop"] == ["\n"]
    assert protocol["exemplars"]["zho_Hans"] == [f"zho_Hans/dev/{row}" for row in range(5)]
    assert protocol["metrics"]["chrf1"]["beta"] == 1 and protocol["first_prompt"] == task.requests(records)[0].text
    assert (protocol["num_scored"], protocol["num_skipped"], protocol["direction"]) == (40, 0, "xx-en")
    assert len(next(iter(protocol["data_sha256"].values()))) == 64
    assert scores.samples[0] == {
        "id": "fra_Latn/0",
        "prompt": "French sentence: fra_Latn says devtest 0.\nEnglish sentence:",
        "completion": " eng_Latn says devtest 0.\nFrench sentence: more",
        "answer": "eng_Latn says devtest 0.",
        "reference": "eng_Latn says devtest 0.",
        "sentence_chrf1": 100.0,
    }
    json.dumps([scores.protocol, scores.breakdown, scores.samples])


def test_english_against_itself_scores_100() -> None:
    task = FloresTask(languages=("eng_Latn",))
    records = task.load(real_data("flores200"))
    scores = task.score(records, {record.id: [f" {record.sentence}\n"] for record in records})
    assert {name: round(value, 9) for name, value in scores.metrics.items()} == dict.fromkeys(METRICS, 100.0)
    assert scores.n == 1012


def test_scores_are_the_mean_of_corpora_and_empty_is_zero(folder: Path) -> None:
    task = FloresTask(languages=("fra_Latn", "zho_Hans"))
    records = task.load(folder, 30)
    given = {record.id: [" eng_Latn told devtest"] for record in records if record.set.language == "fra_Latn"}
    given |= {record.id: ["\n too late"] for record in records if record.set.language == "zho_Hans"}
    scores = task.score(records, given)
    references = [record.reference for record in records[:30]]
    french = corpus_scores(sentence_statistics(["eng_Latn told devtest"] * 30, references))
    by_language = scores.breakdown["by_language"]
    assert {name: by_language["fra_Latn"][name] for name in METRICS} == french
    assert {name: by_language["zho_Hans"][name] for name in METRICS} == dict.fromkeys(METRICS, 0.0)
    assert scores.metrics == {name: french[name] / 2 for name in METRICS}
    assert 0 < scores.breakdown["standard_error"]["chrf1"] < by_language["fra_Latn"]["standard_error"]["chrf1"]


def write_run(path: Path, task: str, direction: str, by_language: dict[str, Any], release: str = "flores200") -> Path:
    path.mkdir()
    run = {
        "task": task,
        "protocol": {"direction": direction, "release": release},
        "breakdown": {"by_language": by_language},
    }
    (path / "metrics.json").write_text(json.dumps(run))
    return path


def test_languages_above_another_run(folder: Path, tmp_path: Path) -> None:
    theirs = {
        "fra_Latn": {"n": 9, "chrf1": 99.0},
        "zho_Hans": {"n": 9, "chrf1": 100.0},
        "min_Latn": {"n": 1, "chrf1": 0},  # of no concern: this run does not have it
    }
    run = write_run(tmp_path / "run", "flores", "xx-en", theirs)
    languages = ("fra_Latn", "zho_Hans")
    for against in (run, run / "metrics.json"):
        task = FloresTask(languages=languages, against=str(against))
        records = task.load(folder, 9)
        scores = task.score(records, echo(records))
        assert scores.metrics["languages_above"] == 1.0
        compared = scores.breakdown["against"]
        assert (compared["above"], compared["num_languages"]) == (["fra_Latn"], 2)
        assert compared["difference"] == {"fra_Latn": pytest.approx(1.0), "zho_Hans": pytest.approx(0.0)}
    with pytest.raises(UserError, match="scored 9 rows of fra_Latn, and this run is over 5"):
        task.load(folder, 5)
    with pytest.raises(UserError, match="begins with row 0 of devtest, and this run with 4; .* same first_row"):
        FloresTask(languages=languages, against=str(run), first_row=4).load(folder, 9)
    result = json.loads((run / "metrics.json").read_text())
    result["protocol"]["subset"] = {"records": 18, "of": 2024}  # as many rows, and perhaps others
    (run / "metrics.json").write_text(json.dumps(result))
    with pytest.raises(UserError, match="scored 18 of 2024 records .ids=given.; name a whole run"):
        task.load(folder, 9)


def test_runs_that_cannot_be_compared_are_refused_before_anything_is_generated(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("{}")
    for against, message in (
        (tmp_path / "none", "none: no such file"),
        (tmp_path, "no metrics of a flores run"),
        (write_run(tmp_path / "gsm8k", "gsm8k", "", {}), "is a run of gsm8k"),
        (
            write_run(tmp_path / "reverse", "flores", "en-xx", {}),
            "is a run of flores en-xx flores200, not of flores xx-en",
        ),
        (write_run(tmp_path / "plus", "flores", "xx-en", {}, "flores_plus"), "not of flores xx-en flores200"),
        (write_run(tmp_path / "other", "flores", "xx-en", {"zho_Hans": {"n": 3, "chrf1": 1.0}}), "has no fra_Latn"),
        (write_run(tmp_path / "odd", "flores", "xx-en", {"fra_Latn": {"n": 3}}), "no metrics of a flores run"),
        (write_run(tmp_path / "rows", "flores", "xx-en", {"fra_Latn": {"n": 9, "chrf1": 1.0}}), "9 rows of fra_Latn"),
    ):
        with pytest.raises(UserError, match=message):
            load(folder, languages=("fra_Latn",), against=str(against))


def test_a_model_that_writes_odd_text_is_scored_all_the_same(folder: Path) -> None:
    task = FloresTask(languages=("fra_Latn",))
    records = task.load(folder, 3)
    scores = task.score(
        records, dict(zip([r.id for r in records], [["\ud800 a\x00"], [" \u2028 "], [""]], strict=True))
    )
    assert scores.samples[1]["answer"] == scores.samples[2]["answer"] == ""
    assert 0 < scores.metrics["chrf1"] < 10
