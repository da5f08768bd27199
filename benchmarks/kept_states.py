"""Speed-up from keeping the hidden states that training of bridges does not change (`train.keep_states`).

    python benchmarks/kept_states.py --anchor MODEL --aug MODEL --data D_C.jsonl [--batch-tokens 900] [--json FILE]

Two trainings of one composition take turns on the same batches: one computes everything in every step, the other has
kept the states of its augs and of its anchor below the first bridge. Reported are how many times as fast a step with
kept states is, how long it takes to compute the states (in epochs without them), their bytes per anchor token, and the
largest difference between the losses of the two, which should be the same.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from measure import cpu_name, interleaved, ratio, seconds

from calmctl import compose
from calmctl.modeling.bases.sources import load_tokenizer, quiet_libraries
from calmctl.training.aug_examples import with_aug_tokens
from calmctl.training.batches import Batches
from calmctl.training.examples import load_examples
from calmctl.training.settings import TrainSettings
from calmctl.training.state_store import bytes_of_states, keep_states


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anchor", required=True)
    parser.add_argument("--aug", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--batch-tokens", type=int, default=900)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16"])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(1)
    settings = TrainSettings(batch_tokens=arguments.batch_tokens, on_long_example="drop", sampling="epochs")
    model = compose(arguments.anchor, arguments.aug, zero_init=False)
    examples = load_examples(arguments.data, load_tokenizer(arguments.anchor), settings, 2048)
    drawn = [Batches(examples, settings, 0, 0).rows(step) for step in range(arguments.batches)]
    few = examples.subset(torch.tensor([int(row) for rows in drawn for row in rows]).unique().numpy())
    few = with_aug_tokens(few, model.model.segmenters, None)
    plain, kept = Batches(few, settings, 0, 0), Batches(few, settings, 0, 0)
    kept.store = keep_states(model, kept, arguments.precision)
    steps = [plain.rows(step) for step in range(arguments.batches)]
    found = {"plain": [plain.collate(rows) for rows in steps], "kept": [kept.collate(rows) for rows in steps]}
    losses: dict[str, list[float]] = {}

    def train(name: str) -> None:
        model.train()
        losses[name] = []
        for batch in found[name]:
            with torch.autocast("cpu", torch.bfloat16, enabled=arguments.precision == "bf16"):
                loss = model(**batch, use_cache=False).loss
            loss.backward()
            losses[name].append(loss.item())
        model.zero_grad()

    variants = {
        "plain": lambda: train("plain"),
        "kept": lambda: train("kept"),
        "find": lambda: keep_states(model, plain, arguments.precision),
    }
    times = interleaved(variants, arguments.rounds, "cpu")
    result: dict[str, Any] = {
        "anchor": Path(arguments.anchor).name,
        "aug": Path(arguments.aug).name,
        "precision": arguments.precision,
        "times_as_fast": round(ratio(times, "plain", "kept"), 3),
        "finding_takes_epochs": round(ratio(times, "find", "plain"), 3),
        "bytes_per_token": round(bytes_of_states(model, few) / int(few.starts[-1])),
        "largest_difference_of_losses": max(abs(a - b) for a, b in zip(*losses.values(), strict=True)),
        "seconds": seconds(times),
        "processor": cpu_name(),
    }
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
