"""The `calmctl` command: the table of commands, and the exit code and message of each kind of error."""

from __future__ import annotations

import errno
import gc
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup

from calmctl.cli import (
    baseline,
    chat,
    compose,
    copy,
    data,
    doctor,
    evaluate,
    export,
    generate,
    ls,
    push,
    report,
    reproduce,
    score,
    settings,
    show,
    slurm,
    train,
)
from calmctl.cli.standard_streams import NobodyReads, prepare_streams, show_log
from calmctl.errors import CalmctlError, UserError, errno_of
from calmctl.escaping import visible
from calmctl.processes.parent import end_like_ctrl_c, report_to_launcher
from calmctl.version import VERSION

# click's base error, found through typer: recent versions of typer bundle click, older ones depend on it.
_ClickError = cast(type[Exception], typer.BadParameter.__mro__[2])

_INTERRUPTED = 130

# Values of OSError.errno that another path may solve, and those that need more space or another disk.
_PATH_PROBLEMS = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EACCES, errno.EPERM, errno.EROFS}
_PATH_PROBLEMS |= {errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ENXIO}
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENFILE}

# In the order of use, which is also the order in `calmctl --help`.
COMMANDS: dict[str, typer.Typer | Callable[..., None]] = {
    "data": data.app,
    "train": train.app,
    "compose": compose.compose,
    "baseline": baseline.baseline,
    "eval": evaluate.evaluate,
    "score": score.score,
    "generate": generate.generate,
    "chat": chat.chat,
    "export": export.export,
    "push": push.push,
    "reproduce": reproduce.app,
    "report": report.report,
    "slurm": slurm.slurm,
    "show": show.show,
    "ls": ls.app,
    "settings": settings.settings,
    "copy": copy.copy,
    "doctor": doctor.doctor,
}


class _Ended(BaseException):
    """A command was interrupted; the message, if any, says what was saved."""


class _OrderOfUse(TyperGroup):
    """Lists commands in the order of `COMMANDS`; typer would list all commands before all groups."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; keeps the message of a KeyboardInterrupt, which typer would drop."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise _Ended(str(error)) from error


app = typer.Typer(
    name="calmctl",
    cls=_OrderOfUse,
    help="Compose frozen language models through trained cross-attention, and reproduce the CALM paper.",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name, _command in COMMANDS.items():
    if isinstance(_command, typer.Typer):
        app.add_typer(_command, name=_name)
    else:
        app.command(_name)(_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"calmctl {VERSION}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Define the options of `calmctl` itself."""


def script() -> int:
    """Set up streams and signals and run the command line; the entry point of `calmctl`."""
    prepare_streams()
    show_log()
    end_like_ctrl_c()
    try:
        code = main()
        sys.stdout.flush()
        return code
    except NobodyReads:
        return 0
    except CalmctlError as error:  # from the flush
        return _complain(f"failed: {error}", 1)
    finally:
        gc.freeze()  # or Python would look for garbage in a million objects before it exits: most of a second


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 failed, 2 the input is wrong, 130 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(given or ["--help"], standalone_mode=False, prog_name="calmctl", obj=given)
        if code == _INTERRUPTED:  # typer's return value for Ctrl-C before a command is invoked
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort, _Ended) as error:
        return _complain(str(error) or "interrupted; run the same command again to resume", _INTERRUPTED)
    except Exception as error:
        if isinstance(error, _ClickError):
            return _complain_about_usage(error)
        if isinstance(error, NobodyReads):
            raise
        if isinstance(error, UserError):
            return _complain(f"error: {_one_line(error)}", 2)
        if isinstance(error, CalmctlError):
            return _complain(f"failed: {_one_line(error)}", 1)
        number, path = errno_of(error), _path_of(error)
        if number in _PATH_PROBLEMS and path:
            return _complain(f"error: {path}: {os.strerror(number)}; check the path", 2)
        if number in _NO_ROOM:
            where = f"{path}: " if path else ""
            return _complain(f"failed: {where}{os.strerror(number)}; make room, then run the same command again", 1)
        return _complain(f"failed: {type(error).__name__}: {_one_line(error)}", 1, traceback.format_exc())


def _complain_about_usage(error: Exception) -> int:
    """Print an invalid option or command on one line, with a pointer to `--help`."""
    message = _one_line(error.format_message()).rstrip(".")  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    if context is None:
        return _complain(f"error: {message}", 2)
    if message == "Missing command":
        message += f"; choose from {', '.join(context.command.list_commands(context))}"
    return _complain(f"error: {message} (see `{context.command_path} --help`)", 2)


def _path_of(error: Exception) -> str:
    """Return the path of an OSError, or an empty string if it has none."""
    name = getattr(error, "filename", None)
    return os.fsdecode(name) if isinstance(name, str | bytes) else ""


def _one_line(message: object) -> str:
    """Return the message on one line."""
    return " ".join(str(message).split())


def _complain(message: str, code: int, trace: str = "") -> int:
    """Print an error on stderr, or pass it to the launcher if that reports for several processes; return `code`."""
    if not report_to_launcher(message.removeprefix("error: ").removeprefix("failed: "), trace):
        print(visible(f"{trace}calmctl: {message}"), file=sys.stderr)
    return code
