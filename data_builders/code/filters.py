"""Filters on a single file (size, lines, generated code), and the extraction of its English prose."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data_builders.code.config import CodeDataConfig

_WORD = re.compile(r"[A-Za-z]{2,}")
_COMMENT = re.compile(r"^[ \t]*#+[ \t]?(.*)$")
_PARAGRAPHS = re.compile(r"\n[ \t]*\n")
_COMMON = frozenset("the of to is in and for that this it be are with not by from as an on or if when which".split())
_MIN_PLAIN = 0.85
_METADATA_FIELD = re.compile(r"[A-Z][\w-]*: ")
_GENERATED_LINES = 20
_GENERATED = re.compile(
    r"@generated|(auto(matically)?[- ]?|file (is|was) )generated|generated (by|from)|do not (edit|modify)",
    re.IGNORECASE,
)
_GENERATED_NAME = re.compile(r"(_pb2(_grpc)?\.pyi?|[.-]min\.(js|css)|\.bundle\.js|_generated\.\w+)$")


def size_reason(num_bytes: int, config: CodeDataConfig) -> str | None:
    """Return why a file of `num_bytes` is left out, or None."""
    if num_bytes < config.min_bytes:
        return "too_small"
    return "too_large" if num_bytes > config.max_bytes else None


def text_reason(name: str, text: str, config: CodeDataConfig) -> str | None:
    """Return why a file with this name and text is left out, or None."""
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


def prose_of(text: str, min_words: int) -> str:
    """Return the paragraphs that are English prose, with empty lines between them; empty if none is."""
    paragraphs = (paragraph.strip() for paragraph in _PARAGRAPHS.split(text))
    return "\n\n".join(each for each in paragraphs if is_prose(each, min_words))


def is_prose(text: str, min_words: int) -> bool:
    """Tell whether a text is English prose, not code, a table, a list of names or another language."""
    words = _WORD.findall(text)
    if len(words) < min_words or ">>>" in text:
        return False
    plain = sum(character.isascii() and (character.isalpha() or character in " ,.'\n") for character in text)
    return plain >= _MIN_PLAIN * len(text) and not _COMMON.isdisjoint(word.lower() for word in words)


def comment_blocks(text: str) -> list[str]:
    """Return the Python comments that have lines to themselves; consecutive lines form one block.

    Lines are examined one by one: a line of a string that begins with `#` counts too.
    """
    blocks: list[list[str]] = [[]]
    for line in text.split("\n"):
        if (found := _COMMENT.match(line)) is not None:
            blocks[-1].append(found[1])
        elif blocks[-1]:
            blocks.append([])
    return ["\n".join(block) for block in blocks if block]


def document_text(name: str, text: str) -> str:
    """Return a document's text; of package metadata (METADATA), without the header fields."""
    is_metadata = name.rpartition("/")[2] == "METADATA" and _METADATA_FIELD.match(text)
    return text.partition("\n\n")[2] if is_metadata else text
