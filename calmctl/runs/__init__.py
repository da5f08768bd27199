"""Run directories: what lies in one, its record, and what makes two runs the same."""
