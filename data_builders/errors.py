"""The error that data builders and evaluations raise when the user's data or settings are wrong."""


class DataError(ValueError):
    """Say in one line which setting or file is wrong, its value, the constraint and what to do."""
