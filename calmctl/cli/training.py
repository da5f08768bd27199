"""What the commands that train have in common: a job is planned, or run and told about."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from calmctl.cli import output

if TYPE_CHECKING:
    from calmctl.training.job import Job


def run_or_plan(job: Job, preset: str, out: Path, dry_run: bool, json: bool) -> None:
    """Print the plan of a job, or run it, show its progress, and print what came out."""
    from calmctl.cli.progress import watching
    from calmctl.training.job import plan_job, run_job

    if dry_run:
        output.print_plan({"command": job.kind, "preset": preset, "out": str(out), **plan_job(job, out)}, json)
        return
    with watching({out.name: out}):
        run = run_job(job, out, sys.argv)
    output.print_run(run, json)
