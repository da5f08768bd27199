"""Names of runs by the settings that they were given: the same settings have the same name, others another one."""

import hashlib
import re
from collections.abc import Sequence

from calmctl.errors import UserError
from calmctl.runs.identity import short_names

MAX_VALUE, MAX_NAME = 40, 150  # characters


def run_name(overrides: Sequence[str]) -> str:
    """Return a name that is safe as a folder's: `lr=0.0003,every=4` for `train.lr=0.0003` and `every=4`.

    A value that cannot stand in it is shortened to the part that can, with a checksum behind it.

    Raises:
        UserError: there are no overrides.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if not overrides:
        raise UserError(
            "--multirun: no setting has several values; write train.lr=1e-4,3e-4 for a run of each, or leave it out"
        )
    parsed = [OverridesParser.create().parse_override(text) for text in overrides]
    keys = short_names([override.key_or_group for override in parsed])
    parts = []
    for override in parsed:
        value = override.value()
        text = value if isinstance(value, str) else override.get_value_element_as_str()
        text = text.lower() if isinstance(value, bool) else text
        parts.append(f"{keys[override.key_or_group]}={_safe(text)}")
    name = ",".join(parts)
    return name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}-{_checksum(name)}"


def _safe(text: str) -> str:
    """Return a value as a part of a file name: without folders and punctuation, and not too long."""
    safe = re.sub(r"[^A-Za-z0-9._+-]+", "-", text.rstrip("/").rpartition("/")[2]).strip("-")[:MAX_VALUE]
    return safe if safe == text else f"{safe}-{_checksum(text)}"


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]
