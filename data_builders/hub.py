"""Datasets of the Hugging Face hub, read with `datasets`: by id, or from a folder with a downloaded copy.

A copy is the whole repository: Parquet files, and the README.md whose header names its configurations.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeVar

from data_builders.errors import UserError
from data_builders.row_files import Fields, Row, Source, require_fields

_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?")
_FILE = re.compile(r"\.(jsonl?|ndjson|csv|tsv|txt|parquet|arrow|gz|bz2|xz|zst|zip|tar|tgz)$", re.IGNORECASE)
_OWN_FILES = tuple(f"{folder}{name}" for folder in ("", "*/") for name in ("*.jsonl", "*.jsonl.gz", "*.tsv"))
T = TypeVar("T")


def is_hub_id(data: Path) -> bool:
    """Tell whether `data` is a hub id (`org/name`, `org/name@revision`) and no path.

    What would lie in a folder that exists here, or is named like a file, is meant as a path even if it does not exist.
    """
    is_path = data.exists() or data.parent.is_dir() or _FILE.search(data.name)
    return bool(_ID.fullmatch(data.as_posix())) and not is_path


def is_hub(data: Path) -> bool:
    """Tell whether `data` is a hub id, or a folder with a copy of a hub dataset.

    A folder with a benchmark's own files (JSONL, TSV), directly or one level down, is not a copy, even if it also
    holds Parquet files.
    """
    if not data.is_dir():
        return is_hub_id(data)
    has_own = any(next(data.glob(pattern), None) for pattern in _OWN_FILES)
    return not has_own and next(data.rglob("*.parquet"), None) is not None


def hub_configs(data: Path) -> list[str]:
    """Return the names of a dataset's configurations; raises UserError if they cannot be loaded."""
    from datasets import get_dataset_config_names

    name, revision = _locate(data)
    return list(_reaching(data, lambda: get_dataset_config_names(name, revision=revision)))


def read_hub(
    data: Path, config: str | None, splits: Sequence[str], fields: Fields, optional: Sequence[str] = ()
) -> tuple[list[Row], Source]:
    """Return the rows of these splits, in order, with the columns of `fields` and those of `optional` that exist.

    Args:
        config: name of the configuration; None: the only one.
        fields: required columns with the type of their values.

    Raises:
        UserError: the dataset cannot be loaded, has no rows, or lacks a split, a column or a value.
    """
    loaded = _load(data, config)
    where = f"{data}{f' ({config})' if config else ''}"
    rows: list[Row] = []
    for split in splits:
        if split not in loaded:
            raise UserError(f"{where} has no split {split!r}, only {', '.join(loaded)}; is it the right dataset?")
        if missing := [name for name in fields if name not in loaded[split].column_names]:
            raise UserError(f"{where}: no column {missing[0]!r}; is it the right dataset?")
        there = [name for name in (*fields, *optional) if name in loaded[split].column_names]
        found = loaded[split].select_columns(there).to_list()
        rows += [require_fields(row, fields, f"{where}, {split} row {number}") for number, row in enumerate(found)]
    if not rows:
        raise UserError(f"{where}: {'+'.join(splits)} holds no rows; is it the right dataset?")
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True).encode() + b"\n")
    return rows, Source(f"{where} {'+'.join(splits)}, its rows", digest.hexdigest(), len(rows))


def open_hub(data: Path, config: str | None) -> Any:
    """Return the splits of a dataset by name, memory-mapped; raises UserError if it cannot be loaded."""
    return _load(data, config)


def stream_hub(data: Path, split: str) -> Iterator[Row]:
    """Yield the rows of a split of a dataset's default configuration, streamed to bound memory.

    Raises:
        UserError: the dataset cannot be loaded, or breaks off.
    """
    from datasets import load_dataset

    name, revision = _locate(data)
    rows = _reaching(data, lambda: iter(load_dataset(name, split=split, revision=revision, streaming=True)))
    while (row := _reaching(data, lambda: next(rows, None))) is not None:
        yield row


@lru_cache(maxsize=1)
def _load(data: Path, config: str | None) -> Any:
    from datasets import load_dataset

    name, revision = _locate(data)
    return _reaching(data, lambda: load_dataset(name, config, revision=revision, cache_dir=_cache_of(data)))


def _cache_of(data: Path) -> str | None:
    """Return the folder in which `datasets` caches a dataset; None = its usual one.

    Copies need one each: `datasets` takes a folder for another one of the same name and layout, or for an earlier state
    of itself, and would return the rows of that.
    """
    from datasets import config

    if is_hub_id(data):
        return None
    paths = sorted(path for path in data.rglob("*") if path.is_file())
    states = [(str(path.relative_to(data)), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    digest = hashlib.sha256(json.dumps([str(data.resolve()), states]).encode()).hexdigest()
    return str(Path(config.HF_DATASETS_CACHE) / f"copy-{digest[:16]}")


def _locate(data: Path) -> tuple[str, str | None]:
    if not is_hub_id(data):
        return str(data), None
    name, _, revision = data.as_posix().partition("@")
    return name, revision or None


@cache
def be_offline_without_network() -> None:
    """Restrict the libraries of the hub to their caches if it cannot be reached; they would try again for a minute."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception:  # of one of several HTTP libraries
        constants.HF_HUB_OFFLINE = True


def _reaching(data: Path, load: Callable[[], T]) -> T:
    """Return `load()`; turn every error of the `datasets` library into a one-line UserError."""
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    what = f"{data}: as a dataset"
    if is_hub_id(data):
        what = f"{data}: no such path, and as a dataset of the hub"
        be_offline_without_network()
    try:
        return load()
    except DatasetNotFoundError as error:
        advice = "correct it, or log in (`hf auth login`) where it is private or gated"
        raise UserError(f"{what} not found ({_first_line(error)}); {advice}") from None
    except ConnectionError as error:
        advice = "download it where there is a network, and name the folder"
        raise UserError(f"{what} out of reach ({_first_line(error)}); {advice}") from None
    except (DatasetsError, OSError, ValueError, RuntimeError) as error:
        advice = "name another, or a revision of it (id@revision)"
        raise UserError(f"{what} not usable ({_first_line(error)}); {advice}") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
