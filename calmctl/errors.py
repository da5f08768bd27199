"""The errors that calmctl raises on purpose, and the errno of system errors."""

import re

from data_builders.errors import CalmctlError, UserError

__all__ = ["CalmctlError", "UserError", "errno_of"]


def errno_of(error: BaseException) -> int | None:
    """Return the errno of an exception or of its cause, also if only the message names it; None if there is none."""
    number = getattr(error, "errno", None)
    if number is None and (found := re.search(r"\(os error (\d+)\)|\[errno (\d+)\]", str(error), re.IGNORECASE)):
        number = int(found[1] or found[2])
    return errno_of(error.__cause__) if number is None and error.__cause__ is not None else number
