"""The errors calmctl raises on purpose, and what each means for the exit code."""

import re


class CalmctlError(Exception):
    """Base of every error that calmctl raises on purpose."""


class UserError(CalmctlError):
    """A setting, path or command of the user is wrong; printed as one line, exit code 2.

    The message names the setting, its value, the constraint and what to do about it.
    """


def errno_of(error: BaseException) -> int | None:
    """Return the number of the system's error that an exception is, or that a library of another language names in it.

    It may be the cause of the exception too.
    """
    number = getattr(error, "errno", None)
    if number is None and (found := re.search(r"\(os error (\d+)\)|\[errno (\d+)\]", str(error), re.IGNORECASE)):
        number = int(found[1] or found[2])
    return errno_of(error.__cause__) if number is None and error.__cause__ is not None else number
