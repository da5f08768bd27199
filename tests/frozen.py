"""Imported last into a process that is forked: its forks look for no garbage among what it has imported."""

import gc

gc.collect()
gc.freeze()
