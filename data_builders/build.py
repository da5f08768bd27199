"""The frame of every build: claim a folder, write tables into it, and finish with a manifest that lists them.

Worker processes write shards into the folder `.work`, which is kept until the build is finished: an interrupted build
continues from them.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_builders.manifest import as_json, close_folder, file_entry, open_folder, write_parquet
from data_builders.progress import Progress
from data_builders.row_files import Row
from data_builders.values import read_json, write_json
from data_builders.workers import Workers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

C = TypeVar("C")
WORK = ".work"
_MADE_OF = "made_of.json"


class BuildFolder:
    """A data folder that is being built.

    Attributes:
        work: the folder of the shards.
        files: manifest entries of the files written so far, by name.
    """

    def __init__(self, path: Path, progress: Progress, identity: Mapping[str, Any]) -> None:
        self.path, self.progress = path, progress
        self._identity = identity
        self.work = path / WORK
        self.files: dict[str, dict[str, Any]] = {}

    def claim_work(self, made_of: Mapping[str, Any]) -> None:
        """Keep the shards of an interrupted build, unless its identity or its inputs (`made_of`) have changed."""
        record = self.work / _MADE_OF
        made_of = as_json({**self._identity, **made_of})
        if record.exists():
            if read_json(record) == made_of:
                return
            self.progress.note("what the data are made of has changed since the build was interrupted: starting again")
        shutil.rmtree(self.work, ignore_errors=True)
        write_json(record, made_of)

    def write_table(self, name: str, tables: Iterable[pa.Table], schema: pa.Schema) -> int:
        """Write tables into one Parquet file, add it to the manifest, and return its number of rows."""
        rows = write_parquet(self.path / name, tables, schema)
        self.add(name, rows)
        return rows

    def add(self, name: str, rows: int | None = None) -> None:
        """Add a written file to the manifest."""
        self.files[name] = file_entry(self.path / name, rows)

    def save_tokenizer(self, tokenizer: PreTrainedTokenizerBase, name: str = "tokenizer") -> None:
        """Write a tokenizer into the folder `name`, and add its files to the manifest."""
        tokenizer.save_pretrained(self.path / name)
        for path in sorted((self.path / name).iterdir()):
            self.add(f"{name}/{path.name}")

    @property
    def tables(self) -> list[Path]:
        """Return the paths of the Parquet files written so far."""
        return [self.path / name for name in self.files if name.endswith(".parquet")]


def run_build(
    identity: Mapping[str, Any],
    out: Path,
    progress: Progress | None,
    make: Callable[[BuildFolder], Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the manifest of the data folder `out`; call `make` to fill it unless the same build is already there.

    Args:
        identity: builder, format and config (which has a seed).
        make: writes the files and returns further entries of the manifest.

    Raises:
        UserError: the folder holds something else, or the settings cannot be met.
    """
    progress = progress or Progress()
    manifest = open_folder(out, identity)
    if manifest is not None:
        progress.note(f"{out}: already built")
    else:
        facts = make(BuildFolder(out, progress, identity))
        versions = {"numpy": np.__version__, "pyarrow": pa.__version__}
        manifest = close_folder(out, {**identity, "seed": identity["config"]["seed"], "versions": versions, **facts})
    for name in (WORK, "work"):  # also if an earlier build was killed just before this; "work" is the old name
        shutil.rmtree(out / name, ignore_errors=True)
    return manifest


@dataclass(frozen=True)
class Shard:
    """The tables of one piece of work, and its counts; these are written last, so a shard that has them is whole."""

    folder: Path
    name: str

    def write(self, tables: Mapping[str, pa.Table], counts: Mapping[str, Any]) -> None:
        """Write the tables, then the counts."""
        rows = {part: write_parquet(self._file(part), [table], table.schema) for part, table in tables.items()}
        write_json(self._facts, {"rows": rows, "counts": counts})

    def read(self, part: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Read one table, or some of its columns."""
        return pq.read_table(self._file(part), columns=columns)

    @property
    def is_whole(self) -> bool:
        """Tell whether the shard was written completely."""
        return self._facts.exists()

    @property
    def counts(self) -> dict[str, Any]:
        """Return the counts that `write` was given."""
        counts: dict[str, Any] = read_json(self._facts)["counts"]
        return counts

    def num_rows(self, part: str) -> int:
        """Return the number of rows of one table."""
        return int(read_json(self._facts)["rows"][part])

    @property
    def _facts(self) -> Path:
        return self.folder / f"{self.name}.json"

    def _file(self, part: str) -> Path:
        return self.folder / f"{self.name}.{part}.parquet"


def count_in_tables(
    files: Sequence[Path], count: Callable[[C, list[Row]], Mapping[str, int]], workers: Workers[C], progress: Progress
) -> Counter[str]:
    """Sum the results of `count` over the rows of written Parquet files, read back one row group at a time."""
    groups = [(file, group) for file in files for group in range(pq.read_metadata(file).num_row_groups)]
    found: Counter[str] = Counter()
    for number, counts in enumerate(workers.map(partial(_count, count), groups), start=1):
        found.update(counts)
        progress.step("row groups compared", number, len(groups))
    return found


def _count(
    count: Callable[[C, list[Row]], Mapping[str, int]], prepared: C, place: tuple[Path, int]
) -> Mapping[str, int]:
    file, group = place
    with pq.ParquetFile(file) as parquet:
        return count(prepared, parquet.read_row_group(group).to_pylist())
