"""Overhead of our training of bridges over a bare PyTorch loop.

    python benchmarks/training.py [--quick] [--device cuda] [--preset llama] [--precisions fp32,bf16] [--json FILE]

Both train the same composed model (random weights, see shapes.py) on the same batches with the same optimizer, clipping
and precision, in turns (see measure.py), and end with the same loss. The bare loop gets its batches ready-made; the
program draws and collates them, counts, logs every fifth step, and decides in every step whether to save.

    speed      tokens/s of the program over those of the bare loop, between the fifth step and the last
    memory     peak memory of the program over that of the bare loop, each in a fresh process, checkpoint included
    kept       on a CPU: tokens/s with freed memory kept (processes/cpu.py), over those with it returned to the system,
               in fresh processes that take turns

In `memory` and `kept` the program's process is set up as by the commands; `speed` runs both sides in one process, which
keeps freed memory for neither.
"""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from measure import in_fresh_process, peak_bytes, resident_bytes
from script import conclude, options
from shapes import PRESETS, base, composed
from torch import Tensor

from calmctl import ComposedModelForCausalLM
from calmctl.modeling.bases.sources import quiet_libraries
from calmctl.processes.cpu import set_up_cpu
from calmctl.runs.run import Run
from calmctl.training.batches import Batches
from calmctl.training.examples import Examples
from calmctl.training.session import fit
from calmctl.training.settings import TrainSettings

