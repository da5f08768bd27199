"""The translation metrics: sacrebleu's counts and scores to the last digit, and modules that need no network."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF

from data_builders.benchmarks.flores import read_flores
from data_builders.errors import UserError
from evals.metrics.loading import load_metric
from evals.metrics.translation import (
    METRICS,
    bootstrap_scores,
    corpus_scores,
    sentence_chrf1,
    sentence_statistics,
    signatures,
)
from tests.real_data import real_data

OPTIONS = {
    "chrf1": ["-m", "chrf", "--chrf-beta", "1"],
    "chrf2": ["-m", "chrf"],
    "chrf++": ["-m", "chrf", "--chrf-word-order", "2"],
    "bleu": ["-m", "bleu"],
}
PIECES = [
    "the", "cat's", "(mat)", "sat.", "1,000.5", "x-y", "日本語", "été", "🙂", "&amp;", "a\u0301", '"so"', "..", "-",
    "\u00a0", "no",
]  # fmt: skip


def texts(seed: int, rows: int = 200) -> list[str]:
    rng = random.Random(seed)
    return [rng.choice([" ", "", "  "]).join(rng.choices(PIECES, k=rng.randint(1, 12))) for _ in range(rows)]


def worsened(sentences: list[str], seed: int = 0) -> list[str]:
    """Return the sentences with words lost, swapped and doubled, and some of them gone."""
    rng = random.Random(seed)
    result = []
    for sentence in sentences:
        words = [word for word in sentence.split() for _ in range(rng.choice([0, 1, 1, 1, 1, 2]))]
        if len(words) > 3 and rng.random() < 0.5:
            words[1], words[2] = words[2], words[1]
        result.append("" if rng.random() < 0.02 else " ".join(words))
    return result


def command_line(folder: Path, hypotheses: list[str], references: list[str]) -> dict[str, str]:
    """Return what sacrebleu's own command prints of each metric, with 12 decimals."""
    for name, lines in (("hypotheses", hypotheses), ("references", references)):
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", str(folder / "references"), "-i", str(folder / "hypotheses")]
    command += ["-b", "-w", "12"]
    return {
        name: subprocess.run([*command, *options], capture_output=True, text=True, check=True).stdout.strip()
        for name, options in OPTIONS.items()
    }


def printed(scores: dict[str, float]) -> dict[str, str]:
    return {name: f"{score:.12f}" for name, score in scores.items()}


def test_counts_are_those_of_sacrebleu_sentence_by_sentence() -> None:
    references = texts(0) + ["same", "", "a", "."]
    hypotheses = texts(1) + ["same", "x", "", "."]
    statistics = sentence_statistics(hypotheses, references)
    chrf = CHRF(word_order=2)._extract_corpus_statistics(hypotheses, [references])
    bleu = BLEU()._extract_corpus_statistics(hypotheses, [references])
    assert np.array_equal(statistics, np.concatenate([chrf, bleu], axis=1))
    expected = [CHRF(beta=1).sentence_score(h, [r]).score for h, r in zip(hypotheses, references, strict=True)]
    assert sentence_chrf1(statistics) == expected


@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_sacrebleus_functions(seed: int) -> None:
    references = texts(seed)
    hypotheses = worsened(references, seed)
    metrics = (CHRF(beta=1), CHRF(), CHRF(word_order=2), BLEU())
    expected = [metric.corpus_score(hypotheses, [references]).score for metric in metrics]
    assert list(corpus_scores(sentence_statistics(hypotheses, references)).values()) == expected


def test_scores_equal_sacrebleus_command(tmp_path: Path) -> None:
    references = [" ".join(text.split()) or "none" for text in texts(5)]
    hypotheses = worsened(references, 5)
    assert printed(corpus_scores(sentence_statistics(hypotheses, references))) == command_line(
        tmp_path, hypotheses, references
    )


