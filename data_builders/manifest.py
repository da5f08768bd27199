"""The manifest of a data folder: its files with their hashes, and the check that the folder matches it.

A builder calls `open_folder`, writes its files, and ends with `close_folder`. A folder without `manifest.json` is
unfinished, and the same build may run in it again. Which build that is says the record of the command's run
(`run.json`) or, if the builder was called directly, `unfinished.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from data_builders.errors import UserError
from data_builders.files import atomic_path, sha256_file
from data_builders.values import read_json, write_json

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST_NAME = "manifest.json"
UNFINISHED_NAME = "unfinished.json"
_ADVICE = "delete the folder and build it again, or name another folder"
_IDENTITY = ("builder", "format", "config")
_RUN_NAME = "run.json"


def write_parquet(path: Path, tables: Iterable[pa.Table], schema: pa.Schema) -> int:
    """Write tables into one Parquet file, a row group each, atomically; return the number of rows.

    Every writer option that changes the bytes is fixed here, so equal tables give equal files.
    """
    import pyarrow.parquet as pq

    rows = 0
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(
            temporary,
            schema,
            version="2.6",
            data_page_version="1.0",
            compression="zstd",
            compression_level=1,
            use_dictionary=False,
            write_statistics=False,
        ) as writer,
    ):
        for table in tables:
            writer.write_table(table, row_group_size=max(1, table.num_rows))
            rows += table.num_rows
    return rows


def file_entry(path: Path, rows: int | None = None) -> dict[str, Any]:
    """Return the manifest entry of a written file: sha256, rows (null: not a table) and bytes."""
    return {"sha256": sha256_file(path), "rows": rows, "bytes": path.stat().st_size}


def open_folder(folder: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """Claim `folder` for a build and return None, or return the manifest if the same build is already finished there.

    `identity` holds builder, format and config. Raises UserError if the folder holds another build, other files, or
    files that no longer match their manifest.
    """
    identity = as_json({name: identity[name] for name in _IDENTITY})
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder for the data")
    if (folder / MANIFEST_NAME).exists():
        manifest = read_manifest(folder)
        _require_same_build(folder, manifest, identity)
        verify_files(folder, manifest)
        (folder / UNFINISHED_NAME).unlink(missing_ok=True)
        return manifest
    if _is_claimed_by_run(folder):  # a run resumes with the same settings only
        return None
    others = sorted({path.name for path in folder.iterdir()} - {UNFINISHED_NAME}) if folder.exists() else []
    if others and not (folder / UNFINISHED_NAME).exists():
        raise UserError(
            f"{folder} holds other files ({others[0]}) and no {MANIFEST_NAME}; name a new or an empty folder"
        )
    if others:
        _require_same_build(folder, _read_object(folder / UNFINISHED_NAME), identity, "an unfinished build")
    write_json(folder / UNFINISHED_NAME, identity)
    return None


def close_folder(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Write the manifest, which marks the folder as finished, and return it as it reads back."""
    for litter in folder.rglob(".*.tmp"):  # left by a build that was killed while writing
        litter.unlink()
    write_json(folder / MANIFEST_NAME, manifest)
    (folder / UNFINISHED_NAME).unlink(missing_ok=True)
    return read_manifest(folder)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a finished data folder; raises UserError if it is missing or damaged."""
    path = folder / MANIFEST_NAME
    if path.exists():
        manifest = _read_object(path)
        files = manifest.get("files")
        if not isinstance(files, dict) or not all(map(_is_entry, files, files.values())):
            raise UserError(f"{path}: damaged (its list of files is none); {_ADVICE}")
        return manifest
    if (folder / UNFINISHED_NAME).exists() or _is_claimed_by_run(folder):
        raise UserError(f"{folder} holds an unfinished build; run the same build again to finish it")
    raise UserError(f"{folder} has no {MANIFEST_NAME}; name a folder made by `calmctl data`")


def verify_files(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Raise UserError naming the first file that is missing or differs from its manifest entry."""
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} is named in {MANIFEST_NAME} but is missing; {_ADVICE}")
        if path.stat().st_size != entry["bytes"] or sha256_file(path) != entry["sha256"]:
            raise UserError(f"{path} differs from its sha256 in {MANIFEST_NAME}; {_ADVICE}")


def _is_claimed_by_run(folder: Path) -> bool:
    """Tell whether a `calmctl data` command has started a run in the folder."""
    return (folder / _RUN_NAME).exists() and _read_object(folder / _RUN_NAME).get("kind") == "data"


def _require_same_build(
    folder: Path, found: Mapping[str, Any], asked: Mapping[str, Any], what: str = "a build"
) -> None:
    if found.get("builder") != asked["builder"] or found.get("format") != asked["format"]:
        there, here = ((m.get("builder"), m.get("format")) for m in (found, asked))
        raise UserError(f"{folder} holds {what} of {there}, not {here}; name another folder")
    theirs, ours = found.get("config"), asked["config"]
    if not isinstance(theirs, dict):
        raise UserError(f"{folder} holds {what} whose settings are damaged; {_ADVICE}")
    changed = [key for key in sorted({*theirs, *ours}) if theirs.get(key) != ours.get(key)]
    if changed:
        differences = ", ".join(f"{key} {theirs.get(key)!r} there, {ours.get(key)!r} asked" for key in changed)
        raise UserError(f"{folder} holds {what} with other settings ({differences}); name another folder")


def _read_object(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: is not a JSON object; {_ADVICE}")
    return content


def _is_entry(name: str, entry: Any) -> bool:
    """Tell whether a manifest entry is valid: a file inside the folder, with sha256 and bytes."""
    path = PurePosixPath(name)
    is_inside = not path.is_absolute() and ".." not in path.parts
    return is_inside and isinstance(entry, dict) and {"sha256", "bytes"} <= entry.keys()


def as_json(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return `content` as it would read back from JSON (tuples become lists)."""
    result: dict[str, Any] = json.loads(json.dumps(content))
    return result
