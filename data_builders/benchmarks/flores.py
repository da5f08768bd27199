"""Read FLORES-200: aligned sentences of 204 languages, from the official release or from FLORES+.

Four layouts are read: the official archive `flores200_dataset.tar.gz`, the folder it unpacks to (`dev/<code>.dev`,
`devtest/<code>.devtest`), FLORES+ as Parquet (one file per split or per language, with the columns `id`, `iso_639_3`,
`iso_15924`, `text` and perhaps `glottocode`), and the hub id of FLORES+, openlanguagedata/flores_plus. FLORES+
relabelled some languages; the codes here are always those of FLORES-200.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, cast

from data_builders.benchmarks.languages import (
    FLORES_PLUS_LABELS,
    FLORES_PLUS_VARIETIES,
    LANGUAGES,
    LATER_LANGUAGES,
    require_language,
)
from data_builders.errors import UserError
from data_builders.files import lines_of, open_binary, read_bytes, sha256_file
from data_builders.hub import is_hub_id, read_hub
from data_builders.row_files import Fields, Row, iter_rows

ARCHIVE = "flores200_dataset.tar.gz"
ROWS = {"dev": 997, "devtest": 1012}
_FILE = re.compile(r"(?:.*/)?(dev|devtest)/(\w{3}_\w{4})\.\1(?:\.gz)?")
_PARQUET_SPLIT = re.compile(r"(devtest|dev)(?![a-z])")
_COLUMNS: Fields = {"id": (int, str), "iso_639_3": str, "iso_15924": str, "text": str}
_MAX_MEMBER_BYTES = 16 * 1024**2  # the largest has 500,000
_OPTIONAL_COLUMNS = ("glottocode", "variant")
_ADVICE = f"name {ARCHIVE}, the folder it unpacks to, or a folder of FLORES+ Parquet files"


@dataclass(frozen=True)
class Flores:
    """The sentences that were asked for.

    Attributes:
        release: `flores200` or `flores_plus`; their texts differ in places.
        sentences: by language code and split, in the same order for all languages.
        files: sha256 of the archive, or one sha256 over the list of the files read and their sha256.
    """

    release: Literal["flores200", "flores_plus"]
    sentences: dict[str, dict[str, tuple[str, ...]]]
    files: dict[str, str]


def read_flores(
    path: Path, languages: Sequence[str] = (), always: Sequence[str] = (), splits: Sequence[str] = tuple(ROWS)
) -> Flores:
    """Read `languages` (codes such as `fra_Latn`; empty: the 204 of the official table) and those of `always`.

    Later additions to the release (`LATER_LANGUAGES`) in `always` are skipped if this copy lacks them. Only `splits`
    need to be present.

    Raises:
        UserError: the data is missing, a language is unknown or ambiguous, or dev has not 997 or devtest not 1012 rows.
    """
    if path.is_dir() and (path / ARCHIVE).is_file():
        path = path / ARCHIVE
    if path.is_file():
        state = path.resolve(), path.stat().st_mtime_ns, path.stat().st_size
        return _unpacked(path, state, tuple(languages), tuple(always), tuple(splits))
    if is_hub_id(path):
        return _hub(path, languages, always, splits)
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder; {_ADVICE}")
    folder = next((each for each in (path, path / "flores200_dataset") if any(each.glob("dev*/*_*.dev*"))), None)
    if folder is not None:
        return _official(folder, lambda: _folder(folder, splits), languages, always, splits, None)
    if parquet := {file: split for file in sorted(path.rglob("*.parquet")) if (split := _split_of(file))}:
        return _plus(path, parquet, languages, always, splits)
    raise UserError(f"{path}: holds no FLORES data (no dev/<code>.dev, no Parquet file of dev and devtest); {_ADVICE}")


@lru_cache(maxsize=4)  # the checks of an experiment and its plan read it one after the other
def _unpacked(
    path: Path,
    state: tuple[Path, int, int],
    languages: tuple[str, ...],
    always: tuple[str, ...],
    splits: tuple[str, ...],
) -> Flores:
    """Return the sentences in an archive; `state` tells it from another one, or a newer one, of this name."""
    return _official(path, lambda: _archive(path), languages, always, splits, {path.name: sha256_file(path)})


def _official(
    path: Path,
    read: Callable[[], Iterable[tuple[str, str, bytes]]],
    languages: Sequence[str],
    always: Sequence[str],
    splits: Sequence[str],
    files: dict[str, str] | None,
) -> Flores:
    contents: dict[str, dict[str, bytes]] = {}
    for split, code, content in read():
        if split in splits:
            contents.setdefault(code, {})[split] = content
    codes = _chosen(path, contents, languages, always)
    sentences = {
        code: {split: _lines(path, code, split, contents[code].get(split)) for split in splits} for code in codes
    }
    if files is None:
        hashes = {
            f"{split}/{code}.{split}": hashlib.sha256(contents[code][split]).hexdigest()
            for split in splits
            for code in codes
        }
        files = {f"{path.name} ({len(hashes)} files)": _combined(hashes)}
    return Flores("flores200", sentences, files)


def _archive(path: Path) -> Iterable[tuple[str, str, bytes]]:
    """Yield (split, code, content) of the archive's files, without unpacking to disk."""
    seen: set[str] = set()
    with open_binary(path) as stream:
        try:
            with tarfile.open(fileobj=cast(Any, _Sparing(stream, path)), mode="r:") as archive:
                for member in archive:
                    if member.size > _MAX_MEMBER_BYTES:
                        raise UserError(f"{path}: {member.name!r} in it has {member.size} bytes; {_ADVICE}")
                    found = _FILE.fullmatch(member.name)
                    if found is None or member.isdir():
                        continue
                    if not member.isreg() or f"{found[1]}/{found[2]}" in seen:
                        problem = "is there twice" if member.isreg() else "is a link or a device"
                        raise UserError(f"{path}: {member.name!r} in it {problem}; {_ADVICE}")
                    seen.add(f"{found[1]}/{found[2]}")
                    content = archive.extractfile(member)
                    assert content is not None, "a regular file"
                    yield found[1], found[2], content.read()
        except (tarfile.TarError, UnicodeError, RecursionError) as error:
            raise UserError(f"{path}: cannot be read as a tar archive ({error}); {_ADVICE}") from None


