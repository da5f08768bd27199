"""Models of frozen bases and trained parts on disk and on the hub."""
