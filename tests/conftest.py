"""What every test runs under: one thread, no network, the working directory put back; and fixtures that many need."""

import gc
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

# Waiting for the disk is for power failures, which no test makes; a wrong descriptor still raises.
os.fsync = os.fstat  # type: ignore[assignment]
# What modules make as they are imported stays: to search it for garbage again and again takes a third of the time.
gc.disable()


def pytest_collection_finish() -> None:
    """Collect garbage from now on, but not among what is there by now."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _same_working_directory() -> Iterator[None]:
    before = os.getcwd()
    yield
    os.chdir(before)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the plots of reports out, which take most of the time."""
    from tests.report_folder import leave_plots_out

    leave_plots_out(monkeypatch)


@pytest.fixture
def folder(tmp_path: Path, undrawn: None) -> Path:
    """Return a made-up folder of low-resource languages whose report has not been written."""
    from tests.report_folder import write_folder

    return write_folder(tmp_path / "run")


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return made-up folders of every experiment with their reports, for tests that only read them."""
    from calmctl.reporting.report import write_report
    from tests.report_folder import EVERY_SYSTEM, leave_plots_out, write_folder

    root = tmp_path_factory.mktemp("reported")
    found = {name: write_folder(root / name, name, seeds=(0, 1, 2)) for name in ("ntl", "code")}
    found["kv"] = write_folder(root / "kv", "kv", seed=7, keys=EVERY_SYSTEM)
    with pytest.MonkeyPatch.context() as patch:
        leave_plots_out(patch)
        for folder in found.values():
            write_report(folder)
    return found


@pytest.fixture(scope="session")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what the smoke presets of the experiments on real text read."""
    from tests.toy_benchmarks import write_benchmarks

    return write_benchmarks(tmp_path_factory.mktemp("toy") / "benchmarks")


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
