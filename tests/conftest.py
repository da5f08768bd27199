"""What every test runs under: one thread, no network, and the working directory put back."""

import os
from collections.abc import Iterator

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
