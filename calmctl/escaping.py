"""Escape text of models, files and users, so that terminals, Markdown and HTML can show it safely.

Control characters (such as those of terminal escape sequences), marks that change the direction of text, and code
points that are no character are written as `\\u001b`; line feeds and tabs stay. In JSON the text remains the same.
"""

from __future__ import annotations

import re
from urllib.parse import quote

# C0 and C1 without tab and line feed, line separators, embeddings, overrides and isolates, halves of pairs, tags.
_HIDDEN = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """Return text with characters escaped that a reader cannot see or a terminal might obey."""
    return _HIDDEN.sub(_written_out, text)


def md_text(text: str) -> str:
    """Escape text for one line of Markdown, which then shows it as it is: no markup, HTML, links or table cells."""
    text = visible(" ".join(text.split()))
    text = re.sub(r"([\\`*\[\]|~])", r"\\\1", text)
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)  # inside a word (m_A) it is no markup
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"^([#>+-])", r"\\\1", text)


def md_code(text: str) -> str:
    """Return text as a Markdown code span on one line, also inside a table."""
    text = visible(" ".join(text.split())).replace("|", "\\|")
    if not text:
        return "(empty)"
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if "`" in text else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def url_path(path: str) -> str:
    """Quote a relative path for use as a link, so that it cannot be a script or end a Markdown link."""
    return quote(path, errors="surrogatepass")


def _written_out(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", errors="surrogatepass")
    return "".join(f"\\u{units[place : place + 2].hex()}" for place in range(0, len(units), 2))
