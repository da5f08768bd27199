"""Hydra opened on folders of presets, its errors as one line, and values quoted for it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from calmctl.errors import UserError

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra


@contextmanager
def opened_hydra(what: str, folders: Sequence[Path]) -> Iterator[Hydra]:
    """Open Hydra on some folders, the user's first; its errors become a UserError about `what`."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    outer = GlobalHydra.instance().hydra  # calmctl may be called from inside somebody's Hydra application
    GlobalHydra.instance().clear()
    try:
        with _without_environment(), initialize_config_dir(str(folders[0]), version_base=None):
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            yield hydra
    except (HydraException, OmegaConfBaseException, ValueError, YAMLError, RecursionError) as error:
        raise UserError(f"{what}: {one_line(error)}") from error
    finally:
        GlobalHydra.instance().hydra = outer


@contextmanager
def _without_environment() -> Iterator[None]:
    """Refuse settings taken from environment variables: settings are stored, and variables may hold secrets."""
    from omegaconf import OmegaConf
    from omegaconf.resolvers import oc

    def refuse(name: str, *_: object) -> None:
        raise ValueError(f"${{oc.env:{name}}} is not read, as settings are stored; give the value on the command line")

    OmegaConf.register_new_resolver("oc.env", refuse, replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def one_line(error: BaseException) -> str:
    """Return the message without Hydra's search path, links and line breaks."""
    text = str(error).split("Config search path:")[0]
    text = re.sub(r"See https?://\S+( for details)?", "", text)
    text = text.removeprefix("ValueError raised while resolving interpolation: ")
    text, _, where = text.partition("full_key: ")
    if where:
        text += f" (setting {where.split()[0][:80]})"
    return " ".join(text.split()) or type(error).__name__


def quoted(value: object) -> str:
    """Quote a value so that Hydra takes its text literally; a tuple becomes a list."""
    if isinstance(value, tuple):
        return f"[{','.join(map(quoted, value))}]"
    if isinstance(value, bool | int | float):
        return str(value).lower() if isinstance(value, bool) else str(value)
    # Inside quotes Hydra reads a backslash as one unless a quote follows, and `${` as an interpolation.
    text = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), str(value))
    return "'" + text.replace("${", "\\${") + "'"
