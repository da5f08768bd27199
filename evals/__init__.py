"""Evaluations: one module a task, owning its prompts and its scoring; generation belongs to the caller."""

from typing import Any

from evals.humaneval import HumanEvalTask
from evals.kv import KVTask
from evals.mbpp import MbppTask
from evals.task import Completion, Completions, Request, Scores, Task

__all__ = ["TASKS", "Completion", "Completions", "Request", "Scores", "Task"]

# Tasks are dataclasses: their fields are the options that a user may set.
TASKS: dict[str, type[Task[Any]]] = {"kv": KVTask, "humaneval": HumanEvalTask, "mbpp": MbppTask}
