"""The errors calmctl raises on purpose, and what the system's mean."""

import re

from data_builders.errors import CalmctlError, UserError

__all__ = ["CalmctlError", "UserError", "errno_of"]


def errno_of(error: BaseException) -> int | None:
    """Return the number of the system's error that an exception is, or that a library of another language names in it.

    It may be the cause of the exception too.
    """
    number = getattr(error, "errno", None)
    if number is None and (found := re.search(r"\(os error (\d+)\)|\[errno (\d+)\]", str(error), re.IGNORECASE)):
        number = int(found[1] or found[2])
    return errno_of(error.__cause__) if number is None and error.__cause__ is not None else number
