"""Programs for the sandbox: those that do what they should, and those that attack it."""
