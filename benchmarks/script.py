"""What benchmarks on random models share: their options, and the file of their results."""

import argparse
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from measure import cpu_name
from shapes import PRESETS


def options(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with --quick, --preset, --device and --json."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="seconds: tiny shapes, only to see that it runs")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="llama")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    return parser


def conclude(arguments: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> None:
    """Say what quick shapes show, and write the results as JSON when asked."""
    if arguments.quick:
        print("These shapes are tiny: the figures show that everything runs, and nothing else.")
    if arguments.json:
        result = {"environment": environment(arguments.device), "results": rows}
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def environment(device: str) -> dict[str, Any]:
    """Return the hardware and the versions that the figures were taken with."""
    return {
        "device": torch.cuda.get_device_name() if device != "cpu" else cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
