"""Documents of a code corpus: the files of a folder tree, or the rows of a hub dataset."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from hashlib import sha256
from pathlib import Path
from stat import S_ISREG
from typing import Any

from data_builders.code.licences import TreeLicences, of_all
from data_builders.errors import UserError
from data_builders.hub import is_hub_id, stream_hub

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
_DOCUMENT_EXTENSIONS = (".md", ".rst")
_PACKAGE_METADATA = "METADATA"
_TEXT_COLUMNS = ("content", "code", "text", "whole_func_string")
_LANGUAGE_COLUMNS = ("language", "lang", "programming_language")
_PATH_COLUMNS = ("path", "max_stars_repo_path", "func_path_in_repository", "file_path")
_LICENCE_COLUMNS = ("license", "max_stars_repo_licenses", "licenses", "detected_licenses")


@dataclass(frozen=True)
class Document:
    """A file that is not read yet (`path`), or a row of a dataset with its `content`.

    Attributes:
        id: the source's name and the path or row in it; the same on every machine.
        language: a key of EXTENSIONS, or DOCUMENT.
        size: bytes.
        licence: according to the source: `permissive`, `other` or `unknown`.
        mark: changes when the content does (modification time, or sha256).
    """

    id: str
    language: str
    size: int
    licence: str
    mark: str
    path: Path | None = None
    content: bytes | None = None

    def read(self) -> bytes:
        """Return the content; raises OSError if the file cannot be read."""
        return self.content if self.path is None else self.path.read_bytes()  # type: ignore[return-value]


def tree_documents(name: str, root: Path, wanted: set[str], exclude: tuple[str, ...], seen: set[str]) -> list[Document]:
    """List the files of a folder tree in the wanted languages that are not in `seen`, and add them to `seen`.

    Args:
        name: the first part of their ids.
        exclude: name patterns of files and folders to leave out.
    """
    root = root.resolve()
    licences = TreeLicences(root)
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(each for each in folders if not _excluded(each, exclude))
        for file in sorted(files):
            path = Path(folder, file)
            language = language_of(file)
            if language not in wanted or _excluded(file, exclude) or str(path) in seen:
                continue
            status = path.lstat()
            if not S_ISREG(status.st_mode):
                continue
            seen.add(str(path))
            # File names are bytes; undecodable ones are escaped.
            document_id = os.fsencode(f"{name}/{path.relative_to(root).as_posix()}").decode(errors="backslashreplace")
            mark = str(status.st_mtime_ns)
            found.append(Document(document_id, language, status.st_size, licences.of(path), mark, path))
    return found


def language_of(file: str) -> str:
    """Return the language of a file by its name (DOCUMENT for prose); empty if unknown."""
    if file == _PACKAGE_METADATA:
        return DOCUMENT
    extension = os.path.splitext(file)[1].lower()
    if extension in _DOCUMENT_EXTENSIONS:
        return DOCUMENT
    return next((language for language, extensions in EXTENSIONS.items() if extension in extensions), "")


def _excluded(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def dataset_documents(data: Path, wanted: set[str], languages: tuple[str, ...]) -> Iterator[Document]:
    """Yield the rows of a hub dataset in the wanted languages; `languages` are the programming languages among them.

    Raises:
        UserError: a row has no text, or no row is in a wanted language.
    """
    name = data.as_posix() if is_hub_id(data) else data.resolve().name
    used = 0
    for number, row in enumerate(stream_hub(data, "train")):
        content = next((row[column] for column in _TEXT_COLUMNS if isinstance(row.get(column), str)), None)
        if content is None:
            raise UserError(f"{data}, row {number}: no text in {', '.join(_TEXT_COLUMNS)}; is it a dataset of code?")
        language = _row_language(row, languages)
        if language not in wanted:
            continue
        used += 1
        raw = content.encode("utf-8", errors="surrogatepass")
        licence = of_all(_values(row, _LICENCE_COLUMNS))
        mark = sha256(raw).hexdigest()
        yield Document(f"{name}/{number}", language, len(raw), licence, mark, content=raw)
    if not used:
        raise UserError(f"{data}: no row of {', '.join(languages)} in its train split; name another dataset")


def _row_language(row: dict[str, Any], languages: tuple[str, ...]) -> str:
    """Return a row's language: by its language column, else by its path, else the only language asked for."""
    for value in _values(row, _LANGUAGE_COLUMNS):
        return {"c++": "cpp", "c#": "csharp"}.get(value.lower(), value.lower())
    for value in _values(row, _PATH_COLUMNS):
        return language_of(value)
    return languages[0] if len(languages) == 1 else ""


def _values(row: dict[str, Any], columns: tuple[str, ...]) -> list[str]:
    found = [row[column] for column in columns if row.get(column)]
    return [str(value) for each in found for value in (each if isinstance(each, list) else [each])]
