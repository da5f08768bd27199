"""Where rows of the user's own lie, and what is read there.

A source is a file, a glob, a folder of files, a folder that `datasets` has saved (`save_to_disk`), or the id of a
dataset on the hub (`org/name`, `org/name@revision`). Where it has several splits, `SOURCE:SPLIT` names one;
`ID:SUBSET/SPLIT` names one of a subset of a hub dataset. Only what cannot be a local path is taken for an id.
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from data_builders.errors import UserError
from data_builders.files import require_file, sha256_file, sha256_of
from data_builders.hub import hub_configs, is_hub_id, open_hub
from data_builders.values import read_json

FORMATS = "JSONL, JSON, CSV, TSV or Parquet (also .gz, .bz2, .xz or .zst)"
_NAME = re.compile(r"\.(jsonl|json|ndjson|csv|tsv|parquet)(\.(gz|bz2|xz|zst))?$", re.IGNORECASE)
_NO_ROWS = {".xlsx", ".xls", ".ods", ".arrow", ".feather", ".avro", ".db", ".sqlite", ".pkl", ".pt", ".npz", ".pdf"}
_PACKED = re.compile(r"\.(gz|bz2|xz|zst)$", re.IGNORECASE)
_SPLIT = re.compile(r"(?i)(train|validation|valid|val|dev|test|eval)(?![a-z])")
_LOGGER = logging.getLogger(__name__)
_OTHER = "other"
_SAVED, _SAVED_INFO, _SAVED_SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"


@dataclass(frozen=True)
class RowSource:
    """Rows in files, or in a dataset.

    Attributes:
        name: as the user wrote it.
        files: in the order in which they are read; empty for a dataset.
        folder: of a dataset that was saved to disk.
        dataset: a `datasets.Dataset`; None for files.
    """

    name: str
    files: tuple[Path, ...] = ()
    folder: Path | None = None
    dataset: Any = None

    @cached_property
    def sha256(self) -> str:
        """Return the hex sha256 of the only file, or over names and checksums of all files, or of a dataset's rows."""
        if self.folder is not None:
            return sha256_of(self.folder, _saved_files(self.folder))
        if len(self.files) == 1:
            return sha256_file(self.files[0])
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(os.fsencode(file.name) + f"\0{sha256_file(file)}\n".encode())
        for part in self._parts():
            for row in part.to_pylist():
                digest.update(json.dumps(row, sort_keys=True, default=str).encode() + b"\n")
        return digest.hexdigest()

    def _parts(self) -> Iterable[Any]:
        """Return the dataset in Arrow tables, as it is stored: images and sounds would be decoded into objects."""
        return self.dataset.with_format("arrow").iter(batch_size=1000) if self.dataset is not None else ()


def find_rows(name: str) -> RowSource:
    """Find a source of rows; files are not opened yet, a dataset of the hub is downloaded.

    Raises:
        UserError: there is no such thing, it is no data, or a split has to be named.
    """
    path, split = _path_and_split(name)
    return _of_disk(name, path, split) or RowSource(name, dataset=_of_hub(name, path, split))


def check_source(name: str) -> None:
    """Raise UserError as `find_rows` does, but do not ask the hub."""
    _of_disk(name, *_path_and_split(name))


def private_name(name: str) -> str:
    """Return how a source may be named to others: the id of a dataset on the hub, of anything else the last part."""
    path, _ = _path_and_split(name)
    return name if is_hub_id(path) and not name.startswith((".", "~")) else Path(name).name


def _path_and_split(name: str) -> tuple[Path, str]:
    path, before, split = Path(name).expanduser(), *_without_split(name)
    return (path, "") if path.exists() or not split else (Path(before).expanduser(), split)


def _without_split(name: str) -> tuple[str, str]:
    """Return what stands before and after the last colon of a source; no split if there is none."""
    before, _, split = name.rpartition(":")
    return (before, split) if before and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", split) else (name, "")


def _of_disk(name: str, path: Path, split: str) -> RowSource | None:
    """Return what lies at a local path; None for what may be an id of the hub."""
    if path.is_dir():
        return _of_folder(name, path, split)
    if path.exists():
        if split:
            raise UserError(f"{name}: {path} is a file, which has no splits; leave :{split} out")
        return RowSource(name, (_checked(path),))
    if glob.has_magic(str(path)):
        found = sorted(set(glob.glob(str(path), recursive=True)))  # with two `**` it finds files several times
        files = [_checked(Path(file)) for file in found if os.path.isfile(file)]
        if not files:
            raise UserError(f"{name}: no file has such a name; check the pattern")
        return _of_split(name, _fixed_part(path), files, split)
    if is_hub_id(path) and not name.startswith((".", "~")):
        return None
    raise UserError(f"{name}: no such file or folder; check the path")


