"""Real benchmark data, where this machine has it: the folder that the environment variable CALMCTL_DATA names."""

import os
from pathlib import Path

import pytest


def real_data(name: str) -> Path:
    """Return a folder or file of it; skips the test where there is none."""
    root = os.environ.get("CALMCTL_DATA")
    if not root:
        pytest.skip("CALMCTL_DATA is not set; name a folder with the real benchmark data")
    path = Path(root) / name
    if not path.exists():
        pytest.skip(f"CALMCTL_DATA has no {name}")
    return path
