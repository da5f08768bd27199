"""Plots of reports as PNG bytes, one colour a system."""
