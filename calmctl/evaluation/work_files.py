"""Work files: the finished samples of an evaluation, one per line, so that an interrupted evaluation can resume.

Rank 0 writes `samples.jsonl`, the other ranks write `samples.rank1.jsonl` and so on; at the end rank 0 merges them.
Lines have `id` and `completion`, so the file can be scored again (`calmctl score`).
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from calmctl.errors import UserError
from data_builders.files import write_text
from data_builders.row_files import append_jsonl, json_lines, read_jsonl
from evals import Request

SAMPLES_FILE = "samples.jsonl"
_FIELDS = {"id": str, "sample": int, "completion": str, "request": str}


class WorkFiles:
    """The finished samples of a run.

    Args:
        folder: the run directory.
        requests: all requests of the evaluation, not only this rank's.
        model: checksum of the weights that generate the samples.
        rank: of this process; it selects the file to append to.
    """

    def __init__(self, folder: Path, requests: Sequence[Request], model: str, rank: int = 0) -> None:
        self.folder, self.requests = folder, requests
        self.path = folder / (f"samples.rank{rank}.jsonl" if rank else SAMPLES_FILE)
        self._places = {request.id: place for place, request in enumerate(requests)}
        self._hashes = [_hash(request, model) for request in requests]

    def append(self, samples: Iterable[tuple[int, int, str]]) -> None:
        """Append samples as (request index, sample index, text), synced to disk so that they survive a crash."""
        append_jsonl(self.path, [self._row(*sample) for sample in samples], durable=True)

    def read(self) -> dict[tuple[int, int], str]:
        """Return the texts of the finished samples of all ranks, by (request index, sample index).

        Lines truncated by a crash and duplicates are skipped.

        Raises:
            UserError: the samples are of other requests, or of another model.
        """
        texts: dict[tuple[int, int], str] = {}
        for path in self._paths():
            for row in read_jsonl(path, fields=_FIELDS):
                place = self._places.get(row["id"])
                if place is None or self._hashes[place] != row["request"]:
                    raise UserError(
                        f"{path} holds a completion of {row['id']!r} that this model is not asked for in this way: "
                        "the model, the data or the program has changed; choose another --out"
                    )
                if row["sample"] < self.requests[place].num_samples:
                    texts.setdefault((place, row["sample"]), row["completion"])
        return texts

    def gather(self) -> dict[str, list[str]]:
        """Merge the files of all ranks into `samples.jsonl`, in request order; return the completions by request id."""
        texts = self.read()
        rows = [self._row(place, index, text) for (place, index), text in sorted(texts.items())]
        write_text(self.folder / SAMPLES_FILE, json_lines(rows))
        for path in self._paths():
            if path.name != SAMPLES_FILE:
                path.unlink()
        completions: dict[str, list[str]] = {}
        for row in rows:
            completions.setdefault(row["id"], []).append(row["completion"])
        return completions

    def _row(self, place: int, index: int, text: str) -> dict[str, Any]:
        return {
            "id": self.requests[place].id,
            "sample": index,
            "completion": text,
            "request": self._hashes[place],
        }

    def _paths(self) -> list[Path]:
        others = self.folder.glob("samples.rank*.jsonl")
        return [path for path in (self.folder / SAMPLES_FILE, *sorted(others)) if path.exists()]


def _hash(request: Request, model: str) -> str:
    """Return a hash of model and request, which detects a changed request with the same id."""
    what = json.dumps([model, request.text, request.max_new_tokens, request.stop])
    return hashlib.sha256(what.encode()).hexdigest()[:16]
