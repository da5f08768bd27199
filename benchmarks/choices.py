"""Time of likelihoods of choices beside lm-evaluation-harness: the same pairs, the same model, batches of one size.

    python benchmarks/choices.py --model MODEL --data LLM-Adapters/dataset [--sets ARC-Easy piqa] [--rows 40]

The pairs are the contexts and choices of `calmctl eval commonsense options.protocol=likelihood`. `ratio` is our time
divided by that of the harness's `HFLM.loglikelihood`, tokenization included, the median of rounds in which both take
turns; `apart` is the largest difference between two log-likelihoods. Target: a ratio of at most 1.
Needs the extra `lm-eval`.
"""

import argparse
import json
import math
import platform
from pathlib import Path

import torch
from measure import interleaved, ratio, seconds
from transformers import AutoModelForCausalLM, AutoTokenizer

from calmctl.inference.generation import Engine
from calmctl.inference.settings import Decoding
from evals.reasoning import CommonsenseTask

TARGET = 1.0


def main() -> None:
    """Measure every set, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=["boolq", "piqa", "winogrande", "ARC-Easy", "openbookqa"])
    parser.add_argument("--rows", type=int, default=40, help="questions of each set")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="also write the results here")
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=arguments.dtype).to(arguments.device).eval()
    rows = [measured(model, name, arguments) for name in arguments.sets]
    for row in rows:
        print("  ".join(f"{name}={value}" for name, value in row.items()))
    result = {"target": TARGET, "machine": platform.processor(), "torch": torch.__version__, "rows": rows}
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def measured(model: torch.nn.Module, name: str, arguments: argparse.Namespace) -> dict[str, object]:
    """Return the figures of one set."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    task = CommonsenseTask(sets=(name,), protocol="likelihood")
    asked = task.requests(task.load(arguments.data, arguments.rows))
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=arguments.batch_size)
    pairs = [(request.prompt, request.reference) for request in asked]
    instances = [Instance("loglikelihood", {}, pair, place) for place, pair in enumerate(pairs)]
    found: dict[str, list[float]] = {}

    def ours() -> None:
        engine = Engine(model, tokenizer, Decoding(batch_size=arguments.batch_size))
        bits = dict(engine.bits_of(*zip(*pairs, strict=True)))
        found["ours"] = [-bits[place] * math.log(2) for place in range(len(pairs))]

    def theirs() -> None:
        found["theirs"] = [likelihood for likelihood, _ in harness.loglikelihood(instances, disable_tqdm=True)]

    times = interleaved({"ours": ours, "theirs": theirs}, arguments.rounds, arguments.device)
    apart = max(abs(one - other) for one, other in zip(found["ours"], found["theirs"], strict=True))
    told = {name: round(value, 2) for name, value in seconds(times).items()}
    return {"set": name, "pairs": len(pairs), "ratio": round(ratio(times, "ours", "theirs"), 3), "apart": apart, **told}


if __name__ == "__main__":
    main()
