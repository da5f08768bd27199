"""What tests/test_distributed.py runs under torchrun: trainings, one after the other, in one pair of processes."""

import pickle
import sys
from pathlib import Path

from calmctl.baselines.configs import BaselineConfig
from calmctl.baselines.jobs import run_baseline
from calmctl.errors import CalmctlError
from calmctl.ranks import joined_ranks
from calmctl.runs import Run
from calmctl.training.configs import ComposeConfig, TrainConfig
from calmctl.training.jobs import run_composition, run_training

Config = TrainConfig | ComposeConfig | BaselineConfig


def run_job(config: Config, out: Path) -> Run:
    """Run whatever a configuration is of."""
    if isinstance(config, BaselineConfig):
        return run_baseline(config, out)
    return run_composition(config, out) if isinstance(config, ComposeConfig) else run_training(config, out)


def main() -> None:
    """Run the configurations (folder -> configuration) of a file; write what the refused ones say beside it."""
    file = Path(sys.argv[1])
    refused = {}
    with joined_ranks(trains=True) as ranks:
        for out, config in pickle.loads(file.read_bytes()).items():
            try:
                run_job(config, file.parent / out)
            except CalmctlError as error:
                refused[out] = str(error)
    if ranks.is_first:
        file.with_suffix(".refused").write_bytes(pickle.dumps(refused))


if __name__ == "__main__":
    main()
