"""The errors that the project raises on purpose, and their exit codes."""


class CalmctlError(Exception):
    """Base of every error that is raised on purpose; printed as one line, exit code 1."""


class UserError(CalmctlError):
    """A setting, file, path or command of the user is wrong; printed as one line, exit code 2.

    The message names the setting or the file, its value, the constraint and what to do about it.
    """


def require_at_least(name: str, value: int, smallest: int) -> None:
    """Raise UserError if `value` is less than `smallest`."""
    if value < smallest:
        raise UserError(f"{name}: {value} is too small; use at least {smallest}")
