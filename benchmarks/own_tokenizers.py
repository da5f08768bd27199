"""The cost of an aug with a tokenizer of its own.

    python benchmarks/own_tokenizers.py [--quick] [--device cuda] [--preset llama] [--json FILE]
    python benchmarks/own_tokenizers.py --anchor DIR --aug DIR [--text FILE] ...      # a real pair, in bfloat16

The same two models are composed twice: with one tokenizer, as if the aug took the anchor's tokens, and with two. Both
read the same text, by default this project's docs. Without a pair, models have random weights (see shapes.py), and the
tokenizers are trained on the text, the aug's with a smaller vocabulary and single digits. Times are taken in turns (see
measure.py). The aug's time is taken inside the model: its forward pass and the bridges' keys and values, masks
included.

    decode     decoding step by step with a cache
    train      a training step on a batch that contains the aug's tokens (as `calmctl compose` trains)
    unaided    a training step in which the model itself makes the aug's tokens

    per token   seconds per aug token, two tokenizers over one; tokens that are replaced later count
    whole       seconds per step, two tokenizers over one, beside the number of aug tokens per anchor token
    cutting     share of a step that goes into turning anchor tokens into aug tokens (target at most 3 percent of a
                training step). In `train` it includes the time added to collating a batch; in brackets, the time spent
                once, before the training, on the examples of a step (a training reads each of them several times)
"""

import json
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from measure import clock_of, interleaved, ratio, seconds
from script import conclude, options
from shapes import PRESETS, base
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from calmctl import ComposedModelForCausalLM, compose
from calmctl.modeling.bases.sources import quiet_libraries
from calmctl.modeling.tokenizers.aug_tokens import AugTokens
from calmctl.modeling.tokenizers.segmentation import NEVER
from calmctl.training.aug_examples import segmented
from calmctl.training.batches import Batches
from calmctl.training.examples import Examples
from calmctl.training.settings import TrainSettings

DOCUMENTS = Path(__file__).parent.parent / "docs"
Row = dict[str, Any]


def tokenizer_of(text: str, size: int, lone_digits: bool) -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer trained on a text."""
    tokenizer = Tokenizer(models.BPE())
    split = [pre_tokenizers.Digits(individual_digits=True)] if lone_digits else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, special_tokens=["</s>"], show_progress=False
    )
    tokenizer.train_from_iterator([text], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>")


class Timed:
    """A composed model that records what its aug costs.

    Attributes:
        log: for every run, seconds of reading, seconds of cutting and tokens read.
    """

    def __init__(self, model: ComposedModelForCausalLM, device: str) -> None:
        self.model, self.device = model, device
        self.log: list[tuple[float, float, int]] = []
        self._taken = {"reading": 0.0, "cutting": 0.0, "tokens": 0}
        decoder = model.model
        decoder._read_shared = self._timed("reading", decoder._read_shared)  # type: ignore[method-assign]
        decoder._read_own = self._timed("reading", decoder._read_own)  # type: ignore[method-assign]
        decoder._segmented = self._timed("cutting", decoder._segmented)  # type: ignore[method-assign]

    def run(self, work: Callable[[ComposedModelForCausalLM], object]) -> None:
        """Run `work` on the model and log the aug's share."""
        work(self.model)
        self.log.append((self._taken["reading"], self._taken["cutting"], int(self._taken["tokens"])))
        self._taken = dict.fromkeys(self._taken, 0)

    def _timed(self, what: str, method: Callable[..., Any]) -> Callable[..., Any]:
        clock = clock_of(self.device)

        def timed(*arguments: Any) -> Any:
            began = clock()
            result = method(*arguments)
            if self.device != "cpu":
                torch.cuda.synchronize()
            self._taken[what] += clock() - began
            read = arguments[2]
            if isinstance(read, AugTokens):
                self._taken["tokens"] += int((read.born[:, read.num_columns - read.num_new :] != NEVER).sum())
            elif what == "reading":
                self._taken["tokens"] += read.ids.numel()
            return result

        return timed


