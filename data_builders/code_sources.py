"""Where a code corpus comes from: files of folder trees and rows of hub datasets, as batches of equal size.

The files of all trees come in an order that the seed draws, so that the first of them are a sample of all; rows of a
dataset come after them in its own order. Files are listed here and read where a batch is worked on.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from hashlib import sha256
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Any

from data_builders.code_fingerprints import draw
from data_builders.code_licences import TreeLicences, of_all
from data_builders.errors import DataError
from data_builders.hub import is_hub, is_hub_id, stream_hub

if TYPE_CHECKING:
    from data_builders.code_config import CodeDataConfig

EXTENSIONS = {
    "python": (".py",),
    "php": (".php",),
    "go": (".go",),
    "java": (".java",),
    "javascript": (".js", ".mjs", ".cjs", ".jsx"),
    "ruby": (".rb",),
    "typescript": (".ts", ".tsx"),
    "c": (".c", ".h"),
    "cpp": (".cc", ".cpp", ".cxx", ".hh", ".hpp", ".cu", ".cuh"),
    "csharp": (".cs",),
    "rust": (".rs",),
    "scala": (".scala",),
    "kotlin": (".kt",),
    "swift": (".swift",),
    "r": (".r",),
    "julia": (".jl",),
    "perl": (".pl", ".pm"),
    "lua": (".lua",),
    "haskell": (".hs",),
    "shell": (".sh", ".bash"),
    "sql": (".sql",),
}
DOCUMENT = "document"
BATCH_BYTES = 4_000_000
_DOCUMENT_EXTENSIONS = (".md", ".rst")
_PACKAGE_METADATA = "METADATA"
_TEXT_COLUMNS = ("content", "code", "text", "whole_func_string")
_LANGUAGE_COLUMNS = ("language", "lang", "programming_language")
_PATH_COLUMNS = ("path", "max_stars_repo_path", "func_path_in_repository", "file_path")
_LICENCE_COLUMNS = ("license", "max_stars_repo_licenses", "licenses", "detected_licenses")


@dataclass(frozen=True)
class Document:
    """A file that has not been read, or a row of a dataset with its content.

    Attributes:
        id: the source's name and the path in it, the same on every machine.
        language: a key of EXTENSIONS, or DOCUMENT.
        size: bytes.
        licence: what the source says: `permissive`, `other` or `unknown`.
        mark: changes when the content does.
    """

    id: str
    language: str
    size: int
    licence: str
    mark: str
    path: Path | None = None
    content: bytes | None = None

    def read(self) -> bytes:
        """Return the content; raises OSError as reading a file does."""
        return self.content if self.path is None else self.path.read_bytes()  # type: ignore[return-value]


@dataclass(frozen=True)
class Batch:
    """Documents that are worked on together; `index` counts batches from 0."""

    index: int
    documents: tuple[Document, ...]

    @property
    def num_bytes(self) -> int:
        """Return the size of all documents."""
        return sum(each.size for each in self.documents)

    @property
    def key(self) -> str:
        """Return a digest that changes when a document or its place does."""
        listing = "\n".join(f"{each.id}\0{each.size}\0{each.mark}\0{each.licence}" for each in self.documents)
        return sha256(f"{self.index}\n{listing}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Sources:
    """All documents of a build: files in the order that the seed draws, then datasets."""

    config: CodeDataConfig
    files: tuple[Document, ...]
    datasets: tuple[Path, ...]

    @property
    def num_bytes(self) -> int:
        """Return the size of the files that are read; that of datasets is not known before."""
        return sum(each.size for each in _within(self.config, self.files))

    def batches(self) -> Iterator[Batch]:
        """Yield the documents within `max_source_bytes`; raises DataError for datasets that hold none."""
        waiting: list[Document] = []
        index = size = 0
        for document in _within(self.config, self._documents()):
            waiting.append(document)
            size += document.size
            if size >= BATCH_BYTES:
                yield Batch(index, tuple(waiting))
                waiting, index, size = [], index + 1, 0
        if waiting:
            yield Batch(index, tuple(waiting))

    def _documents(self) -> Iterator[Document]:
        yield from self.files
        for data in self.datasets:
            yield from _dataset(data, _wanted(self.config), self.config)


def list_sources(config: CodeDataConfig) -> Sources:
    """List the files of all sources; raises DataError for sources that hold none."""
    if not config.sources:
        raise DataError("sources: name at least one with --source: a folder, a hub dataset, stdlib or site-packages")
    wanted = _wanted(config)
    files: list[Document] = []
    datasets: list[Path] = []
    seen: set[str] = set()
    names: Counter[str] = Counter()
    for source in config.sources:
        found: list[Document] = []
        for name, root in _roots(source):
            names[name] += 1
            unique = name if names[name] == 1 else f"{name}-{names[name]}"
            if not is_hub_id(root):
                found += _tree(unique, root, wanted, config.exclude, seen)
            if not any(each.language != DOCUMENT for each in found) and is_hub(root):
                datasets.append(root)
            elif not found:
                raise DataError(
                    f"{source}: no usable file of {', '.join(sorted(wanted))} in it"
                    " that another source has not; name a folder of source files, or change languages or exclude"
                )
        files += found
    return Sources(config, tuple(sorted(files, key=lambda each: draw(config.seed, "order", each.id))), tuple(datasets))


def _wanted(config: CodeDataConfig) -> set[str]:
    return set(config.languages) | ({DOCUMENT} if DOCUMENT in config.prose else set())


def _roots(source: str) -> list[tuple[str, Path]]:
    """Return the folders that a source stands for, each with its name; raises DataError where there is none."""
    if source == "stdlib":
        return [(source, Path(sysconfig.get_path("stdlib")))]
    if source == "site-packages":
        entries = dict.fromkeys(Path(entry) for entry in sys.path if Path(entry).name in (source, "dist-packages"))
        if folders := [(source, folder) for folder in entries if folder.is_dir()]:
            return folders
        raise DataError(f"{source}: this Python has no such folder; name folders of source files")
    path = Path(source).expanduser()
    if path.is_dir() or is_hub_id(path):
        return [(path.as_posix() if is_hub_id(path) else path.resolve().name or "root", path)]
    problem = "is a file" if path.is_file() else "no such folder"
    raise DataError(f"{source}: {problem}; name a folder of source files, a hub dataset, stdlib or site-packages")


def _tree(name: str, root: Path, wanted: set[str], exclude: tuple[str, ...], seen: set[str]) -> list[Document]:
    root = root.resolve()
    licences = TreeLicences(root)
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(each for each in folders if not _excluded(each, exclude))
        for file in sorted(files):
            path = Path(folder, file)
            language = _language_of(file)
            if language not in wanted or _excluded(file, exclude) or str(path) in seen:
                continue
            status = path.lstat()
            if not S_ISREG(status.st_mode):
                continue
            seen.add(str(path))
            # Names of files are bytes; those that are no text are written as in a message.
            document_id = os.fsencode(f"{name}/{path.relative_to(root).as_posix()}").decode(errors="backslashreplace")
            mark = str(status.st_mtime_ns)
            found.append(Document(document_id, language, status.st_size, licences.of(path), mark, path))
    return found


def _language_of(file: str) -> str:
    if file == _PACKAGE_METADATA:
        return DOCUMENT
    extension = os.path.splitext(file)[1].lower()
    if extension in _DOCUMENT_EXTENSIONS:
        return DOCUMENT
    return next((language for language, extensions in EXTENSIONS.items() if extension in extensions), "")


def _excluded(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _dataset(data: Path, wanted: set[str], config: CodeDataConfig) -> Iterator[Document]:
    name = data.as_posix() if is_hub_id(data) else data.resolve().name
    used = 0
    for number, row in enumerate(stream_hub(data, "train")):
        content = next((row[column] for column in _TEXT_COLUMNS if isinstance(row.get(column), str)), None)
        if content is None:
            raise DataError(f"{data}, row {number}: no text in {', '.join(_TEXT_COLUMNS)}; is it a dataset of code?")
        language = _row_language(row, config.languages)
        if language not in wanted:
            continue
        used += 1
        raw = content.encode("utf-8", errors="surrogatepass")
        licence = of_all(_values(row, _LICENCE_COLUMNS))
        mark = sha256(raw).hexdigest()
        yield Document(f"{name}/{number}", language, len(raw), licence, mark, content=raw)
    if not used:
        raise DataError(f"{data}: no row of {', '.join(config.languages)} in its train split; name another dataset")


def _row_language(row: dict[str, Any], languages: tuple[str, ...]) -> str:
    """Return a row's language by its column, else by its path, else the only one that is asked for."""
    for value in _values(row, _LANGUAGE_COLUMNS):
        return {"c++": "cpp", "c#": "csharp"}.get(value.lower(), value.lower())
    for value in _values(row, _PATH_COLUMNS):
        return _language_of(value)
    return languages[0] if len(languages) == 1 else ""


def _values(row: dict[str, Any], columns: tuple[str, ...]) -> list[str]:
    found = [row[column] for column in columns if row.get(column)]
    return [str(value) for each in found for value in (each if isinstance(each, list) else [each])]


def _within(config: CodeDataConfig, documents: Iterable[Document]) -> Iterator[Document]:
    """Yield documents of each language until they are `max_source_bytes`."""
    budget = config.max_source_bytes
    read: Counter[str] = Counter()
    for document in documents:
        if budget is None or read[document.language] < budget:
            read[document.language] += document.size
            yield document
        elif document.content is not None and all(read[language] >= budget for language in config.languages):
            return  # a dataset may be far longer than what is wanted of it
