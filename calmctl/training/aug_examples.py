"""The tokens that augs with their own tokenizers read of training examples, computed once and cached in the run."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from calmctl.modeling.options import SEGMENTATIONS
from calmctl.modeling.tokenizers.segmentation import NEVER, Segmenter, Segments
from calmctl.processes.ranks import current_ranks
from calmctl.training.examples import AugExamples, Examples

# Number of examples that `reading_facts` measures, spread evenly over all.
SAMPLE = 1000

_LOGGER = logging.getLogger(__name__)


def with_aug_tokens(examples: Examples, segmenters: Sequence[Segmenter | None], folder: Path | None) -> Examples:
    """Return the same examples with the tokens that each aug reads; None for augs that take the anchor's tokens.

    Args:
        folder: where the first process caches its result, for other processes and for a resumed run; None = no cache.
    """
    ranks = current_ranks()
    augs: list[AugExamples | None] = []
    for segmenter in segmenters:
        if segmenter is None:
            augs.append(None)
            continue
        file = folder / f"aug_tokens-{_key(examples, segmenter)}.safetensors" if folder is not None else None
        found = None
        if ranks.is_first and (file is None or (found := _read(file)) is None):
            found = segmented(examples, segmenter)
            if file is not None:
                _write(file, found)
        ranks.wait()
        if found is None and file is not None:
            found = _read(file)
        augs.append(found if found is not None else segmented(examples, segmenter))
    return replace(examples, augs=tuple(augs))


def segmented(examples: Examples, segmenter: Segmenter, rows: Sequence[int] | None = None) -> AugExamples:
    """Return the tokens that an aug reads of all examples, or of some rows."""

    def read(row: int) -> Segments:
        begin, end = examples.starts[row], examples.starts[row + 1]
        restarts = (examples.positions[begin:end] == 0).tolist() if examples.positions is not None else None
        return segmenter.read(examples.example(row).tolist(), restarts=restarts)[0]

    return AugExamples.of(map(read, range(len(examples)) if rows is None else rows))


def reading_facts(examples: Examples, segmenters: Sequence[Segmenter | None]) -> list[dict[str, Any] | None]:
    """Return, per aug, how it reads examples, measured on a sample; None if it takes the anchor's tokens.

    `aug_tokens_per_anchor_token` counts every token fed to the aug; `replaced` is the share that a later cut replaced.
    """
    rows = np.unique(np.linspace(0, len(examples) - 1, SAMPLE).astype(int)).tolist()
    facts: list[dict[str, Any] | None] = []
    for segmenter in segmenters:
        if segmenter is None:
            facts.append(None)
            continue
        found = segmented(examples, segmenter, rows)
        fed, read = found.columns.shape[1], int(examples.lengths[rows].sum())
        replaced = int((found.columns[2] != NEVER).sum() - _out_of_sight(examples, found, rows))
        facts.append({
            "segmentation": segmenter.kind,
            "aug_tokens_per_anchor_token": round(fed / max(read, 1), 3),
            "replaced": round(replaced / max(fed, 1), 3),
        })  # fmt: skip
    return facts


def _out_of_sight(examples: Examples, found: AugExamples, rows: Sequence[int]) -> int:
    """Return how many aug tokens of packed rows ended only because another document began (they are not replaced)."""
    if examples.positions is None:
        return 0
    # The anchor token at which each aug token died, as an index into all of the anchor's.
    died = found.columns[2] + np.repeat(examples.starts[rows], np.diff(found.starts))
    return int((examples.positions[died[found.columns[2] != NEVER]] == 0).sum())


def described_reading(facts: dict[str, Any]) -> str:
    """Say in words how an aug reads examples (see `reading_facts`)."""
    how = SEGMENTATIONS[facts["segmentation"]]
    rate = facts["aug_tokens_per_anchor_token"]
    return f"its own tokenizer, {rate:.2f} tokens per anchor token ({how}{share_replaced(facts)})"


def share_replaced(facts: Mapping[str, Any]) -> str:
    """Say how many of an aug's tokens are replaced once more of the text is read; nothing if none is."""
    return f", {facts['replaced']:.1%} of them replaced later" if facts["replaced"] else ""


def _key(examples: Examples, segmenter: Segmenter) -> str:
    """Return a hash of the examples and the way they are read."""
    known = hashlib.sha256(json.dumps(segmenter.identity(), sort_keys=True).encode())
    for values in (examples.ids, examples.starts, examples.positions):
        known.update(b"-" if values is None else np.ascontiguousarray(values).tobytes())
    return known.hexdigest()[:16]


def _write(file: Path, found: AugExamples) -> None:
    """Write the cache file; if that fails, warn: every process then computes the tokens itself."""
    written = file.with_suffix(".tmp")
    try:
        save_file({"columns": found.columns, "starts": found.starts}, written)
        written.replace(file)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            written.unlink(missing_ok=True)
        _LOGGER.warning(
            "%s could not be written (%s): every process finds what augs read by itself, at every start", file, error
        )


def _read(file: Path) -> AugExamples | None:
    """Read the cache file; None if it is missing or damaged, as it can be computed again."""
    try:
        held = load_file(file)
        return AugExamples(held["columns"], held["starts"])
    except (OSError, KeyError, SafetensorError):
        return None
