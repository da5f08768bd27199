"""Task settings: the task's name and options, and where to find its data."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from calmctl.errors import UserError
from calmctl.schema import field_types, from_dict, meaning
from evals import TASKS, Task

ALL = "all"
Config = TypeVar("Config", bound="TaskConfig")


@dataclass(frozen=True)
class TaskConfig:
    """A task and its data.

    Attributes:
        task: a name in `evals.TASKS`.
        options: the task's own settings (the fields of its class), such as `shots`.
        dataset: the task's data: a folder, a file or the id of a dataset on the hub.
        limit: use only the first `limit` records (per language, if there are several); 0 = all.
    """

    task: str = "kv"
    options: dict[str, Any] = field(default_factory=dict)
    dataset: str = field(default="", metadata=meaning(may_differ=True))
    limit: int = 0

    def __post_init__(self) -> None:
        check_task(self.task)
        if self.limit < 0:
            raise ValueError(f"limit={self.limit} must not be negative (0 = all records)")
        self.build_task()

    def build_task(self) -> Task[Any]:
        """Return the task with its options; raises UserError for an unknown option."""
        return from_dict(TASKS[self.task], self.options, "options")

    def load_records(self) -> list[Any]:
        """Read the task's records; raises UserError if the data, or an option about it, cannot be used."""
        return self.build_task().load(Path(self.dataset), self.limit or None)

    def require_dataset(self) -> None:
        """Raise UserError if `dataset` is not set."""
        if not self.dataset:
            raise UserError("dataset is not set; give --data PATH_OR_HUB_ID")

    @cached_property
    def data_sha256(self) -> str:
        """Return the checksum of the data (see `Task.data_sha256`).

        It is computed once, so that the whole run records the data that it started with.

        Raises:
            UserError: `dataset` is not set.
        """
        self.require_dataset()
        return self.build_task().data_sha256(Path(self.dataset))


def check_task(name: str) -> None:
    """Raise UserError for an unknown task."""
    if name not in TASKS:
        raise UserError(f"task={name!r} is not one of {', '.join(TASKS)}")


def has_option(task: str, name: str) -> bool:
    """Return whether a task has an option of this name."""
    return name in field_types(TASKS[task])


def check_options(task: str, options: Mapping[str, object]) -> None:
    """Raise UserError for a command-line option that the task does not have."""
    check_task(task)
    known = field_types(TASKS[task])
    for name in options:
        if name not in known:
            has = ", ".join(known) or "none"
            raise UserError(f"--{name.replace('_', '-')}: the task {task!r} has no such option (its options: {has})")


def find_data(task: str, folder: Path) -> Path:
    """Return the entry of a data folder that is named after the task, or the only one whose name starts with it.

    Raises:
        UserError: there is no such entry, or several names start with the task's.
    """
    if not folder.is_dir():
        raise UserError(f"--data {folder}: no such folder; several tasks need one that holds a folder of each")
    if (folder / task).exists():
        return folder / task
    similar = sorted(entry for entry in folder.iterdir() if entry.name.startswith(task))
    if len(similar) == 1:
        return similar[0]
    found = f"several could be meant: {', '.join(entry.name for entry in similar)}" if similar else "there is none"
    raise UserError(f"no data of the task {task!r}: {folder / task} is wanted, {found}")


def try_data(task: str, folder: Path, configure: Callable[[Path], Config]) -> Config | str:
    """Return the configuration of a task with its data in `folder`, or the reason why it cannot be evaluated."""
    try:
        config = configure(find_data(task, folder))
        config.load_records()
    except UserError as error:
        return str(error)
    return config


def names_of(tasks: Sequence[str]) -> list[str]:
    """Return the named tasks without duplicates; `all` names every task.

    Raises:
        UserError: no task is named, or an unknown one.
    """
    if not tasks:
        raise UserError(f"no task is named; choose from {', '.join([*TASKS, ALL])}")
    if ALL in tasks:
        return list(TASKS)
    for name in tasks:
        check_task(name)
    return list(dict.fromkeys(tasks))
