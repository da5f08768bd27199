"""What tests/test_distributed.py runs under torchrun: trainings, one after the other, in one pair of processes.

At the end each process goes on with a text of its own, with a model whose layers lie in both of them.
"""

import gc
import pickle
import sys
from pathlib import Path

from transformers import AutoTokenizer

from calmctl.baselines.configs import BaselineConfig
from calmctl.errors import CalmctlError
from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.modeling.composition import compose
from calmctl.processes.ranks import joined_ranks
from calmctl.runs.run import Run
from calmctl.training.configs import ComposeConfig, TrainConfig
from calmctl.training.layout import shard
from data_builders.values import write_json
from tests.models import opened
from tests.trained import run_baseline, run_composition, run_training

Config = TrainConfig | ComposeConfig | BaselineConfig


TEXTS = "solve: 12 + 7 = 19", "a b  ab\n"


def run_job(config: Config, out: Path) -> Run:
    """Run whatever a configuration is of."""
    if isinstance(config, BaselineConfig):
        return run_baseline(config, out)
    return run_composition(config, out) if isinstance(config, ComposeConfig) else run_training(config, out)


def composition(folder: Path, aug_reads: str) -> ComposedModelForCausalLM:
    """Return a composition of two tokenizers, with open bridges."""
    return opened(compose(folder / "own_anchor", folder / "own_aug", every=1, aug_reads=aug_reads))


def continuation(model: ComposedModelForCausalLM, folder: Path, text: str) -> list[int]:
    """Return twenty tokens that a model goes on with."""
    ids = AutoTokenizer.from_pretrained(folder / "own_anchor")(text, return_tensors="pt")["input_ids"]
    written = model.generate(ids, max_new_tokens=20, min_new_tokens=20, do_sample=False, pad_token_id=0)
    return written[0, ids.shape[1] :].tolist()


def main() -> None:
    """Run the configurations (folder -> configuration) of a file; write what the refused ones say beside it."""
    gc.freeze()
    file = Path(sys.argv[1])
    refused = {}
    with joined_ranks(trains=True) as ranks:
        for out, config in pickle.loads(file.read_bytes()).items():
            try:
                run_job(config, file.parent / out)
            except CalmctlError as error:
                refused[out] = str(error)
        for aug_reads in ("all", "prompt"):
            model = composition(file.parent, aug_reads)
            shard(model, ranks, "fp32")
            found = continuation(model, file.parent, TEXTS[ranks.index])
            write_json(file.parent / f"continued-{aug_reads}-{ranks.index}.json", found)
    if ranks.is_first:
        file.with_suffix(".refused").write_bytes(pickle.dumps(refused))


if __name__ == "__main__":
    main()
