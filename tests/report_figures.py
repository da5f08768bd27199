"""The figures of made-up folders: each of them only once, so that finding one in a report says where it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

TASKS = {"kv": ["kv"], "ntl": ["flores"], "code": ["humaneval", "codexglue", "text"]}
LANGUAGES = ("lij_Latn", "fur_Latn", "ban_Latn", "szl_Latn", "min_Arab")
NAMES = {"lij_Latn": "Ligurian", "fur_Latn": "Friulian", "ban_Latn": "Balinese", "szl_Latn": "Silesian"}
NOT_REPEATED = ("m_A", "m_B", "m_B_finetuned")


@dataclass(frozen=True)
class Made:
    """A system: its folder, trained parameters, figures in the order of METRICS or chrF1 and bits per byte."""

    run: str
    parameters: int
    figures: tuple[float, ...]
    value: float | None = None


REAL_TEXT = {
    "m_A": Made("aug", 3_210_000, (21.37, 2.1147)),
    "m_B": Made("anchor", 9_870_000, (18.64, 2.2281)),
    "calm": Made("calm", 289_472, (26.93, 1.9036)),
    "random_aug": Made("random_aug", 289_472, (18.71, 2.2193)),
    "lora": Made("lora", 288_100, (24.52, 1.9514)),
    "m_B_finetuned": Made("m_B_finetuned", 9_870_000, (29.88, 1.8425)),
}
METRICS = ("kv_subs", "num_math", "kv_math", "kv_math_direct")
KV = {
    "m_A": Made("aug", 3_210_000, (97.31, 1.17, 0.42, 0.23)),
    "m_B": Made("anchor", 9_870_000, (0.13, 91.62, 0.31, 0.57)),
    "calm": Made("calm", 123_456, (95.74, 90.93, 86.68, 4.36)),
    "random_aug": Made("random_aug", 123_456, (0.91, 89.27, 0.08, 0.64)),
    "dc_subs": Made("dc_subs", 123_456, (94.46, 83.83, 61.25, 2.71)),
    "dc_math": Made("dc_math", 123_456, (0.72, 88.14, 1.59, 7.48)),
}
ABLATIONS = {
    "vanilla_aug": Made("vanilla_aug", 123_456, (0.81, 88.42, 0.38, 1.07)),
    "aug_as_encoder": Made("aug_as_encoder", 123_456, (95.12, 87.66, 82.41, 3.92)),
    "every_2": Made("every_2", 61_728, (93.27, 86.59, 78.13, 3.54), 2),
    "heads_1": Made("heads_1", 123_456, (94.83, 85.71, 81.97, 3.17), 1),
    "share_0.05": Made("share_0.05", 123_456, (62.55, 84.95, 44.76, 2.26), 0.05),
    "share_0.5": Made("share_0.5", 123_456, (96.58, 92.34, 89.07, 4.89), 0.5),
    "lora": Made("lora", 123_457, (1.46, 82.28, 1.93, 2.02)),
    "prefix": Made("prefix", 123_400, (1.35, 81.74, 1.28, 1.84)),
    "further": Made("further", 9_870_000, (92.96, 80.15, 70.52, 5.69)),
}
VALUES = {"share": 0.2, "heads": 2, "connections": 1}
PARTS = {"substitute": ("kv_subs", "kv_math"), "solve_numbers": ("num_math",), "solve_keys": ("kv_math_direct",)}


def accuracies(made: Made, points: float = 0.0) -> dict[str, float]:
    """Return the accuracies of a key-value system, `points` better."""
    return {name: round(min(max(value + points, 0), 100), 2) for name, value in zip(METRICS, made.figures, strict=True)}


def metrics_of(
    experiment: str, task: str, key: str, made: Made, points: float, languages: Sequence[str]
) -> dict[str, Any]:
    """Return the metrics of a model on a task, `points` better than its figures."""
    if experiment == "kv":
        count, (metrics, breakdown) = 500, _kv(made, points)
    elif experiment == "ntl":
        count, (metrics, breakdown) = 100 * len(languages), _flores(key, made, points, languages)
    else:
        count, (metrics, breakdown) = 164, _code(made, points)[task]
    return {
        "task": task,
        "task_version": 1,
        "metrics": metrics,
        "n": count,
        "breakdown": breakdown,
        "protocol": {"format": f"{task}-format", "shots": 5 if experiment == "ntl" else 0, "decoding": "greedy"},
        "data": {"source": f"/somewhere/{task}", "limit": None},
    }


def _kv(made: Made, points: float) -> tuple[dict[str, Any], dict[str, Any]]:
    slices = {str(count): {"n": 125, **accuracies(made, points + 3.0 * (4.5 - count))} for count in range(3, 7)}
    changes = (("held_out", 0.0), ("mixed", 0.7), ("held_in", 1.9))
    strata = {name: {"n": 500, **accuracies(made, points + extra)} for name, extra in changes}
    return accuracies(made, points), {"by_num_operands": slices, "by_stratum": strata, "by_num_held_in": {}}


def _flores(key: str, made: Made, points: float, languages: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Each language is a point apart from the next; the composition gains most where m_B is worst."""
    chrf, bits = made.figures[0] + points, made.figures[1] - points / 100
    middle = (len(languages) - 1) / 2
    steps = {code: (place - middle) / max(middle, 1) for place, code in enumerate(languages)}
    slope = {"m_B": 6.0, "calm": 3.5}.get(key, 5.0)
    by_language = {
        code: {"name": NAMES.get(code, code), "n": 100, "chrf1": chrf + slope * step} for code, step in steps.items()
    }
    by_bits = {code: round(bits - slope * step / 20, 4) for code, step in steps.items()}
    return {"chrf1": chrf, "bits_per_byte": round(bits, 4)}, {"by_language": by_language, "bits_per_byte": by_bits}


