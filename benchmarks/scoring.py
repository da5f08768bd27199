"""Time of the translation metrics: 1012 hypotheses in each of 204 languages, chrF1, chrF2, chrF++ and BLEU.

    python benchmarks/scoring.py --data FLORES [--languages 204] [--json FILE]

The hypotheses are the sentences of each language, scored against the English ones: as long and as varied as a model's
output, and in every script. `metrics` is sentence statistics and corpus scores; `task` is everything that `calmctl
score flores` does, including standard errors and a row per sentence. Target: 60 seconds on 2 cores, in one process.
`sacrebleu` is sacrebleu's own corpus_score, once per metric, over the first few languages, for comparison.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_builders.benchmarks.flores import read_flores
from data_builders.benchmarks.languages import ENGLISH, LANGUAGES
from evals.flores import FloresTask
from evals.metrics.translation import corpus_scores, sentence_statistics

TARGET_SECONDS = 60
COMPARED = 3


def main() -> None:
    """Measure, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="FLORES-200: the archive or its folder")
    parser.add_argument("--languages", type=int, default=len(LANGUAGES), help="how many, the first of the table")
    parser.add_argument("--json", type=Path, help="also write the results here")
    arguments = parser.parse_args()
    codes = tuple(LANGUAGES)[: arguments.languages]
    sentences = read_flores(arguments.data, codes, always=(ENGLISH,)).sentences
    english = sentences[ENGLISH]["devtest"]

    def score(metric: Callable[[Any, Any], Any], some: tuple[str, ...]) -> None:
        for code in some:
            metric(sentences[code]["devtest"], english)

    task = FloresTask(languages=codes)
    records = task.load(arguments.data)
    completions = {record.id: [record.sentence] for record in records}
    rows = [
        timed("metrics", len(codes), lambda: score(ours, codes)),
        timed("task", len(codes), lambda: task.score(records, completions)),
        timed("sacrebleu", len(codes[:COMPARED]), lambda: score(theirs, codes[:COMPARED])),
    ]
    for row in rows:
        print("  ".join(f"{name}={value}" for name, value in row.items()))
    result = {"target_seconds": TARGET_SECONDS, "cores": os.cpu_count(), "python": platform.python_version()}
    if arguments.json:
        arguments.json.write_text(json.dumps({**result, "rows": rows}, indent=2) + "\n")


def ours(hypotheses: tuple[str, ...], references: tuple[str, ...]) -> dict[str, float]:
    """Score a language with the four metrics from shared statistics."""
    return corpus_scores(sentence_statistics(hypotheses, references))


def theirs(hypotheses: tuple[str, ...], references: tuple[str, ...]) -> list[float]:
    """Score a language with sacrebleu's own functions."""
    from sacrebleu.metrics import BLEU, CHRF

    metrics = (CHRF(beta=1), CHRF(), CHRF(word_order=2), BLEU())
    return [metric.corpus_score(hypotheses, [references]).score for metric in metrics]


def timed(case: str, languages: int, work: Callable[[], Any]) -> dict[str, Any]:
    """Return wall and CPU seconds of `work`, and the wall seconds of all 204 languages at that rate."""
    wall, cpu = time.monotonic(), time.process_time()
    work()
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    row = {"case": case, "languages": languages, "seconds": round(wall, 2), "cpu_seconds": round(cpu, 2)}
    whole = wall * len(LANGUAGES) / languages
    return row | {"seconds_of_204": round(whole, 1), "met": whole <= TARGET_SECONDS}


if __name__ == "__main__":
    main()
