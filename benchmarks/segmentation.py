"""Compare ways to tokenize an anchor's text for an aug with a tokenizer of its own, by what a composition learns.

    python benchmarks/segmentation.py --anchor DIR --aug DIR --task translation --data DIR/tatoeba --json FILE
    python benchmarks/segmentation.py --anchor DIR --aug DIR --task python --data DIR/mbpp.jsonl --json FILE

Composes two pretrained models with different tokenizers and trains the bridges on the same batches with each way:

    own       the text so far is tokenized as a whole; provisional tokens are replaced when the text goes on
    chunks    the text of every anchor token is tokenized alone
    prompt    the prompt as in `own`, the completion as in `chunks`: nothing is replaced. calmctl does not offer this
              way; it is built here for comparison

Reported are bits per UTF-8 byte of held-out completions, end tokens included, and seconds per step (processor time on
one thread). Figures that need no training come first: how many tokens the aug is fed, how many of them are replaced,
and the aug's own bits per byte of held-out completions tokenized in this way. Every training is written to the file as
it proceeds; trainings finished there are not repeated. `--steps 0` trains nothing.

The recipe is made for few steps (see recipe.py).
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from held_out import Held, bits_of_aug, bits_of_composed
from recipe import Recipe
from rows import TASKS, Rows, read_rows
from script import environment
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from calmctl import compose
from calmctl.modeling.bases.sources import quiet_libraries
from calmctl.modeling.tokenizers.own import own_tokenizer
from calmctl.modeling.tokenizers.segmentation import NEVER, Position, Segmenter, Segments, State
from calmctl.training.batches import Batches
from calmctl.training.examples import AugExamples, Examples
from calmctl.training.optimizer import build_optimizer, build_schedule

WAYS = ("own", "chunks", "prompt")


@dataclass(frozen=True)
class Reader:
    """Tokenizes examples for the aug in one of the ways."""

    way: str
    own: Segmenter
    chunks: Segmenter

    def read(self, ids: Sequence[int], prompt_length: int) -> Segments:
        """Return the aug's tokens of one example."""
        if self.way != "prompt":
            return (self.own if self.way == "own" else self.chunks).read(ids)[0]
        history: list[Position] = []
        prompt, _ = self.own.read(ids[:prompt_length], history)
        kept = [place for place, died in enumerate(prompt.died) if died == NEVER]
        before = history[-1].state
        closed = State(before.is_open, before.has_text, before.is_inside or bool(before.pending), before.undecoded)
        history[-1] = Position(closed, len(kept), ())
        rest, _ = self.chunks.read(ids[prompt_length:], history, len(kept))
        return Segments(
            [prompt.ids[place] for place in kept] + rest.ids,
            [prompt.born[place] for place in kept] + rest.born,
            [NEVER] * (len(kept) + len(rest.ids)),
            [*range(len(kept)), *rest.places],
        )

    def with_aug_tokens(self, examples: Examples) -> Examples:
        """Return examples with the aug's tokens."""
        prompts = examples.completion_starts.tolist()
        augs = AugExamples.of(self.read(examples.example(row).tolist(), prompts[row]) for row in range(len(examples)))
        return replace(examples, augs=(augs,))


