"""Bits per byte of held-out text, without generation.

Texts are cut at line ends into windows; a model reads one window and is measured on the next. Bits per byte do not
depend on the tokenizer, and improve long before any metric of generated text does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from data_builders.errors import UserError, require_at_least
from data_builders.row_files import iter_rows
from evals.task import Completions, Request, Scores, Task

FORMAT = "window-after-window"


@dataclass(frozen=True)
class TextRecord:
    """A window of a text.

    Attributes:
        before: the preceding window, read as context but not measured.
        group: kind of text: the `language` or `kind` of its row's `meta`.
    """

    id: str
    before: str
    window: str
    group: str


@dataclass(frozen=True)
class TextTask(Task[TextRecord]):
    """Bits per byte of held-out text: JSONL or Parquet rows of `text`, as `calmctl data code` writes them.

    Attributes:
        window: minimum bytes of a window; it ends with the line that reaches them.
    """

    name: ClassVar[str] = "text"
    version: ClassVar[int] = 1

    window: int = 1000

    def __post_init__(self) -> None:
        """Raise UserError if an option is out of range."""
        require_at_least("window", self.window, 1)

    def read(self, data: Path, limit: int | None) -> list[TextRecord]:
        """Read the windows of all texts that have at least two; `limit` = number of texts to read."""
        records: list[TextRecord] = []
        for number, row in enumerate(iter_rows(data, {"text": str})):
            if number == limit:
                break
            meta = found if isinstance(found := row.get("meta"), dict) else {}
            windows = split_windows(row["text"], self.window)
            name = str(row.get("id") or number)
            group = str(meta.get("language") or meta.get("kind") or "")
            records += [
                TextRecord(f"{name}#{place}", before, window, group)
                for place, (before, window) in enumerate(zip(windows, windows[1:], strict=False), start=1)
            ]
        if len({record.id for record in records}) < len(records):
            raise UserError(f"{data}: two texts have the same id; make them different, or leave the column out")
        if not records:
            raise UserError(f"{data}: no text has two windows of {self.window} bytes; set options.window lower")
        return records

    def requests(self, records: Sequence[TextRecord]) -> list[Request]:
        """Return one request per window; none asks for a completion."""
        return [
            Request(r.id, r.before, max_new_tokens=0, num_samples=0, reference=r.window, group=r.group) for r in records
        ]

    def judge(self, records: Sequence[TextRecord], requests: Sequence[Request], completions: Completions) -> Scores:
        """Return the protocol without metrics; the caller measures bits per byte."""
        protocol: dict[str, Any] = {
            "format": FORMAT,
            "window_bytes": self.window,
            "first_window": "read, not measured",
            "metrics": {"bits_per_byte": {"name": "bits per byte of UTF-8", "level": "corpus"}},
        }
        return Scores(metrics={}, n=len(records), protocol=protocol)


def split_windows(text: str, size: int) -> list[str]:
    """Cut a text after each line that reaches `size` bytes since the last cut.

    A shorter rest joins the last window; a text of fewer than `size` bytes has no window.
    """
    windows, current, length = [], [], 0
    for line in text.splitlines(keepends=True):
        current.append(line)
        length += len(line.encode())
        if length >= size:
            windows.append("".join(current))
            current, length = [], 0
    if current and windows:
        windows[-1] += "".join(current)
    return windows