class _Sparing:
    """A stream that refuses large reads: `tarfile` reads headers into memory whatever size the archive claims."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream, self._path = stream, path
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        if size > _MAX_MEMBER_BYTES:
            raise UserError(f"{self._path}: a header in it has {size} bytes; {_ADVICE}")
        return self._stream.read(size)


def _folder(folder: Path, splits: Sequence[str]) -> Iterable[tuple[str, str, bytes]]:
    for split in splits:
        for file in sorted((folder / split).glob(f"*.{split}*")):
            if found := _FILE.fullmatch(f"{split}/{file.name}"):
                yield split, found[2], read_bytes(file)


def _lines(path: Path, code: str, split: str, content: bytes | None) -> tuple[str, ...]:
    where = f"{path}: {split}/{code}.{split}"
    if content is None:
        raise UserError(f"{where} is missing; {_ADVICE}")
    return _checked(where, split, lines_of(content, where))


def _plus(
    path: Path, parquet: dict[Path, str], languages: Sequence[str], always: Sequence[str], splits: Sequence[str]
) -> Flores:
    parquet = {file: split for file, split in parquet.items() if split in splits}
    contents = ((split, file.stem.rpartition("_")[2], iter_rows(file, _COLUMNS)) for file, split in parquet.items())
    sentences = _plus_sentences(path, contents, languages, always, splits)
    hashes = {str(PurePosixPath(file.relative_to(path))): sha256_file(file) for file in parquet}
    return Flores("flores_plus", sentences, {f"{path.name} ({len(hashes)} files)": _combined(hashes)})


def _hub(data: Path, languages: Sequence[str], always: Sequence[str], splits: Sequence[str]) -> Flores:
    contents = {split: read_hub(data, "default", (split,), _COLUMNS, _OPTIONAL_COLUMNS) for split in splits}
    rows = [(split, "", found) for split, (found, _) in contents.items()]
    files = {source.file: source.sha256 for _, source in contents.values()}
    return Flores("flores_plus", _plus_sentences(data, rows, languages, always, splits), files)


def _plus_sentences(
    path: Path,
    contents: Iterable[tuple[str, str, Iterable[Row]]],
    languages: Sequence[str],
    always: Sequence[str],
    splits: Sequence[str],
) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the sentences by language and split; `contents` are (split, variety in the file's name, rows)."""
    rows: dict[str, dict[str, list[tuple[int, str]]]] = {}
    for split, variety, found in contents:
        for row in found:
            if code := _code(row, variety):
                rows.setdefault(code, {}).setdefault(split, []).append((int(row["id"]), row["text"]))
    codes = _chosen(path, rows, languages, always)
    sentences = {}
    for code in codes:
        for split in splits:
            if len({row for row, _ in rows[code].get(split, [])}) != len(rows[code].get(split, [])):
                raise UserError(f"{path}: {split} of {code} has several rows of one id; get the files again")
        sentences[code] = {
            split: _checked(
                f"{path}: {split} of {code}", split, [text for _, text in sorted(rows[code].get(split, []))]
            )
            for split in splits
        }
    return sentences


def _code(row: Row, variety: str) -> str | None:
    """Return the FLORES-200 code of a row of FLORES+, or None if FLORES-200 does not have its language."""
    label, glottocode = f"{row['iso_639_3']}_{row['iso_15924']}", row.get("glottocode") or ""
    if {glottocode, row.get("variant"), variety} & FLORES_PLUS_VARIETIES:
        return None
    code = FLORES_PLUS_LABELS.get(f"{label}_{glottocode}") or FLORES_PLUS_LABELS.get(label, label)
    return code if code in LANGUAGES or code in LATER_LANGUAGES else None


def _split_of(file: Path) -> str | None:
    found = (_PARQUET_SPLIT.match(name) for name in (file.name, file.parent.name))
    return next((match[1] for match in found if match), None)


def _chosen(path: Path, available: Iterable[str], languages: Sequence[str], always: Sequence[str]) -> list[str]:
    """Return the codes to read, without duplicates, in the given order or the table's."""
    there = set(available)
    for code in languages:
        require_language(code, there)
    codes = languages or list(LANGUAGES)
    always = [code for code in always if code in there or code not in LATER_LANGUAGES]
    if missing := [code for code in (*codes, *always) if code not in there]:
        raise UserError(
            f"{path}: {len(missing)} languages are missing, such as {missing[0]}; get all of it, or name languages"
        )
    return list(dict.fromkeys([*codes, *always]))


def _checked(where: str, split: str, lines: Sequence[str]) -> tuple[str, ...]:
    if len(lines) != ROWS[split]:
        raise UserError(f"{where} has {len(lines)} rows, and FLORES-200 has {ROWS[split]} in {split}; get it again")
    if empty := [index for index, line in enumerate(lines) if not (line and line.strip())]:
        raise UserError(f"{where}: row {empty[0]} is empty; get it again")
    return tuple(lines)


def _combined(hashes: dict[str, str]) -> str:
    """Return the sha256 of the listing that sha256sum would print, sorted by file name."""
    listing = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(hashes.items()))
    return hashlib.sha256(listing.encode()).hexdigest()