@dataclass(frozen=True)
class Setting:
    """Two models, a task and how long to train."""

    anchor: str
    aug: str
    rows: Rows
    steps: int
    every: int
    recipe: Recipe

    def measure(self, way: str, seed: int, known: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Train one composition; yield its row of results repeatedly as it grows."""
        tokenizers = [AutoTokenizer.from_pretrained(each) for each in (self.anchor, self.aug)]
        own = own_tokenizer(*tokenizers)
        if own is None:
            raise SystemExit("the two models have the same tokenizer: there is nothing to compare")
        reader = Reader(way, own.segmenter("own"), own.segmenter("chunks"))
        settings = self.recipe.settings(self.steps)
        began = time.perf_counter()
        train, held = (self.rows.examples(part, tokenizers[0], settings) for part in ("train", "held_out"))
        train = reader.with_aug_tokens(train)
        seconds = time.perf_counter() - began
        chosen = [self.rows.held_out[row - 1] for row in held.rows]
        num_bytes = np.asarray([len(row["completion"].encode()) for row in chosen])
        held_out = Held(reader.with_aug_tokens(held), num_bytes, np.asarray([row["group"] for row in chosen]))
        row = {**known, **_fed(train), "segmentation_seconds": round(seconds, 2)}
        bases = [
            AutoModelForCausalLM.from_pretrained(each, dtype=self.recipe.dtype) for each in (self.anchor, self.aug)
        ]
        if "aug_alone" not in row:
            row["aug_alone"] = held_out.per_byte(bits_of_aug(bases[1].eval(), held_out))
        yield {**row, "steps_done": 0}
        if self.steps:
            yield from self._trained(row, bases, tokenizers, train, held_out, seed)

    def _trained(
        self,
        row: dict[str, Any],
        bases: Sequence[PreTrainedModel],
        tokenizers: Sequence[Any],
        train: Examples,
        held: Held,
        seed: int,
    ) -> Iterator[dict[str, Any]]:
        settings, pad_id = self.recipe.settings(self.steps), tokenizers[0].eos_token_id
        torch.manual_seed(seed)
        connections = self.recipe.connections(*bases)
        model = compose(bases[0], bases[1], connections, rotary=True, tokenizers=tokenizers)
        batches = Batches(train, settings, seed, pad_id)
        model.calibrate([batches.collate(np.random.default_rng(seed).choice(len(train), 32))])
        row["bridge_parameters"] = sum(each.numel() for each in model.composition_parameters().values())
        if "anchor_alone" not in row:  # an untrained composition equals its anchor
            row["anchor_alone"] = held.per_byte(bits_of_composed(model, held, pad_id))
        optimizer = build_optimizer(model, settings)
        schedule = build_schedule(settings, optimizer, settings.steps)
        trainable = list(model.composition_parameters().values())
        losses: list[float] = []
        times: list[float] = []
        row |= {"losses": losses, "composed": {}}
        for step, batch in enumerate(batches, 1):
            model.train()
            began = time.process_time()
            with self.recipe.autocast():
                loss = model(**batch, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trainable, settings.grad_clip)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            times.append(time.process_time() - began)
            losses.append(round(loss.item(), 4))
            if step % 10 == 0:
                row |= {"steps_done": step, "seconds_per_step": round(median(times), 3)}
                if step % self.every == 0 or step == settings.steps:
                    bits = bits_of_composed(model, held, pad_id)
                    row["composed"][str(step)] = held.per_byte(bits)
                    row["bits"] = bits.round(2).tolist()
                yield row


def _fed(examples: Examples) -> dict[str, float]:
    """Return the number of tokens fed to the aug per anchor token, and the share of them that is replaced."""
    read = examples.augs[0]
    assert read is not None
    fed = read.columns.shape[1]
    return {
        "aug_tokens_per_anchor_token": round(fed / len(examples.ids), 4),
        "replaced": round(float((read.columns[2] != NEVER).mean()), 4),
    }


def main() -> None:
    """Print a line per training; keep all results in a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anchor", required=True)
    parser.add_argument("--aug", required=True)
    parser.add_argument("--task", choices=sorted(TASKS), required=True)
    parser.add_argument("--data", type=Path, required=True, help="what the task reads, see rows.py")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--every", type=int, default=60, help="steps between two looks at what is held out")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0])
    parser.add_argument("--ways", type=lambda text: text.split(","), default=list(WAYS))
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    quiet_libraries()
    setting = Setting(
        arguments.anchor, arguments.aug, read_rows(arguments.task, arguments.data), arguments.steps, arguments.every,
        Recipe(),
    )  # fmt: skip
    kept = json.loads(arguments.json.read_text()) if arguments.json.exists() else {"results": []}
    kept["environment"] = environment("cpu")
    for seed in arguments.seeds:
        for way in arguments.ways:
            names = [Path(each).name for each in (arguments.anchor, arguments.aug)]
            known = {
                "anchor": names[0], "aug": names[1], "task": arguments.task, "way": way, "seed": seed,
                "steps": arguments.steps,
            }  # fmt: skip
            others = [row for row in kept["results"] if any(row[name] != value for name, value in known.items())]
            same = [row for row in kept["results"] if row not in others]
            if not any(row.get("steps_done") == arguments.steps for row in same):
                for row in setting.measure(way, seed, known | known_already(known, kept["results"])):
                    kept["results"] = [*others, row]
                    arguments.json.write_text(json.dumps(kept, indent=1) + "\n")
                same = [row]
            show(same[0])


def known_already(known: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of the bases alone that earlier trainings have measured."""
    decided_by = {"anchor_alone": ("anchor", "task"), "aug_alone": ("anchor", "aug", "task", "way")}
    return {
        what: row[what]
        for row in results
        for what, names in decided_by.items()
        if what in row and all(row[name] == known[name] for name in names)
    }


def show(row: dict[str, Any]) -> None:
    """Print one training."""
    print(
        f"{row['anchor']} + {row['aug']}, {row['task']}, {row['way']}, seed {row['seed']}: "
        f"{row['aug_tokens_per_anchor_token']:.3f} aug tokens per anchor token, {row['replaced']:.1%} replaced\n"
        f"  bits per byte: aug alone {row['aug_alone']['all']:.3f}",
        end="" if row["steps"] else "\n",
        flush=True,
    )
    if row["steps"]:
        steps = ", ".join(f"{found['all']:.3f} ({step} steps)" for step, found in row["composed"].items())
        anchor, taken = row["anchor_alone"]["all"], row["seconds_per_step"]
        print(f", anchor alone {anchor:.3f}, composed {steps}; {taken:.2f} s a step", flush=True)


if __name__ == "__main__":
    main()
