"""Run directories: their files, their record (run.json), and their identity (what makes two runs the same)."""