def test_scores_equal_sacrebleus_command_on_real_sentences(tmp_path: Path) -> None:
    sentences = read_flores(real_data("flores200"), ("scn_Latn", "zho_Hans", "eng_Latn")).sentences
    english = list(sentences["eng_Latn"]["devtest"])
    for hypotheses in (
        worsened(english),
        list(sentences["scn_Latn"]["devtest"]),
        list(sentences["zho_Hans"]["devtest"]),
    ):
        scores = corpus_scores(sentence_statistics(hypotheses, english))
        assert printed(scores) == command_line(tmp_path, hypotheses, english)


def test_a_text_against_itself_scores_100_and_nothing_scores_0() -> None:
    references = [text for text in texts(2) if text.strip()]
    same = corpus_scores(sentence_statistics(references, references))
    assert {name: round(score, 9) for name, score in same.items()} == dict.fromkeys(METRICS, 100.0)
    empty = sentence_statistics([""] * len(references), references)
    assert corpus_scores(empty) == dict.fromkeys(METRICS, 0.0)
    assert sentence_chrf1(empty) == [0.0] * len(references)


def test_signatures_tell_chrf1_from_chrf2() -> None:
    described = signatures()
    assert list(described) == list(METRICS)
    assert described["chrf1"]["signature"] == described["chrf2"]["signature"]
    assert [described[name]["name"] for name in METRICS] == ["chrF1", "chrF2", "chrF2++", "BLEU"]
    assert [described[name].get("beta") for name in METRICS] == [1, 2, 2, None]
    assert "tok:13a" in described["bleu"]["signature"]


def test_bootstrap_errors_shrink_with_the_corpus_and_repeat() -> None:
    references = texts(3, 400)
    statistics = sentence_statistics(worsened(references, 3), references)
    few, many = (bootstrap_scores(part)["chrf1"].std() for part in (statistics[:25], statistics))
    assert 0 < many < few / 2
    assert np.array_equal(bootstrap_scores(statistics)["bleu"], bootstrap_scores(statistics)["bleu"])
    assert abs(bootstrap_scores(statistics)["chrf1"].mean() - corpus_scores(statistics)["chrf1"]) < 3 * many


def test_uneven_or_empty_corpora_are_refused() -> None:
    with pytest.raises(UserError, match="2 hypotheses for 1 references"):
        sentence_statistics(["a", "b"], ["a"])
    with pytest.raises(UserError, match="0 hypotheses for 0"):
        sentence_statistics([], [])


@pytest.mark.slow
def test_modules_load_and_compute_without_network() -> None:
    code = """
import json, socket
def refuse(*arguments, **options):
    raise OSError("no network here")
socket.socket.connect = socket.getaddrinfo = refuse
from evals.metrics.loading import load_metric
texts = {"predictions": ["a b c d e #### 5", "six"], "references": ["a b c d f", "6"]}
scores = {name: load_metric(name).compute(**texts) for name in ("translation", "smoothed_bleu")}
scores["number_match"] = load_metric("number_match").compute(predictions=texts["predictions"], references=["5.0", "6"])
print(json.dumps(scores))
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    scores = json.loads(answer.stdout)
    expected = corpus_scores(sentence_statistics(["a b c d e #### 5", "six"], ["a b c d f", "6"]))
    assert {name: scores["translation"][name] for name in METRICS} == expected
    assert scores["translation"]["signatures"]["chrf1"]["beta"] == 1
    assert scores["number_match"] == {"exact_match": 50.0}
    with pytest.raises(UserError, match="'bleurt' is not one of number_match, smoothed_bleu, translation"):
        load_metric("bleurt")


def test_the_scoring_benchmark_reports_every_case(tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "scoring.py"
    data = real_data("flores200")
    command = [sys.executable, script, "--data", data, "--languages", "1", "--json", tmp_path / "scoring.json"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = json.loads((tmp_path / "scoring.json").read_text())["rows"]
    assert [row["case"] for row in rows] == ["metrics", "task", "sacrebleu"] and len(printed.splitlines()) == 3