@dataclass(frozen=True)
class Pair:
    """Two models, their tokenizers and a text.

    Attributes:
        every: tap every `every`-th aug layer.
        context, shape: tokens before decoding; (batch, seq) of a training step.
    """

    models: Sequence[PreTrainedModel]
    tokenizers: Sequence[PreTrainedTokenizerBase]
    text: str
    every: int
    context: int
    shape: tuple[int, int]
    device: str
    rounds: int

    @classmethod
    def of_random(cls, preset_name: str, device: str, text: str, rounds: int) -> "Pair":
        """Return random models with tokenizers trained on the text."""
        preset = PRESETS[preset_name]
        size = preset.vocabularies[0]
        tokenizers = [tokenizer_of(text, min(size, 8000), False), tokenizer_of(text, min(size, 4000) * 3 // 4, True)]
        models = [base(preset, role, size, "float32", device, seed) for seed, role in enumerate(("anchor", "aug"))]
        return cls(models, tokenizers, text, preset.every, preset.context // 2, preset.train_shape, device, rounds)

    @classmethod
    def of_real(cls, names: Sequence[str], device: str, text: str, rounds: int) -> "Pair":
        """Return pretrained models."""
        models = [AutoModelForCausalLM.from_pretrained(each, dtype=torch.bfloat16).to(device).eval() for each in names]
        tokenizers = [AutoTokenizer.from_pretrained(each) for each in names]
        return cls(models, tokenizers, text, 4, 256, (4, 64), device, rounds)

    def composed(self) -> dict[str, Timed]:
        """Return the composition with one tokenizer and that with two."""
        ours, theirs = self.tokenizers
        both = {"one": [ours, ours], "two": [ours, theirs]}
        return {
            name: Timed(
                compose(*self.models, every=self.every, zero_init=False, tokenizers=pair).to(self.models[0].dtype),
                self.device,
            )
            for name, pair in both.items()
        }

    def ids(self) -> list[int]:
        """Return the anchor's tokens of the text."""
        return self.tokenizers[0](self.text, add_special_tokens=False)["input_ids"]


def decoding(pair: Pair, batch: int, steps: int) -> Row:
    """Decode the text itself, token by token, with new tokens in every round."""
    models, ids = pair.composed(), pair.ids()
    starts = [len(ids) * row // (batch + 1) for row in range(batch)]  # evenly spaced
    rows = [ids[start : start + pair.context + (pair.rounds + 1) * steps] for start in starts]
    length = min(map(len, rows))
    tokens = torch.tensor([row[:length] for row in rows], device=pair.device)
    caches = {name: timed.model.new_cache() for name, timed in models.items()}
    reached = dict.fromkeys(models, pair.context)
    with torch.no_grad():
        for name, timed in models.items():
            timed.run(lambda model, name=name: model(tokens[:, : pair.context], past_key_values=caches[name]))
            timed.log.clear()

    @torch.no_grad()
    def decode(name: str, model: ComposedModelForCausalLM) -> None:
        for place in range(reached[name], reached[name] + steps):
            model(tokens[:, place : place + 1], past_key_values=caches[name], use_cache=True)
        reached[name] += steps

    return {"case": "decode", "batch": batch} | _compared(pair, models, decode, batch * steps)


def training(pair: Pair, is_aided: bool) -> Row:
    """Train bridges on rows of the text, with new rows in every round."""
    models, (batch, width), ids = pair.composed(), pair.shape, pair.ids()
    count = len(ids) // width
    starts = np.arange(count + 1) * width
    plain = Examples(
        np.asarray(ids[: starts[-1]], np.int32), starts, np.ones(count, np.int32), {}, np.arange(count), {}
    )
    settings = TrainSettings(batch_size=batch)
    segmenter = models["two"].model.model.segmenters[0]
    assert segmenter is not None
    fresh = pickle.loads(pickle.dumps(segmenter))  # a copy with an empty cache
    began = time.process_time()
    read = replace(plain, augs=(segmented(plain, fresh),))
    once = (time.process_time() - began) / count * batch
    sources = {
        "one": Batches(plain, settings, 0, 0),
        "two": Batches(read if is_aided else plain, settings, 0, 0),
    }
    optimizers = {}
    for name, timed in models.items():
        timed.model.train()
        optimizers[name] = torch.optim.AdamW(timed.model.composition_parameters().values(), lr=1e-5)
    drawn = {name: iter(np.random.default_rng(0).permutation(count).reshape(-1, 1)) for name in models}
    collating: dict[str, list[float]] = {name: [] for name in models}

    def step(name: str, model: ComposedModelForCausalLM) -> None:
        rows = np.concatenate([next(drawn[name]) for _ in range(batch)])
        began = time.process_time()
        found = sources[name].collate(rows)
        collating[name].append(time.process_time() - began)
        aug_tokens = found.pop("aug_tokens", None)
        found = {key: value.to(pair.device) for key, value in found.items()}
        model(**found, aug_tokens=aug_tokens, use_cache=False).loss.backward()
        optimizers[name].step()
        optimizers[name].zero_grad()

    row = {"case": "train" if is_aided else "unaided"} | _compared(pair, models, step, batch * width)
    if is_aided:
        added = median(collating["two"][1:]) - median(collating["one"][1:])
        row["cutting"] = round(max(added, 0.0) / row["seconds"]["two"] + row["cutting"], 4)
        row["cutting_beforehand"] = round(once / row["seconds"]["two"], 4)
    return row


def _compared(
    pair: Pair, models: dict[str, Timed], work: Callable[[str, ComposedModelForCausalLM], object], num_tokens: int
) -> Row:
    """Return the cost of `work` with two tokenizers relative to one.

    Args:
        num_tokens: anchor tokens that it reads in a round.
    """
    variants = {
        name: lambda name=name, timed=timed: timed.run(lambda model: work(name, model))
        for name, timed in models.items()
    }
    times = interleaved(variants, pair.rounds, pair.device)
    logs = {name: timed.log[-pair.rounds :] for name, timed in models.items()}
    per_token = {name: [reading / tokens for reading, _, tokens in log] for name, log in logs.items()}
    cutting = [part / whole for (_, part, _), whole in zip(logs["two"], times["two"], strict=True)]
    return {
        "per_token": round(ratio(per_token, "two", "one"), 3),
        "whole": round(ratio(times, "two", "one"), 3),
        "aug_tokens_per_anchor_token": round(sum(tokens for *_, tokens in logs["two"]) / num_tokens / pair.rounds, 3),
        "cutting": round(median(cutting), 4),
        "seconds": seconds(times),
    }


def run(pair: Pair, quick: bool) -> Iterator[Row]:
    """Run the cases."""
    for batch in (1, 2) if quick else (1, 8):
        yield decoding(pair, batch, 4 if quick else 8)
    for is_aided in (True, False):
        yield training(pair, is_aided)


def main() -> None:
    """Print a table; write it as JSON when asked."""
    parser = options(__doc__)
    parser.add_argument("--anchor", help="a pretrained model, with --aug")
    parser.add_argument("--aug")
    parser.add_argument("--text", type=Path)
    parser.add_argument("--rounds", type=int, default=6)
    arguments = parser.parse_args()
    quiet_libraries()
    files = [arguments.text] if arguments.text else sorted(DOCUMENTS.glob("*.md"))
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    rounds = 2 if arguments.quick else arguments.rounds
    if arguments.anchor:
        pair = Pair.of_real([arguments.anchor, arguments.aug], arguments.device, text, rounds)
        name = f"{Path(arguments.anchor).name} + {Path(arguments.aug).name}"
    else:
        name = "quick" if arguments.quick else arguments.preset
        pair = Pair.of_random(name, arguments.device, text, rounds)
    kept = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.exists() else {"results": []}
    rows = [row for row in kept["results"] if row["models"] != name]
    print(f"{'models':<20}{'case':<9}{'batch':>6}{'aug tokens':>12}{'per token':>11}{'whole':>8}{'cutting':>9}")
    for row in run(pair, arguments.quick):
        rows.append({"models": name, **row})
        before = f" ({row['cutting_beforehand']:.1%})" if "cutting_beforehand" in row else ""
        print(
            f"{name:<20}{row['case']:<9}{row.get('batch', ''):>6}{row['aug_tokens_per_anchor_token']:>12.2f}"
            f"{row['per_token']:>11.2f}{row['whole']:>8.2f}{row['cutting']:>9.1%}{before}",
            flush=True,
        )
    conclude(arguments, rows)


if __name__ == "__main__":
    main()
