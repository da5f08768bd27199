"""Plots of reports as PNG bytes, with one colour per system."""
