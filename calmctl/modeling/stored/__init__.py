"""Saving, loading and publishing models of frozen bases and trained parts."""
