"""Evaluations: one module a task, owning its prompts and its scoring; generation belongs to the caller."""

from typing import Any

from evals.kv import KVTask
from evals.task import Completion, Request, Scores, Task

__all__ = ["TASKS", "Completion", "Request", "Scores", "Task"]

TASKS: dict[str, Task[Any]] = {"kv": KVTask()}
