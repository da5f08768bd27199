"""What tests/test_distributed.py runs under torchrun: trainings, one after the other, in one pair of processes."""

import pickle
import sys
from pathlib import Path

from calmctl.errors import UserError
from calmctl.ranks import joined_ranks
from calmctl.training.configs import ComposeConfig
from calmctl.training.jobs import run_composition, run_training


def main() -> None:
    """Run the configurations (folder -> configuration) of a file; write what the refused ones say beside it."""
    file = Path(sys.argv[1])
    refused = {}
    with joined_ranks(trains=True) as ranks:
        for out, config in pickle.loads(file.read_bytes()).items():
            run = run_composition if isinstance(config, ComposeConfig) else run_training
            try:
                run(config, file.parent / out)
            except UserError as error:
                refused[out] = str(error)
    if ranks.is_first:
        file.with_suffix(".refused").write_bytes(pickle.dumps(refused))


if __name__ == "__main__":
    main()
