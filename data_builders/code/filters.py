"""Filters on one source file by itself: its size, its lines, and whether a program wrote it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data_builders.code.config import CodeDataConfig

_GENERATED_LINES = 20
_GENERATED = re.compile(
    r"@generated|(auto(matically)?[- ]?|file (is|was) )generated|generated (by|from)|do not (edit|modify)",
    re.IGNORECASE,
)
_GENERATED_NAME = re.compile(r"(_pb2(_grpc)?\.pyi?|[.-]min\.(js|css)|\.bundle\.js|_generated\.\w+)$")


def size_reason(num_bytes: int, config: CodeDataConfig) -> str | None:
    """Return why a file of so many bytes is left out, or None."""
    if num_bytes < config.min_bytes:
        return "too_small"
    return "too_large" if num_bytes > config.max_bytes else None


def text_reason(name: str, text: str, config: CodeDataConfig) -> str | None:
    """Return why a file is left out by its name and text, or None."""
    lines = text.splitlines() or [""]
    if max(map(len, lines)) > config.max_line_length:
        return "long_line"
    if len(text) / len(lines) > config.max_mean_line_length:
        return "long_mean_line"
    if sum(map(str.isalnum, text)) < config.min_alphanumeric * len(text):
        return "few_alphanumerics"
    if _GENERATED_NAME.search(name) or _GENERATED.search("\n".join(lines[:_GENERATED_LINES])):
        return "generated"
    return None
