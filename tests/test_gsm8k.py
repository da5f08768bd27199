"""GSM8K and MGSM: prompts to the byte, the figures of each code, worked examples, refusals."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from data_builders.errors import UserError
from evals.gsm8k import GSM8K_METRICS, GSM8KTask, MathRecord
from evals.metrics.answers import answer
from evals.mgsm import MGSM_METRICS, MGSM_WORDINGS, MGSMTask
from tests.real_data import real_data

ENDS = ("</s>", "<|im_end|>")
EXEMPLARS = '''"""Prompts."""
raise SystemExit("this file is parsed, not run")
EXEMPLAR_NUMBER_ANSWERS = [11, 29]
MGSM_EXEMPLARS = {
    "de": {
        "1": {"q": "Frage: Was ist "
                   "1 + 1?",
              "a": "Schritt-f\\u00fcr-Schritt-Antwort: 1 + 1 = 2. Die Antwort lautet 2."},
        "2": {"q": "Frage: Und 2 + 2?", "a": "Schritt-f\\u00fcr-Schritt-Antwort: 4. Die Antwort lautet 4."},
    },
    "zh": {
        "1": {"q": "\\u95ee\\u9898\\uff1a1 + 1?",
              "a": "\\u9010\\u6b65\\u89e3\\u7b54\\uff1a\\u7b54\\u6848\\u662f 2\\u3002"},
    },
}
'''


@pytest.fixture
def gsm8k(tmp_path: Path) -> Path:
    for split, rows in (("train", 9), ("test", 4)):
        lines = [
            {"question": f"{split} {row}?", "answer": f"It is <<{row}+1={row + 1}>>{row + 1}.\n#### {1000 * row:,}"}
            for row in range(rows)
        ]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


@pytest.fixture
def mgsm(tmp_path: Path) -> Path:
    for language in ("de", "zh"):
        rows = "".join(f'{language} "problem" {row}?\t{1000 * row:,}\n' for row in range(250))
        (tmp_path / f"mgsm_{language}.tsv").write_text(rows, encoding="utf-8")
    return tmp_path


def completions(records: list[MathRecord], write: Callable[[MathRecord], str]) -> dict[str, list[str]]:
    return {record.id: [write(record)] for record in records}


def test_the_gsm8k_prompt_is_this_to_the_byte(gsm8k: Path) -> None:
    task = GSM8KTask(shots=2)
    requests = task.requests(task.load(gsm8k))
    assert requests[3].text == (
        "Question: train 0?\nAnswer: It is <<0+1=1>>1.\n#### 0\n\n"
        "Question: train 1?\nAnswer: It is <<1+1=2>>2.\n#### 1,000\n\n"
        "Question: test 3?\nAnswer:"
    )
    assert [request.id for request in requests] == [f"test/{row}" for row in range(4)]
    assert requests[0].stop == ("Question:", *ENDS) and requests[0].max_new_tokens == 320
    assert len({id(request.shots) for request in requests}) == 1
    assert len(GSM8KTask().requests(GSM8KTask().load(gsm8k, limit=1))[0].shots) == 8


def test_gsm8k_on_the_real_data() -> None:
    task = GSM8KTask()
    records = task.load(real_data("gsm8k"))
    assert len(records) == 1319
    first = task.requests(records)[0]
    assert (
        hashlib.sha256(first.text.encode()).hexdigest()
        == "91081653084251e141d423e8b58d06b558fd70895987ba1158f088368dfc215e"
    )
    scores = task.score(records, completions(records, lambda record: f" {record.problem.solution}\n\nQuestion: 1?"))
    assert scores.metrics == dict.fromkeys(GSM8K_METRICS, 100.0)
    assert scores.protocol["exemplars"]["en"] == [f"train/{row}" for row in range(8)]


def test_each_figure_is_that_of_the_code_it_names(gsm8k: Path) -> None:
    task = GSM8KTask()
    records = task.load(gsm8k)

    def wrong(write: Callable[[MathRecord], str]) -> set[str]:
        metrics = task.score(records, completions(records, write)).metrics
        assert list(metrics) == list(GSM8K_METRICS) and set(metrics.values()) <= {0.0, 100.0}
        return {name for name, value in metrics.items() if not value}

    official, strict, flexible, exact = GSM8K_METRICS
    assert official == "official_match"  # the first is the headline
    assert wrong(lambda r: f"Well, 7. #### {r.problem.answer}") == set()
    # Their code takes a final point for a part of the number, and wants one space and a digit behind the marker.
    assert wrong(lambda r: f"#### {r.problem.answer}.") == {official}
    for marker in ("#### $", "####", "####  ", "####: "):
        assert wrong(lambda r, m=marker: f"{m}{r.problem.answer}") == {official, strict}  # type: ignore[misc]
    # Another question that the model asks itself is no part of the answer, nor what stands behind an end.
    for end in ("\n\nQuestion: 5?\nAnswer:", *ENDS):
        assert wrong(lambda r, e=end: f"#### {r.problem.answer}{e} #### 6") == set()  # type: ignore[misc]
    assert wrong(lambda r: f"It is {r.problem.answer}, I say") == {official, strict}
    assert wrong(lambda r: f"#### {r.problem.answer} of 77") == {flexible}
    assert wrong(lambda r: f"#### {r.problem.answer}\n#### 77") == {flexible, exact}
    assert wrong(lambda r: f"#### 77\n#### {r.problem.answer}") == {official, strict}
    assert wrong(lambda r: f"#### {r.problem.answer}.00") == {official, strict, flexible}
    assert wrong(lambda r: "no number") == set(GSM8K_METRICS)
    half = task.score(
        records, completions(records, lambda r: "#### 0" if r.id in ("test/0", "test/1") else "#### 2000")
    )
    assert half.metrics[official] == 50.0 and half.breakdown["standard_error"][official] == 25.0
    assert half.samples[0] | {"prompt": ""} == {
        "id": "test/0",
        "prompt": "",
        "completion": "#### 0",
        "answer": dict.fromkeys(GSM8K_METRICS, "0"),
        "reference": "0",
        "correct": True,
        "metrics": dict.fromkeys(GSM8K_METRICS, True),
    }
    json.dumps([half.protocol, half.breakdown, half.samples])


def test_gsm8k_files_that_are_refused(gsm8k: Path) -> None:
    with pytest.raises(UserError, match="shots: 10 is more than the 9 rows"):
        GSM8KTask(shots=10).load(gsm8k)
    with pytest.raises(UserError, match="shots: -1 is too small"):
        GSM8KTask(shots=-1)
    train = (gsm8k / "train.jsonl").read_text()
    (gsm8k / "train.jsonl").write_text(json.dumps({"question": "test 2?", "answer": "#### 1"}) + "\n" + train)
    with pytest.raises(UserError, match="worked example 'test 2\\?' is in the test as well"):
        GSM8KTask().load(gsm8k)
    assert len(GSM8KTask(shots=0).load(gsm8k)) == 4
    for line, message in (
        ('{"question": "a"}', "test.jsonl:5: no usable 'answer'"),
        ('{"question": "a", "answer": "5"}', "test.jsonl:5: has no '#### <number>'"),
        ("[]", "test.jsonl:5: no JSON object"),
        ("{", "test.jsonl:5: is no JSON"),
    ):
        before = (gsm8k / "test.jsonl").read_text()
        (gsm8k / "test.jsonl").write_text(before + line + "\n")
        with pytest.raises(UserError, match=message):
            GSM8KTask(shots=0).load(gsm8k)
        (gsm8k / "test.jsonl").write_text(before)
    (gsm8k / "test.jsonl").unlink()
    with pytest.raises(UserError, match="test.jsonl: no such file"):
        GSM8KTask().load(gsm8k)


def test_the_mgsm_prompt_is_this_to_the_byte(mgsm: Path) -> None:
    (mgsm / "exemplars.py").write_text(EXEMPLARS)
    task = MGSMTask(shots=1)
    requests = {request.id: request for request in task.requests(task.load(mgsm, limit=2))}
    assert list(requests) == ["de/0", "de/1", "zh/0", "zh/1"]
    assert requests["de/1"].text == (
        "Frage: Was ist 1 + 1?\nSchritt-für-Schritt-Antwort: 1 + 1 = 2. Die Antwort lautet 2.\n\n"
        'Frage: de "problem" 1?\nSchritt-für-Schritt-Antwort:'
    )
    assert requests["zh/0"].text == '问题：1 + 1?\n逐步解答：答案是 2。\n\n问题：zh "problem" 0?\n逐步解答：'
    assert (requests["de/0"].stop, requests["zh/0"].stop) == (("Frage:", *ENDS), ("问题：", *ENDS))


def test_mgsm_without_worked_examples_says_what_to_put_where(mgsm: Path) -> None:
    with pytest.raises(UserError, match=r"exemplars.py is missing.* put mgsm/exemplars.py of google-research/url-nlp"):
        MGSMTask().load(mgsm)
    (record, *_) = MGSMTask(shots=0).load(mgsm)
    assert record.set.shots == ()
    (mgsm / "exemplars.py").write_text(EXEMPLARS)
    with pytest.raises(UserError, match="shots: 2 is more than the 1 worked examples in zh"):
        MGSMTask(shots=2).load(mgsm)
    assert len(MGSMTask(shots=2, languages=("de",)).load(mgsm)) == 250


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("MGSM_EXEMPLARS = dict(de={})", "cannot be read as Python data"),
        ("MGSM_EXEMPLARS = __import__('os').environ", "cannot be read as Python data"),
        ("EXEMPLARS = {}", "assigns no dictionary to MGSM_EXEMPLARS"),
        ("MGSM_EXEMPLARS = {'de': {}}", "has no examples in 'de'"),
        ("MGSM_EXEMPLARS = {'de': {'1': {'q': 'a'}}}", r"\['de'\]\['1'\] has no texts 'q' and 'a'"),
        ("MGSM_EXEMPLARS = {'de': {'1': {'q': 'Frage: de \"problem\" 3?', 'a': 'b'}}}", "is in the test as well"),
        ("this is no Python", "cannot be read as Python data"),
    ],
)
def test_worked_examples_that_are_refused(mgsm: Path, content: str, message: str) -> None:
    (mgsm / "exemplars.py").write_text(content)
    with pytest.raises(UserError, match=message):
        MGSMTask(shots=1, languages=("de",)).load(mgsm)


def test_mgsm_scores_by_language(mgsm: Path) -> None:
    task = MGSMTask(shots=0)
    records = task.load(mgsm, limit=4)

    def write(record: MathRecord) -> str:
        number = record.problem.answer.replace(",", ".")
        return f" 1 + 2. Die Antwort lautet {number} Euro." if record.set.language == "de" else "答案是 ３,000。"

    scores = task.score(records, completions(records, write))
    assert list(scores.metrics) == list(MGSM_METRICS) == ["exact_match", "strict_match", "flexible_extract"]
    assert scores.breakdown["by_language"]["de"]["exact_match"] == 100.0
    # To the harness 3.000 is 3000, whatever the language, and ３ is no digit.
    assert scores.breakdown["by_language"]["de"]["strict_match"] == 100.0
    assert scores.breakdown["by_language"]["zh"]["exact_match"] == 25.0
    assert scores.breakdown["by_language"]["zh"]["strict_match"] == 0.0
    assert scores.metrics["exact_match"] == 62.5 and scores.n == 8
    assert scores.protocol["stops"] == {"de": ["Frage:", *ENDS], "zh": ["问题：", *ENDS]}
    assert sorted(scores.protocol["data_sha256"]) == ["mgsm_de.tsv", "mgsm_zh.tsv"]


@pytest.mark.parametrize("language", MGSM_WORDINGS)
def test_a_label_announces_no_result(language: str) -> None:
    wording = MGSM_WORDINGS[language]
    assert answer(f"{wording.answer} 3 + 4\nso 12", wording.phrase, language) == 12
    announced = wording.phrase if language == "bn" else wording.strict.partition("(")[0]
    assert answer(f"{wording.answer} 3\n{announced} 12 of 5", wording.phrase, language) == 12


def test_mgsm_files_and_languages_that_are_refused(mgsm: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(UserError, match="'fr' is none of those in .*de, zh"):
        MGSMTask(shots=0, languages=("fr",)).load(mgsm)
    with pytest.raises(UserError, match="'xx' is not one of bn, de"):
        MGSMTask(shots=0, languages=("xx",)).load(mgsm)
    with pytest.raises(UserError, match="holds no mgsm_<language>.tsv"):
        MGSMTask().load(tmp_path_factory.mktemp("empty"))
    before = (mgsm / "mgsm_de.tsv").read_text()
    for content, message in (
        (before + "one more\t1\n", "has 251 rows, and MGSM has 250"),
        (before.replace("\t", " ", 1), "mgsm_de.tsv:1: is not <question><tab><answer>"),
    ):
        (mgsm / "mgsm_de.tsv").write_text(content)
        with pytest.raises(UserError, match=message):
            MGSMTask(shots=0).load(mgsm)


def test_every_language_of_the_real_mgsm() -> None:
    task = MGSMTask(shots=0)
    records = task.load(real_data("mgsm"))
    assert len(records) == 11 * 250 and {record.set.language for record in records} == set(MGSM_WORDINGS)
    by_phrase = {
        "bn": "উত্তর হল {}।", "de": "Die Antwort lautet {}.", "en": "The answer is {}.", "es": "La respuesta es {}.",
        "fr": "La réponse est {}.", "ja": "答えは{}です。", "ru": "Ответ — {}.", "sw": "Jibu ni {}.",
        "te": "సమాధానం {}.", "th": "คำตอบคือ {}", "zh": "答案是 {}。",
    }  # fmt: skip
    given = completions(records, lambda r: f" 1 + 2 = 3. {by_phrase[r.set.language].format(r.problem.answer)}")
    # The harness looks for an English phrase in Bengali.
    expected = dict.fromkeys(MGSM_METRICS, 100.0) | {"strict_match": pytest.approx(100 * 10 / 11)}
    assert task.score(records, given).metrics == expected
