"""Print how augs read a text: a table with a row per anchor token, and visible signs for invisible characters."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from calmctl.cli import output

if TYPE_CHECKING:
    from calmctl.modeling.tokenizers.readings import AugReading, Spelling, Step, TextReading

SIGNS = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}
# Unicode categories of characters without a glyph, and names of characters that change their neighbours' glyphs.
UNSEEN = ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs")
JOINED = ("VARIATION SELECTOR", "EMOJI MODIFIER", "REGIONAL INDICATOR")
# Shown in the aug's cells where it reads no token.
WAITS, BORDER = "…", "(border)"


def print_reading(reading: TextReading) -> None:
    """Print the models and token counts, then the table."""
    output.print_facts(_facts(reading))
    several = len(reading.augs) > 1
    columns = ["", "anchor"]
    for index, aug in enumerate(reading.augs):
        name = f"aug {index}" if several else "aug"
        columns += [f"{name} reads", *(["instead of"] if aug.num_replaced else []), "sees"]
    numbers = [0, *(place for place, name in enumerate(columns) if name == "sees")]
    rows: list[list[object]] = []
    for index, token_id in enumerate(reading.ids):
        row: list[object] = [index, _spelt([token_id], reading.spelling, "")]
        for aug in reading.augs:
            step = aug.steps[index]
            row.append(_read(step, aug.spelling))
            if aug.num_replaced:
                row.append(_spelt(step.replaced, aug.spelling, "dim strike"))
            row.append(step.visible)
        rows.append(row)
    output.print_table(columns, rows, numbers=numbers)


def reading_as_json(reading: TextReading) -> dict[str, Any]:
    """Return a reading as JSON: token ids with their texts."""
    return {
        "anchor": {"source": reading.anchor, "tokens": _tokens(reading.ids, reading.spelling)},
        "augs": [
            {
                "source": aug.source,
                "segmentation": aug.kind or None,
                "steps": [
                    {
                        "reads": _tokens(step.new, aug.spelling),
                        "instead_of": _tokens(step.replaced, aug.spelling),
                        "sees": step.visible,
                        "waits_with": step.waiting.hex(),
                        "is_border": step.is_border,
                    }
                    for step in aug.steps
                ],
            }
            for aug in reading.augs
        ],
    }


def shown(token: str) -> str:
    """Return a token's text with visible signs for white space and other invisible characters."""
    written = "".join(_sign(character) for character in token)
    # A leading combining mark would combine with the border of the cell.
    return f"◌{written}" if unicodedata.category(written[:1] or "-").startswith("M") else written


def _sign(character: str) -> str:
    """Return a character, or its sign, or its code if it is invisible or terminals join it to its neighbours."""
    if character in SIGNS:
        return SIGNS[character]
    is_unseen = unicodedata.category(character) in UNSEEN or unicodedata.name(character, "").startswith(JOINED)
    return f"<{ord(character):04X}>" if is_unseen else character


def _facts(reading: TextReading) -> dict[str, object]:
    facts: dict[str, object] = {"anchor": f"{reading.anchor}: {_count(len(reading.ids))}"}
    for index, aug in enumerate(reading.augs):
        name = f"aug {index}" if len(reading.augs) > 1 else "aug"
        facts[name] = f"{aug.source}: {_how(aug, len(reading.ids))}"
    signs = [f"{sign} {name}" for sign, name in zip(SIGNS.values(), ("space", "line end", "tab", "CR"), strict=True)]
    return facts | {"signs": ", ".join([*signs, f"{WAITS} waits for the rest of a character"])}


def _how(aug: AugReading, length: int) -> str:
    from calmctl.modeling.options import SEGMENTATIONS

    if not aug.kind:
        return "the anchor's tokens as they are"
    again = f", {aug.num_replaced} of them replaced later" if aug.num_replaced else ""
    amount = f"{_count(aug.num_read)} ({aug.num_read / max(length, 1):.2f} per anchor token)"
    return f"{SEGMENTATIONS[aug.kind]}, {amount}{again}"


def _count(number: int) -> str:
    return f"{number} token{'' if number == 1 else 's'}"


def _read(step: Step, spelling: Spelling) -> Text:
    cell = _spelt(step.new, spelling, "")
    if step.waiting:
        cell.append(f"{' ' if cell else ''}{WAITS}", "dim")
    elif step.is_border and not step.new:
        cell.append(BORDER, "dim")
    return cell


def _spelt(token_ids: Sequence[int], spelling: Spelling, style: str) -> Text:
    return Text(" ").join(Text(shown(spelling.of(token_id)), style) for token_id in token_ids)


def _tokens(token_ids: Sequence[int], spelling: Spelling) -> list[dict[str, object]]:
    return [{"id": token_id, "text": spelling.of(token_id)} for token_id in token_ids]
