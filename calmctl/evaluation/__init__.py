"""Evaluations: what a task asks of a model, its answers, and their scores."""
