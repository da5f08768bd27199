"""Evaluations: ask a model the prompts of a task, and score its completions."""
