"""The forms of rows to train or to evaluate on, and the names of their columns. Loads without pyarrow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from data_builders.errors import UserError

Message = dict[str, Any]
FORMS = (("prompt", "completion"), ("text",), ("messages",), ("conversations",), ("instruction", "output"))
PROMPT_FORMS = (("prompt",), ("messages",), ("conversations",), ("instruction",))
COLUMNS = ("prompt", "completion", "text", "messages", "conversations", "instruction", "input", "output", "id")


def check_columns(columns: Mapping[str, str]) -> None:
    """Raise UserError for a column map that names a column of ours that there is not."""
    for ours in columns:
        if ours not in COLUMNS:
            raise UserError(f"columns.{ours}: no such column; those that can be mapped are {', '.join(COLUMNS)}")


def messages_of(text: str) -> list[Message]:
    """Return the messages of a conversation, of which the table holds JSON."""
    found: list[Message] = json.loads(text)
    return found
