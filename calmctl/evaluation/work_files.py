"""Work files: the finished samples of an evaluation, one per line, so that an interrupted evaluation can resume.

Rank 0 writes `samples.jsonl`, the other ranks write `samples.rank1.jsonl` and so on; at the end rank 0 merges them.
Lines have `id` and `completion`, so the file can be scored again (`calmctl score`). Likelihoods of references are kept
in the same way, in `likelihoods.jsonl`, until the evaluation is complete.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from calmctl.errors import UserError
from data_builders.files import write_text
from data_builders.row_files import Fields, append_jsonl, json_lines, read_jsonl
from evals import Request

SAMPLES_FILE = "samples.jsonl"
LIKELIHOODS_FILE = "likelihoods.jsonl"
_FIELDS = {"id": str, "sample": int, "completion": str, "request": str}
_LIKELIHOOD_FIELDS: Fields = {"id": str, "bits": (float, int), "request": str}


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
        self.path, self._likelihoods = (_of_rank(folder / name, rank) for name in (SAMPLES_FILE, LIKELIHOODS_FILE))
        self._places = {request.id: place for place, request in enumerate(requests)}
        if len(self._places) < len(requests):
            twice = next(each.id for place, each in enumerate(requests) if self._places[each.id] != place)
            raise UserError(f"two requests have the id {twice!r}; make the ids of the data's records different")
        self._hashes = [_hash(request, model) for request in requests]
        self._measured = [_hash(request, model, request.reference) for request in requests]

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
                place = self._place(row, path, "a completion", self._hashes)
                if row["sample"] < self.requests[place].num_samples:
                    texts.setdefault((place, row["sample"]), row["completion"])
        return texts

    def append_bits(self, found: Iterable[tuple[int, float]]) -> None:
        """Append the bits of references as (request index, bits), synced to disk like samples."""
        rows = [{"id": self.requests[at].id, "bits": bits, "request": self._measured[at]} for at, bits in found]
        append_jsonl(self._likelihoods, rows, durable=True)

    def read_bits(self) -> dict[int, float]:
        """Return the bits of the references that any rank has measured, by request index; see `read`."""
        return {
            self._place(row, path, "a likelihood", self._measured): float(row["bits"])
            for path in self._paths(LIKELIHOODS_FILE)
            for row in read_jsonl(path, fields=_LIKELIHOOD_FIELDS)
        }

    def forget_bits(self) -> None:
        """Remove the files of likelihoods, once the figures that come from them are written."""
        for path in self._paths(LIKELIHOODS_FILE):
            path.unlink()

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

    def _place(self, row: Mapping[str, Any], path: Path, what: str, hashes: Sequence[str]) -> int:
        """Return the index of a row's request; raise UserError if it was another one."""
        place = self._places.get(row["id"])
        if place is None or hashes[place] != row["request"]:
            raise UserError(
                f"{path} holds {what} of {row['id']!r} that this model is not asked for in this way: "
                "the model, the data or the program has changed; choose another --out"
            )
        return place

    def _paths(self, name: str = SAMPLES_FILE) -> list[Path]:
        first = self.folder / name
        others = self.folder.glob(f"{first.stem}.rank*.jsonl")
        return [path for path in (first, *sorted(others)) if path.exists()]


def _of_rank(path: Path, rank: int) -> Path:
    """Return the file of one process."""
    return path.with_name(f"{path.stem}.rank{rank}.jsonl") if rank else path


def _hash(request: Request, model: str, *measured: str) -> str:
    """Return a hash of model and request, and of a text to measure; it detects a changed request with the same id."""
    what = [model, request.text, request.max_new_tokens, request.stop, *measured]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
