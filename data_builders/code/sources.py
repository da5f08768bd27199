"""The sources of a code corpus: files of folder trees and rows of hub datasets, in batches of about equal size.

The seed draws the order of the files of all trees, so that the first files are a random sample; the rows of datasets
follow in their own order. Files are listed here, and read when their batch is scanned.
"""

from __future__ import annotations

import sys
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from data_builders.code.config import CodeDataConfig
from data_builders.code.documents import DOCUMENT, Document, dataset_documents, tree_documents
from data_builders.errors import UserError
from data_builders.hashing import draw
from data_builders.hub import is_hub, is_hub_id

BATCH_BYTES = 4_000_000


@dataclass(frozen=True)
class Batch:
    """Documents that are scanned together; `index` counts batches from 0."""

    index: int
    documents: tuple[Document, ...]

    @property
    def num_bytes(self) -> int:
        """Return the total size of the documents."""
        return sum(each.size for each in self.documents)

    @property
    def key(self) -> str:
        """Return a digest that changes when a document or its position does."""
        listing = "\n".join(f"{each.id}\0{each.size}\0{each.mark}\0{each.licence}" for each in self.documents)
        return sha256(f"{self.index}\n{listing}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Sources:
    """All documents of a build: files in the order drawn by the seed, then datasets."""

    config: CodeDataConfig
    files: tuple[Document, ...]
    datasets: tuple[Path, ...]

    @property
    def num_bytes(self) -> int:
        """Return the size of the files to read; the size of datasets is not known in advance."""
        return sum(each.size for each in _within(self.config, self.files))

    def batches(self) -> Iterator[Batch]:
        """Yield the documents within `max_source_bytes`; raises UserError for a dataset without usable rows."""
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
            yield from dataset_documents(data, _wanted(self.config), self.config.languages)


def list_sources(config: CodeDataConfig) -> Sources:
    """List the files of all sources; raises UserError for a source without usable files."""
    if not config.sources:
        raise UserError("sources: name at least one with --source: a folder, a hub dataset, stdlib or site-packages")
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
                found += tree_documents(unique, root, wanted, config.exclude, seen)
            if not any(each.language != DOCUMENT for each in found) and is_hub(root):
                datasets.append(root)
            elif not found:
                raise UserError(
                    f"{source}: no usable file of {', '.join(sorted(wanted))} in it"
                    " that another source has not; name a folder of source files, or change languages or exclude"
                )
        files += found
    return Sources(config, tuple(sorted(files, key=lambda each: draw(config.seed, "order", each.id))), tuple(datasets))


def _wanted(config: CodeDataConfig) -> set[str]:
    return set(config.languages) | ({DOCUMENT} if DOCUMENT in config.prose else set())


def _roots(source: str) -> list[tuple[str, Path]]:
    """Return (name, folder or hub id) for each part of a source; raises UserError if there is none."""
    if source == "stdlib":
        return [(source, Path(sysconfig.get_path("stdlib")))]
    if source == "site-packages":
        entries = dict.fromkeys(Path(entry) for entry in sys.path if Path(entry).name in (source, "dist-packages"))
        if folders := [(source, folder) for folder in entries if folder.is_dir()]:
            return folders
        raise UserError(f"{source}: this Python has no such folder; name folders of source files")
    path = Path(source).expanduser()
    if path.is_dir() or is_hub_id(path):
        return [(path.as_posix() if is_hub_id(path) else path.resolve().name or "root", path)]
    problem = "is a file" if path.is_file() else "no such folder"
    raise UserError(f"{source}: {problem}; name a folder of source files, a hub dataset, stdlib or site-packages")


def _within(config: CodeDataConfig, documents: Iterable[Document]) -> Iterator[Document]:
    """Yield documents, skipping languages that have reached `max_source_bytes`."""
    budget = config.max_source_bytes
    read: Counter[str] = Counter()
    for document in documents:
        if budget is None or read[document.language] < budget:
            read[document.language] += document.size
            yield document
        elif document.content is not None and all(read[language] >= budget for language in config.languages):
            return  # every language is full, and a dataset may be far longer
