"""The check of each data builder: raises what the build would raise, before anything is written."""

from collections.abc import Callable
from typing import Any

from data_builders.code import build as code
from data_builders.kv import build as kv
from data_builders.ntl import build as ntl
from data_builders.reasoning import build as reasoning

# Name of a builder -> (config) -> None; raises UserError.
CHECKS: dict[str, Callable[[Any], None]] = {
    "kv": kv.check,
    "ntl": ntl.check,
    "code": code.check,
    "reasoning": reasoning.check,
}