def _checked(path: Path) -> Path:
    """Return the path of a file that may hold rows; JSON and Parquet are known by content, whatever their names."""
    require_file(path)
    if path.suffix.lower() in _NO_ROWS:
        raise UserError(f"{path}: {path.suffix} is not read here; give {FORMATS}")
    return path


def _of_folder(name: str, folder: Path, split: str) -> RowSource:
    if (folder / _SAVED_SPLITS).is_file():
        listed = read_json(folder / _SAVED_SPLITS)
        splits = listed.get("splits") if isinstance(listed, Mapping) else None
        chosen = folder / _chosen(name, split, [each for each in splits or [] if isinstance(each, str)])
        return RowSource(name, folder=chosen, dataset=_saved(chosen))
    if (folder / _SAVED).is_file():
        if split:
            raise UserError(f"{name}: the dataset saved there has no splits; leave :{split} out")
        return RowSource(name, folder=folder, dataset=_saved(folder))
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and _NAME.search(file.name)]
    files = [file for file in files if not any(part[0] in "._" for part in file.relative_to(folder).parts)]
    if (folder / "manifest.json").is_file():  # what `calmctl data` built: files for several purposes
        named = ", ".join(file.name for file in files if file.name != "manifest.json")
        raise UserError(f"{name}: `calmctl data` built this folder; name one of its files ({named})")
    if not files:
        raise UserError(f"{name}: a folder that holds no data; give {FORMATS}")
    return _of_split(name, folder, files, split)


def _fixed_part(pattern: Path) -> Path:
    """Return the folder that a pattern begins with, before its first wildcard."""
    return next(folder for folder in pattern.parents if not glob.has_magic(str(folder)))


def _of_split(name: str, folder: Path, files: Sequence[Path], split: str) -> RowSource:
    """Return the files of a split, with which their names or those of their folders begin.

    Files without a split's name belong together.

    Args:
        folder: in which the files were looked for; its own name says nothing.
    """
    splits: dict[str, list[Path]] = {}
    for file in files:
        found = next(filter(None, map(_SPLIT.match, file.relative_to(folder).parts)), None)
        splits.setdefault(found[1].lower() if found else "", []).append(file)
    chosen = splits[_chosen(name, split, list(splits))]
    [(often, count)] = Counter(_PACKED.sub("", str(file)) for file in chosen).most_common(1)
    if count > 1:
        raise UserError(f"{name}: holds {Path(often).name} more than once, packed and not; move one of them away")
    kinds = sorted({_kind(file) for file in chosen})
    if len(kinds) > 1:
        example = next(kind for kind in kinds if kind != _OTHER)
        raise UserError(f"{name}: holds {' and '.join(kinds)} files; choose with a pattern, such as '*.{example}*'")
    return RowSource(name, tuple(chosen))


def _kind(file: Path) -> str:
    found = _NAME.search(file.name)
    kind = found[1].lower() if found else _OTHER
    return "jsonl" if kind == "ndjson" else kind


def _chosen(name: str, split: str, splits: Sequence[str]) -> str:
    """Return the split that is named, or the only one."""
    if split in splits:
        return split
    has = ", ".join(each or "files without a split's name" for each in splits) or "none"
    if split:
        raise UserError(f"{name}: has no split {split!r} (has: {has}); correct it")
    if len(splits) != 1:
        example = next(filter(None, splits), "train")
        raise UserError(f"{name}: has several splits ({has}); name one, as {name}:{example}")
    return splits[0]


def _saved(folder: Path) -> Any:
    """Return the dataset that `save_to_disk` wrote into a folder."""
    from datasets import Dataset
    from datasets.exceptions import DatasetsError

    try:
        return Dataset.load_from_disk(str(folder))
    except (DatasetsError, OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).splitlines()[:1])
        raise UserError(f"{folder}: cannot be read as a saved dataset ({reason}); save it again") from None


def _saved_files(folder: Path) -> list[Path]:
    """Return the files of a saved dataset; what `datasets` caches beside them (`cache-*.arrow`) is none of them."""
    state = read_json(folder / _SAVED)
    return [folder / name for name in (_SAVED, _SAVED_INFO, *(each["filename"] for each in state["_data_files"]))]


def _of_hub(name: str, path: Path, split: str) -> Any:
    """Return a split of a dataset of the hub."""
    _LOGGER.warning("%s: no such path here; asking the hub for a dataset", path)
    subset, _, split = split.rpartition("/")
    if not subset and len(subsets := hub_configs(path)) > 1 and "default" not in subsets:
        listed = ", ".join(subsets)
        raise UserError(f"{name}: has several subsets ({listed}); name one and a split, as {path}:{subsets[0]}/train")
    loaded = open_hub(path, subset or None)
    return loaded[_chosen(name, split, list(loaded))]
