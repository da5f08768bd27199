"""What a composed model costs, as ratios to its parts: time, memory, growth.

    python benchmarks/composition.py [--quick] [--device cuda] [--preset qwen2] [--json FILE] [--only decode,...]

Random weights, realistic shapes (see shapes.py). Every figure is a ratio of measurements that take turns in one process
(see measure.py), except peak memory, which is measured in a fresh process per side. Bridges have the bases' dtype.

    decode     one cached step of the composed model over the anchor's own step + the aug's own step
    prefill    likewise for a prompt, with logits of the last position only, as `generate` asks for
    train      one step of training the bridges over one step of training all of the anchor; AdamW (fused) in both
    memory     peak memory of those two steps, weights included
    floor      a training step over the sum of its necessary parts, each measured alone: the aug's forward without head,
               graph or untapped layers; the anchor's forward and its backward to the first connection (inputs only);
               the bridges' forward and backward. The optimizer's step is not part of the floor
    growth     tensors left over after 1,000 decoding steps and a reset of the cache (objects and memory beside them)
    augs       time that each of n augs adds to the anchor's, over the time that a single aug adds
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from measure import in_fresh_process, interleaved, live_objects, peak_bytes, ratio, resident_bytes, seconds
from script import conclude, options
from shapes import PRESETS, Preset, base, composed
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from calmctl import ComposedModelForCausalLM
from calmctl.modeling.layers import decoder_layers, layer_output, with_layer_output
from calmctl.modeling.views import first_layers

TARGETS = {"decode": 1.05, "prefill": 1.05, "train": 0.75, "memory": 0.60, "floor": 1.30, "growth": 0, "augs": 1.15}
SHARES = {"all": 1.0, "quarter": 0.25}
Row = dict[str, Any]
Rows = Iterator[Row]


@dataclass(frozen=True)
class Setting:
    """One vocabulary size and dtype of a preset, on one device."""

    preset_name: str
    device: str
    vocabulary: int
    dtype: str

    @property
    def preset(self) -> Preset:
        """Return the shapes."""
        return PRESETS[self.preset_name]

    @property
    def quick(self) -> bool:
        """Return whether shapes are tiny, only to see that the benchmark runs."""
        return self.preset_name == "quick"

    def bases(self, num_augs: int = 1) -> tuple[PreTrainedModel, list[PreTrainedModel]]:
        """Return an anchor and augs."""
        anchor, *augs = (
            base(self.preset, "aug" if seed else "anchor", self.vocabulary, self.dtype, self.device, seed)
            for seed in range(1 + num_augs)
        )
        return anchor, augs

    def ids(self, batch: int, length: int) -> Tensor:
        """Return random token ids (batch, length)."""
        return torch.randint(0, self.vocabulary, (batch, length), device=self.device)

    def training_batch(self, share: str) -> dict[str, Tensor]:
        """Return ids and labels (batch, seq), with labels on the last `share` of every row only."""
        ids = self.ids(*self.preset.train_shape)
        labels = ids.clone()
        labels[:, : int(ids.shape[1] * (1 - SHARES[share]))] = -100
        return {"input_ids": ids, "labels": labels}

    def row(self, case: str, value: float, times: dict[str, list[float]] | None = None, **details: Any) -> Row:
        """Return one row of results, with the target."""
        row = {"case": case, "dtype": self.dtype, "vocabulary": self.vocabulary, **details, "value": round(value, 3)}
        row |= {"target": TARGETS[case], "met": value <= TARGETS[case]}
        return row | ({"seconds": seconds(times)} if times else {})


def inference(setting: Setting) -> Rows:
    """Measure decoding steps and prefill."""
    anchor, augs = setting.bases()
    models = {"composed": composed(setting.preset, anchor, *augs), "anchor": anchor, "aug": augs[0]}
    for batch in (1, 2) if setting.quick else (1, 8):
        steps = {name: _decoding(setting, model, batch) for name, model in models.items()}
        times = interleaved(steps, 2 if setting.quick else 12, setting.device)
        yield setting.row("decode", ratio(times, "composed", "anchor", "aug"), times, batch=batch)
    times = interleaved(_prefills(setting, models), 2 if setting.quick else 5, setting.device)
    yield setting.row("prefill", ratio(times, "composed", "anchor", "aug"), times, batch=1)


def _decoding(setting: Setting, model: PreTrainedModel, batch: int) -> Callable[[], object]:
    """Return a function that decodes one more token; the cache starts with `context` tokens."""
    context = setting.preset.context
    cache = model.new_cache() if isinstance(model, ComposedModelForCausalLM) else DynamicCache(config=model.config)
    with torch.no_grad():
        model(setting.ids(1, context), past_key_values=cache, use_cache=True, logits_to_keep=1)
    cache.batch_repeat_interleave(batch)
    ids = setting.ids(batch, 1)

    @torch.no_grad()
    def step() -> None:
        mask = torch.ones(batch, cache.get_seq_length() + 1, dtype=torch.long, device=setting.device)
        model(ids, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1)

    return step


def _prefills(setting: Setting, models: dict[str, PreTrainedModel]) -> dict[str, Callable[[], object]]:
    """Return functions that read a prompt; bridges are folded once for all prompts, as in a generation of many."""
    ids = setting.ids(1, setting.preset.context)
    mask = torch.ones_like(ids)
    folded = {
        name: {
            (aug, place): bridge.folded() for aug, row in enumerate(model.bridges) for place, bridge in enumerate(row)
        }
        for name, model in models.items()
        if isinstance(model, ComposedModelForCausalLM)
    }

    @torch.no_grad()
    def run(name: str, model: PreTrainedModel) -> object:
        cache = None
        if isinstance(model, ComposedModelForCausalLM):
            cache = model.new_cache()
            cache.folded = folded[name]
        return model(ids, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1)

    return {name: lambda name=name, model=model: run(name, model) for name, model in models.items()}


def training(setting: Setting) -> Rows:
    """Measure training steps: against training the anchor, and against the floor."""
    anchor, augs = setting.bases()
    tuned, _ = setting.bases(0)
    model = composed(setting.preset, anchor, *augs)
    tune, train = _trainer(tuned), _trainer(model)
    rounds = 2 if setting.quick else 3 if setting.vocabulary > 100_000 else 4
    for share in SHARES:
        batch = setting.training_batch(share)
        variants = {"bridges": lambda batch=batch: train(batch), "anchor": lambda batch=batch: tune(batch)}
        floor = _floor(model, batch) if share == "all" else {}
        times = interleaved(variants | floor, rounds, setting.device)
        yield setting.row("train", ratio(times, "bridges", "anchor"), times, labels=share)
        if floor:
            yield setting.row("floor", ratio(times, "bridges", *floor), labels=share)


def _trainer(model: PreTrainedModel) -> Callable[[dict[str, Tensor]], object]:
    """Return a function that takes one training step on a model's trainable parameters."""
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)

    def step(batch: dict[str, Tensor]) -> None:
        model(**batch, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _floor(model: ComposedModelForCausalLM, batch: dict[str, Tensor]) -> dict[str, Callable[[], object]]:
    """Return functions that run the necessary parts of a training step."""
    pairs, aug, anchor = model.connections[0], model.augs[0], model.anchor
    decoder = first_layers(aug, max(pair.aug_layer for pair in pairs) + 1)
    start = decoder_layers(anchor)[pairs[0].anchor_layer]
    batch_shape, device = batch["input_ids"].shape, batch["input_ids"].device
    positions = torch.arange(batch_shape[1], device=device).expand(batch_shape)

    @torch.no_grad()
    def read_aug() -> None:
        decoder(input_ids=batch["input_ids"], use_cache=False)

    def run_anchor() -> None:
        def begin_graph(_module: nn.Module, _args: Any, output: Any) -> Any:
            return with_layer_output(output, layer_output(output).detach().requires_grad_())

        handle = start.register_forward_hook(begin_graph)
        anchor(**batch, use_cache=False).loss.backward()
        handle.remove()

    def run_bridges() -> None:
        for index in range(len(pairs)):
            bridge = model.bridge_of(0, index)
            shape, dtype = (*batch_shape, bridge.query.in_features), bridge.query.weight.dtype
            states = torch.zeros(shape, dtype=dtype, device=device, requires_grad=index > 0)
            read = torch.zeros(*batch_shape, bridge.projection.in_features, dtype=dtype, device=device)
            queries, (keys, values) = bridge.query(states), bridge.keys_values(read, positions)
            heads = queries.unflatten(-1, (bridge.num_heads, -1)).transpose(1, 2)
            mixed = nn.functional.scaled_dot_product_attention(heads, keys, values, is_causal=True)
            bridge.output(mixed.transpose(1, 2).flatten(2)).backward(torch.zeros(shape, dtype=dtype, device=device))
        model.bridges.zero_grad()

    return {"floor: aug": read_aug, "floor: anchor": run_anchor, "floor: bridges": run_bridges}


def memory(setting: Setting) -> Rows:
    """Measure the peak memory of the two training steps, each in a fresh process."""
    for share in ("all",) if setting.quick else SHARES:
        peaks = {side: in_fresh_process(peak_of_training, setting, side, share) for side in ("bridges", "anchor")}
        value = peaks["bridges"] / peaks["anchor"]
        yield setting.row("memory", value, labels=share) | {"megabytes": {k: v >> 20 for k, v in peaks.items()}}


def peak_of_training(setting: Setting, side: str, share: str) -> int:
    """Return the peak bytes of two training steps (the second has the optimizer's state from the start)."""
    held_before = resident_bytes()
    anchor, augs = setting.bases(1 if side == "bridges" else 0)
    step = _trainer(composed(setting.preset, anchor, *augs) if augs else anchor)
    batch = setting.training_batch(share)
    return peak_bytes(lambda: [step(batch) for _ in range(2)], setting.device, held_before)


def growth(setting: Setting) -> Rows:
    """Count the objects that decoding leaves behind: run the same steps twice with one cache, reset after each run."""
    quick = Setting("quick", setting.device, PRESETS["quick"].vocabularies[0], setting.dtype)
    anchor, augs = quick.bases()
    model, steps = composed(quick.preset, anchor, *augs), 50 if setting.quick else 1000
    cache, ids = model.new_cache(), quick.ids(2, 1)

    def decode() -> dict[str, int]:
        with torch.no_grad():
            for _ in range(steps):
                model(ids, past_key_values=cache, use_cache=True)
        cache.reset()
        return live_objects() | {"bytes": _held(setting.device)}

    before, after = decode(), decode()
    left = {name: after[name] - before[name] for name in before}
    yield quick.row("growth", left["tensors"], steps=steps) | {"left": left}


def _held(device: str) -> int:
    return resident_bytes() if device == "cpu" else torch.cuda.memory_allocated()


def several_augs(setting: Setting) -> Rows:
    """Measure what a second and a third aug add to a prefill and a decoding step."""
    anchor, augs = setting.bases(3)
    counts = (1, 2, 3)
    models = {"anchor": anchor} | {f"{n} augs": composed(setting.preset, anchor, *augs[:n]) for n in counts}
    decoding = {name: _decoding(setting, model, 1) for name, model in models.items()}
    rounds = {"decode": (decoding, 12), "prefill": (_prefills(setting, models), 4)}
    for what, (variants, count) in rounds.items():
        times = interleaved(variants, 2 if setting.quick else count, setting.device)
        added = {n: ratio(times, f"{n} augs", "anchor") - 1 for n in counts}
        for n in counts[1:]:
            yield setting.row("augs", added[n] / n / added[1], times, step=what, augs=n)


CASES = {
    "inference": inference,
    "training": training,
    "memory": memory,
    "growth": growth,
    "augs": several_augs,
}


def run(preset_name: str, device: str, only: list[str]) -> Rows:
    """Run the cases, each for every vocabulary size and dtype, except where one setting is enough."""
    dtypes = ("float32",) if preset_name == "quick" else ("float32", "bfloat16")
    vocabularies = PRESETS[preset_name].vocabularies
    every = [Setting(preset_name, device, vocabulary, dtype) for vocabulary in vocabularies for dtype in dtypes]
    selected = {"growth": every[:1], "augs": every[:1]}
    if device == "cpu":  # a process per figure is slow
        selected["memory"] = [setting for setting in every if setting.dtype == "float32"]
    for name in only:
        for setting in selected.get(name, every):
            yield from CASES[name](setting)


def main() -> None:
    """Print a table; write it as JSON when asked."""
    parser = options(__doc__)
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(CASES), help=f"of {', '.join(CASES)}")
    arguments = parser.parse_args()
    rows = []
    print(f"{'case':<9}{'dtype':<10}{'vocabulary':>10}  {'details':<22}{'value':>8}{'target':>8}")
    for row in run("quick" if arguments.quick else arguments.preset, arguments.device, arguments.only):
        rows.append(row)
        details = " ".join(f"{key} {row[key]}" for key in ("batch", "labels", "step", "steps", "augs") if key in row)
        print(
            f"{row['case']:<9}{row['dtype']:<10}{row['vocabulary']:>10}  {details:<22}{row['value']:>8.3f}"
            f"{row['target']:>8.2f}  {'met' if row['met'] else 'MISSED'}",
            flush=True,
        )
    conclude(arguments, rows)


if __name__ == "__main__":
    main()