TARGETS = {"speed": 0.95, "memory": 1.05, "kept": 1.0}
LOGGED = 5
EXAMPLES = 64
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}
Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A preset of shapes in one precision on one device, trained for some steps."""

    preset_name: str
    precision: str
    device: str
    steps: int

    @property
    def shape(self) -> tuple[int, int]:
        """Return (batch, seq) of a step."""
        return PRESETS[self.preset_name].train_shape

    def model(self) -> ComposedModelForCausalLM:
        """Return the model as it is at the start of a training."""
        preset = PRESETS[self.preset_name]
        anchor, aug = (
            base(preset, role, preset.vocabularies[0], "float32", self.device, seed)
            for seed, role in enumerate(("anchor", "aug"))
        )
        return composed(preset, anchor, aug)

    def settings(self) -> TrainSettings:
        """Return the settings of both sides; only the last step is saved."""
        return TrainSettings(
            steps=self.steps,
            batch_size=self.shape[0],
            schedule="constant",
            warmup_steps=0,
            precision=self.precision,
            save_every=self.steps,
            log_every=LOGGED,
        )

    def batches(self) -> Batches:
        """Return the same batches at every call; every token has a label."""
        width, vocabulary = self.shape[1], PRESETS[self.preset_name].vocabularies[0]
        ids = np.random.default_rng(0).integers(0, vocabulary, EXAMPLES * width).astype(np.int32)
        starts = np.arange(EXAMPLES + 1) * width
        examples = Examples(ids, starts, np.zeros(EXAMPLES, np.int32), {}, np.arange(1, EXAMPLES + 1), {})
        return Batches(examples, self.settings(), seed=0, pad_id=0)


@dataclass
class Timed:
    """Seconds of one training from the fifth step to the last, and its last logged loss."""

    seconds: float
    loss: float


def with_program(case: Case, model: ComposedModelForCausalLM) -> Timed:
    """Train as `calmctl compose` does."""
    marks, losses = [], []

    class TimedRun(Run):
        def append_jsonl(self, row: Any, *name: str, **how: bool) -> None:
            super().append_jsonl(row, *name, **how)
            marks.append(now(case.device))
            losses.append(row["loss"])

    with tempfile.TemporaryDirectory() as folder, TimedRun.start(Path(folder) / "run", kind="train", config={}) as run:
        fit(model, case.settings(), case.batches(), None, 0, run)
        run.finish()
    return Timed(marks[-1] - marks[0], losses[-1])


def with_bare_loop(case: Case, model: ComposedModelForCausalLM, batches: list[dict[str, Tensor]]) -> Timed:
    """Train with nothing but PyTorch."""
    settings, dtype = case.settings(), PRECISIONS[case.precision]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay)
    model.train()
    began, losses = 0.0, []
    for step, batch in enumerate(batches, start=1):
        batch = {name: tensor.to(case.device) for name, tensor in batch.items()}
        with torch.autocast(case.device.partition(":")[0], dtype, enabled=dtype is not None):
            loss = model(**batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, settings.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
        if step == LOGGED:
            began = now(case.device)
    seconds = now(case.device) - began
    return Timed(seconds, torch.stack(losses[-LOGGED:]).mean().item())


def now(device: str) -> float:
    """Return the time once all GPU work is done: processor time on one CPU thread, else wall-clock time."""
    if device != "cpu":
        torch.cuda.synchronize()
    return time.process_time() if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter()


def speed(case: Case, rounds: int) -> Row:
    """Train both sides in turns, each time from the start, after one unmeasured round."""
    found: dict[str, list[Timed]] = {"program": [], "bare": []}
    batches = list(case.batches())
    for _ in range(rounds + 1):
        found["program"].append(with_program(case, case.model()))
        found["bare"].append(with_bare_loop(case, case.model(), batches))
    tokens = case.shape[0] * case.shape[1] * (case.steps - LOGGED)
    measured = {name: [timed.seconds for timed in values[1:]] for name, values in found.items()}
    pairs = zip(measured["bare"], measured["program"], strict=True)
    value = median(bare / program for bare, program in pairs)
    losses = [found[name][-1].loss for name in found]
    return {
        "case": "speed",
        "value": round(value, 3),
        "met": value >= TARGETS["speed"],
        "tokens_per_second": {name: round(tokens / median(values), 1) for name, values in measured.items()},
        "seconds": {name: [round(second, 4) for second in values] for name, values in measured.items()},
        "loss_difference": abs(losses[0] - losses[1]),
    }


def memory(case: Case) -> Row:
    """Measure the peak memory of both sides, each in a fresh process."""
    peaks = {side: in_fresh_process(trained, case, side)["peak"] for side in ("program", "bare")}
    value = peaks["program"] / peaks["bare"]
    megabytes = {name: int(size) >> 20 for name, size in peaks.items()}
    return {"case": "memory", "value": round(value, 3), "met": value <= TARGETS["memory"], "megabytes": megabytes}


def kept(case: Case, rounds: int) -> Row:
    """Train in fresh processes, in turns, with freed memory kept and returned to the system."""
    found: dict[str, list[float]] = {"program": [], "given_back": []}
    for _ in range(rounds):
        for side, values in found.items():
            values.append(in_fresh_process(trained, case, side)["seconds"])
    tokens = case.shape[0] * case.shape[1] * (case.steps - LOGGED)
    value = median(back / keep for keep, back in zip(*found.values(), strict=True))
    return {
        "case": "kept",
        "value": round(value, 3),
        "met": value >= TARGETS["kept"],
        "tokens_per_second": {name: round(tokens / median(values), 1) for name, values in found.items()},
        "seconds": {name: [round(second, 4) for second in values] for name, values in found.items()},
    }


def trained(case: Case, side: str) -> dict[str, float]:
    """Train in this process: by the bare loop, or by the program with freed memory kept or returned to the system."""
    if side == "program":
        set_up_cpu()
    batches = list(case.batches())
    held_before = resident_bytes()
    model = case.model()
    timed: list[Timed] = []

    def train() -> None:
        timed.append(with_bare_loop(case, model, batches) if side == "bare" else with_program(case, model))

    return {"peak": peak_bytes(train, case.device, held_before), "seconds": timed[0].seconds}


def run(preset_name: str, precisions: list[str], device: str, steps: int, rounds: int) -> Iterator[Row]:
    """Run the cases."""
    for precision in precisions:
        case = Case(preset_name, precision, device, steps)
        keeps = device == "cpu" and not torch.cuda.is_available()
        rows = [speed(case, rounds), memory(case), *([kept(case, rounds)] if keeps else [])]
        for row in rows:
            yield {"preset": preset_name, "precision": precision, "target": TARGETS[row["case"]], **row}


def main() -> None:
    """Print a table; write it as JSON when asked."""
    parser = options(__doc__)
    parser.add_argument("--precisions", type=lambda text: text.split(","), default=list(PRECISIONS))
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    quiet_libraries()
    preset = "quick" if arguments.quick else arguments.preset
    rounds = 1 if arguments.quick else arguments.rounds
    rows = []
    print(f"{'preset':<8}{'precision':<11}{'case':<8}{'value':>8}{'target':>8}          program / what it is beside")
    for row in run(preset, arguments.precisions, arguments.device, arguments.steps, rounds):
        rows.append(row)
        unit = "megabytes" if row["case"] == "memory" else "tokens_per_second"
        sides = " / ".join(str(value) for value in row[unit].values())
        print(
            f"{row['preset']:<8}{row['precision']:<11}{row['case']:<8}{row['value']:>8.3f}{row['target']:>8.2f}"
            f"  {'met' if row['met'] else 'MISSED':<7} {sides} {unit.replace('_', ' ')}",
            flush=True,
        )
    conclude(arguments, rows)


if __name__ == "__main__":
    main()
