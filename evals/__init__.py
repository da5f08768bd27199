"""Evaluation tasks, one per module: prompts and scoring. The caller generates the completions."""

from typing import Any

from evals.codexglue import CodeXGLUETask
from evals.flores import FloresTask
from evals.gsm8k import GSM8KTask
from evals.humaneval import HumanEvalTask
from evals.kv import KVTask
from evals.mbpp import MbppTask
from evals.mgsm import MGSMTask
from evals.reasoning import ArithmeticTask, CommonsenseTask
from evals.rows import RowsTask
from evals.task import Completion, Completions, Request, Scores, Task
from evals.text import TextTask

__all__ = ["TASKS", "Completion", "Completions", "Request", "Scores", "Task"]

# Tasks are dataclasses: their fields are the options that a user may set.
TASKS: dict[str, type[Task[Any]]] = {
    "kv": KVTask,
    "flores": FloresTask,
    "gsm8k": GSM8KTask,
    "mgsm": MGSMTask,
    "humaneval": HumanEvalTask,
    "mbpp": MbppTask,
    "codexglue": CodeXGLUETask,
    "arithmetic": ArithmeticTask,
    "commonsense": CommonsenseTask,
    "text": TextTask,
    "rows": RowsTask,
}
