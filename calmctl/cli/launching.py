"""Start trainings and evaluations: `@launchable` runs a command in several processes, `run_or_plan` runs a job."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calmctl.cli import output

if TYPE_CHECKING:
    from calmctl.training.job import Job

NprocPerNode = Annotated[
    str | None,
    typer.Option(
        "--nproc-per-node",
        help="Run in so many processes on this machine: a number, `gpu` (one for each GPU) or `auto`.",
        rich_help_panel="Several processes",
    ),
]
Nnodes = Annotated[
    int,
    typer.Option(
        "--nnodes", min=1, help="Machines; give the same command on each.", rich_help_panel="Several processes"
    ),
]
RdzvEndpoint = Annotated[
    str | None,
    typer.Option(
        "--rdzv-endpoint",
        metavar="HOST:PORT",
        help="Where several machines meet: one of them, and a free port there.",
        rich_help_panel="Several processes",
    ),
]


def launchable(command: Callable[..., None]) -> Callable[..., None]:
    """Add options to a command that run it in several processes, by PyTorch Elastic with the same command line.

    In a process that Elastic has started, by these options or by torchrun, the command itself runs.
    """

    @functools.wraps(command)
    def launch_or_run(
        context: typer.Context,
        nproc_per_node: str | None,
        nnodes: int,
        rdzv_endpoint: str | None,
        **arguments: Any,
    ) -> None:
        is_part = "TORCHELASTIC_RUN_ID" in os.environ
        is_alone = nproc_per_node is None and nnodes == 1
        if is_part or is_alone:
            command(**arguments)
            return
        from calmctl.processes.launch import check_meeting, launch, parse_num_processes

        count = parse_num_processes(nproc_per_node or "auto")
        check_meeting(nnodes, rdzv_endpoint)
        if count == nnodes == 1:
            command(**arguments)
        elif arguments.get("dry_run"):
            from calmctl.processes.ranks import planned_processes

            with planned_processes(count, nnodes):
                command(**arguments)
        else:
            launch(context.obj, count, nnodes, rdzv_endpoint)

    return with_parameters(
        launch_or_run,
        command,
        context=(typer.Context, inspect.Parameter.empty),
        nproc_per_node=(NprocPerNode, None),
        nnodes=(Nnodes, 1),
        rdzv_endpoint=(RdzvEndpoint, None),
    )


def with_parameters(
    function: Callable[..., None], command: Callable[..., None], **added: tuple[Any, Any]
) -> Callable[..., None]:
    """Give a function the signature of a command and some more parameters, name -> (annotation, default)."""
    own = inspect.signature(command, eval_str=True)
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        for name, (annotation, default) in added.items()
    ]
    mine = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own.parameters.values()]
    function.__signature__ = own.replace(parameters=[*mine, *more])  # type: ignore[attr-defined]
    function.__annotations__ = {each.name: each.annotation for each in (*mine, *more)}
    return function


def run_or_plan(job: Job, preset: str, out: Path, dry_run: bool, json: bool) -> None:
    """Print the plan of a job, or run it with progress and print its results."""
    from calmctl.cli.progress import watching
    from calmctl.training.job import plan_job, run_job

    if dry_run:
        output.print_plan({"command": job.kind, "preset": preset, "out": str(out), **plan_job(job, out)}, json)
        return
    with watching({out.name: out}):
        run = run_job(job, out, sys.argv)
    output.print_run(run, json)
