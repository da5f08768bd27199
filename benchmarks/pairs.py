"""Whether bridges train out of the box: all ordered pairs of pretrained models, in the default and the plain form.

    python benchmarks/pairs.py --models DIR/smollm2 DIR/gemma3 DIR/qwencoder --out OUT \\
        --task translation --data DIR/tatoeba
    python benchmarks/pairs.py --models DIR/smollm2 DIR/gemma3 DIR/qwencoder --out OUT \\
        --task python --data DIR/mbpp.jsonl

Every model is composed with every model, itself included, by `calmctl compose` with its default preset; only steps,
tokens per step and intervals are reduced, so that a laptop can do it. Reported is the loss on held-out rows: the
anchor's alone, then the composition's worst, best and last. Every training is a run of its own below OUT: finished runs
are kept, interrupted ones are resumed.
"""

import argparse
import json
from itertools import product
from pathlib import Path

from rows import TASKS, read_rows

from calmctl.config import load_config
from calmctl.errors import CalmctlError
from calmctl.modeling.bases.sources import quiet_libraries
from calmctl.runs.record import read_run
from calmctl.training.compositions import composition_job
from calmctl.training.configs import ComposeConfig
from calmctl.training.job import run_job

FORMS = {
    "default": [],
    "plain": ["bridge.standardize=false", "bridge.recency=false"],
    "every2": ["every=2"],
    # The former default: the paper's form, AdamW.
    "adamw": [
        "bridge.standardize=false",
        "bridge.rotary=false",
        "bridge.recency=false",
        "train.optimizer=adamw",
        "train.lr=3e-4",
        "train.weight_decay=0.01",
        "train.schedule=cosine",
    ],  # fmt: skip
}
SHORT = ["train.batch_tokens=256", "train.on_long_example=drop", "train.eval_every=50", "train.save_every=50"]


def main() -> None:
    """Train the runs that are not finished, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--task", choices=sorted(TASKS), required=True)
    parser.add_argument("--data", type=Path, required=True, help="what the task reads, see rows.py")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--forms", nargs="+", choices=sorted(FORMS), default=["default", "plain"])
    parser.add_argument("--pairs", nargs="+", default=[], help="some of them only, as anchor+aug")
    arguments = parser.parse_args()
    quiet_libraries()
    files = _written(arguments.task, arguments.data, arguments.out)
    for anchor, aug in product(arguments.models, repeat=2):
        pair = f"{Path(anchor).name}+{Path(aug).name}"
        if arguments.pairs and pair not in arguments.pairs:
            continue
        for form in arguments.forms:
            settings = [f"train.steps={arguments.steps}", f"train.warmup_steps={arguments.steps // 10}", *SHORT]
            settings += [f"anchor={anchor}", f"augs=[{aug}]", f"dataset={files[0]}", f"validation={files[1]}"]
            settings += [f"seed={arguments.seed}", *FORMS[form]]
            config = load_config(ComposeConfig, "compose/default", settings)
            out = arguments.out / f"{arguments.task}-{pair}-{form}-{arguments.steps}-seed{arguments.seed}"
            try:
                run_job(composition_job(config), out)
            except CalmctlError as error:  # a training that stops with an error is a result too
                print(f"{out.name}: {error}", flush=True)
            print(_row(pair, form, out), flush=True)


def _written(task: str, data: Path, out: Path) -> list[Path]:
    """Write the training and the held-out rows; return their paths."""
    rows, files = read_rows(task, data), []
    out.mkdir(parents=True, exist_ok=True)
    for name in ("train", "held_out"):
        files.append(out / f"{task}_{name}.jsonl")
        lines = [json.dumps({key: row[key] for key in ("prompt", "completion")}) + "\n" for row in getattr(rows, name)]
        files[-1].write_text("".join(lines))
    return files


def _row(pair: str, form: str, out: Path) -> str:
    """Return a line of the table."""
    rows = {row["step"]: row for row in read_run(out).log() if "validation_loss" in row}
    losses = {step: row["validation_loss"] for step, row in rows.items() if step}
    if 0 not in rows or not losses:
        return f"| {pair} | {form} | | | | |"
    alone, last = rows[0]["anchor_loss"], losses[max(losses)]
    figures = (alone, max(losses.values()), min(losses.values()), last)
    return f"| {pair} | {form} | {' | '.join(f'{figure:.3f}' for figure in figures)} | {max(losses)} |"


if __name__ == "__main__":
    main()