def _code(made: Made, points: float) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    score, bits = made.figures[0] + points, made.figures[1] - points / 100
    rows = {"python": {"n": 60, "chrf1": score + 1, "smoothed_bleu4": 9.5}}
    rows["ruby"] = {"n": 40, "chrf1": score - 1, "smoothed_bleu4": 7.5}
    return {
        "humaneval": ({"pass@1": 0.0, "bits_per_byte": bits - 0.5}, {"statuses": {"failed": 164}}),
        "codexglue": ({"chrf1": score, "smoothed_bleu4": 8.5}, {"by_language": rows}),
        "text": ({"bits_per_byte": bits}, {"bits_per_byte": {"python": bits}}),
    }


def predictions(experiment: str, task: str, key: str) -> list[dict[str, Any]]:
    """Return predictions: of key-value arithmetic two of three right, of other tasks with scores that fall."""
    if experiment == "kv":
        return [_answer(number, part, key) for number in range(12) for part in PARTS]
    rows: list[dict[str, Any]] = []
    for number in range(20):
        group = LANGUAGES[number % len(LANGUAGES)] if task == "flores" else "HumanEval"
        row = {"id": f"{group}/{number}", "prompt": f"question {number} of {task}?", "reference": f"reference {number}"}
        answer = f"{key} says {number}"
        scores = {"sentence_chrf1": 90.0 - 4 * number} if task != "humaneval" else {"correct": number == 0}
        rows.append({**row, "completion": f" {answer}\n", "answer": answer, **scores})
    return rows


def _answer(number: int, part: str, key: str) -> dict[str, Any]:
    right = (key == "calm" and number % 3 != 0) or (key == "m_B" and part == "solve_numbers")
    return {
        "id": f"test-{number:03d}/{part}",
        "prompt": "substitute: abc + de - fgh =" if part == "substitute" else f"solve: {part} =",
        "completion": " 12 + 07 - 33 = -014" if right else f" {key} guess = {number}",
        "reference": " 12 + 07 - 33 = -014",
        "correct": right,
        "metrics": dict.fromkeys(PARTS[part], right),
        "num_operands": 3 + number % 4,
        "stratum": "held_out" if number < 10 else "held_in",
    }


def training_log(run: str) -> list[dict[str, Any]]:
    """Return a log whose loss falls; m_B's has a curriculum."""
    rows: list[dict[str, Any]] = []
    for index in range(1, 61):
        share = index / 60
        row = {"step": 25 * index, "loss": 2.9 * 0.02**share, "learning_rate": 0.01, "tokens_per_second": 4e4}
        row |= {"seconds": 2.0 * index, "exact_match": round(share**0.5 * 0.97, 4)}
        rows.append(row | ({"num_operands": min(6, 2 + index // 8)} if run == "anchor" else {}))
    return [*rows, {"step": 1500, "validation_loss": 0.4, "seconds": 121.0}]
