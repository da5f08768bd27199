"""What every test runs under: one thread, no network, the working directory put back; evaluations that many need."""

import os
from collections.abc import Iterator
from pathlib import Path

# Read by the libraries when they are imported, so before any test module is.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["COLUMNS"] = "200"

import pytest


@pytest.fixture(autouse=True)
def _same_working_directory() -> Iterator[None]:
    before = os.getcwd()
    yield
    os.chdir(before)


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data of two tasks and a tiny model."""
    from tests.evaluations import write_place

    return write_place(tmp_path_factory.mktemp("evaluation"))


@pytest.fixture(scope="session")
def straight(place: Path) -> Path:
    """An evaluation that nothing interrupted."""
    from calmctl.cli.main import main
    from tests.evaluations import SAMPLING, command

    assert main(command(place, place / "straight", *SAMPLING)) == 0
    return place / "straight"


@pytest.fixture
def words() -> Iterator[None]:
    """A made-up task among the others."""
    from evals import TASKS
    from tests.evaluations import Words

    TASKS["words"] = Words
    yield
    del TASKS["words"]
