"""The errors calmctl raises on purpose, and what each means for the exit code."""


class CalmctlError(Exception):
    """Base of every error that calmctl raises on purpose."""


class UserError(CalmctlError):
    """A setting, path or command of the user is wrong; printed as one line, exit code 2.

    The message names the setting, its value, the constraint and what to do about it.
    """
