"""What augs with tokenizers of their own read of training examples: found once, kept in the run's folder."""

import hashlib
import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from calmctl.modeling.tokenizers.segmentation import NEVER, SEGMENTATIONS, Segmenter, Segments
from calmctl.processes.ranks import current_ranks
from calmctl.training.examples import AugExamples, Examples

# Examples that a plan looks at, spread over all of them.
SAMPLE = 1000

_LOGGER = logging.getLogger(__name__)


def with_aug_tokens(examples: Examples, segmenters: Sequence[Segmenter | None], folder: Path | None) -> Examples:
    """Return the same examples with what each aug reads of them; None for augs that take the anchor's tokens.

    Args:
        folder: where the first process keeps what it finds, for the others and for going on later; None = nowhere.
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
    """Return what an aug reads of examples, or of some of them."""

    def read(row: int) -> Segments:
        begin, end = examples.starts[row], examples.starts[row + 1]
        restarts = (examples.positions[begin:end] == 0).tolist() if examples.positions is not None else None
        return segmenter.read(examples.example(row).tolist(), restarts=restarts)[0]

    return AugExamples.of(map(read, range(len(examples)) if rows is None else rows))


def reading_facts(examples: Examples, segmenters: Sequence[Segmenter | None]) -> list[dict[str, Any] | None]:
    """Return, per aug, how it reads examples, measured on some of them; None where it takes the anchor's tokens.

    `aug_tokens_per_anchor_token` counts those that it is fed with, `replaced` is the share of them that were cut again.
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
    """Return how many tokens, of those read of packed rows, are seen no more only because another document begins."""
    if examples.positions is None:
        return 0
    # Where each token of an aug died, as a place among all of the anchor's.
    died = found.columns[2] + np.repeat(examples.starts[rows], np.diff(found.starts))
    return int((examples.positions[died[found.columns[2] != NEVER]] == 0).sum())


def described_reading(facts: dict[str, Any]) -> str:
    """Return how an aug reads examples in words; see `reading_facts`."""
    how = SEGMENTATIONS[facts["segmentation"]]
    again = f", {facts['replaced']:.1%} of them cut again" if facts["replaced"] else ""
    return f"a tokenizer of its own, {facts['aug_tokens_per_anchor_token']:.2f} tokens per anchor token ({how}{again})"


def _key(examples: Examples, segmenter: Segmenter) -> str:
    """Return what identifies the examples and how they are read."""
    known = hashlib.sha256(json.dumps(segmenter.identity(), sort_keys=True).encode())
    for values in (examples.ids, examples.starts, examples.positions):
        known.update(b"-" if values is None else np.ascontiguousarray(values).tobytes())
    return known.hexdigest()[:16]


def _write(file: Path, found: AugExamples) -> None:
    """Keep what was found; where there is no room for it, every process finds it by itself."""
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
    """Return what a file holds; None where it is missing or damaged, for it can be made again."""
    try:
        held = load_file(file)
        return AugExamples(held["columns"], held["starts"])
    except (OSError, KeyError, SafetensorError):
        return None
