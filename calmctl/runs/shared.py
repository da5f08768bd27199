"""A run shared by several processes: the first one starts and writes it, the others only read."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from calmctl.processes.parent import Interrupted
from calmctl.processes.ranks import joined_ranks
from calmctl.runs.lock import FileLock
from calmctl.runs.record import LOCK_FILE, LOG_FILE, Kind, Status
from calmctl.runs.run import OnGrowth, Run


class FollowedRun(Run):
    """The run of the first process as the others see it: read, never written."""

    def write_text(self, name: str, text: str) -> None:
        """Leave it to the first process."""

    def write_json(self, name: str, value: Any) -> None:
        """Leave it to the first process."""

    def append_jsonl(self, row: Mapping[str, Any], name: str = LOG_FILE, durable: bool = False) -> None:
        """Leave it to the first process."""

    def rewind_log(self, step: int, name: str = LOG_FILE, without: str = "") -> None:
        """Leave it to the first process."""

    def report_progress(self, *_: Any, **__: Any) -> None:
        """Leave it to the first process."""

    def _end(self, status: Status, facts: Mapping[str, Any]) -> None:
        self._facts |= {**facts, "status": status}


@contextmanager
def started_run(
    path: Path,
    *,
    kind: Kind,
    config: object,
    command: Sequence[str] = (),
    seed: int | None = None,
    inputs: Mapping[str, str] | None = None,
    on_growth: OnGrowth | None = None,
    interrupted: Callable[[], Interrupted],
) -> Iterator[Run]:
    """Start, resume or find complete a run, in all processes that torchrun started (see `Run.start`).

    Args:
        interrupted: returns the error to raise if the process was told to end.

    Raises:
        UserError: see `Run.start`; raised in the first process, the others exit with its code.
        Interrupted: the process was told to end.
    """
    with joined_ranks(trains=True) as ranks:
        if ranks.is_first:
            try:
                run = Run.start(
                    path, kind=kind, config=config, command=command, seed=seed, inputs=inputs, on_growth=on_growth
                )
            except BaseException:
                ranks.from_first()  # release the ranks that wait for the result
                raise
            ranks.from_first(run.facts)
        elif (facts := ranks.from_first()) is not None:
            run = FollowedRun(path, facts, FileLock(path / LOCK_FILE), is_resumed=True)
        else:
            raise SystemExit(2)
        try:
            with run:
                yield run
        except KeyboardInterrupt as error:
            if isinstance(error, Interrupted):
                ranks.wait()  # one process ending ends the others: let the first write its record before
            raise interrupted() from error
