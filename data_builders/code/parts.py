"""Decide which texts of a scanned corpus are kept, and into which files they go: duplicates, held-out files, D_C.

Texts stay on disk; memory holds about 100 bytes per text and a MinHash signature per file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_builders.build import Shard
from data_builders.code.config import PROSE_KINDS, CodeDataConfig
from data_builders.code.fingerprints import NUM_PERMUTATIONS, near_duplicates, repeated
from data_builders.errors import UserError
from data_builders.hashing import draws

KINDS = ("code", "pair", *PROSE_KINDS)
_CODE, _PAIR = 0, 1
_META = pa.struct([("kind", pa.string()), ("language", pa.string()), ("file", pa.string())])
TEXT_SCHEMA = pa.schema(
    [
        pa.field(name, kind, nullable=False)
        for name, kind in (("id", pa.string()), ("text", pa.string()), ("meta", _META))
    ]
)
PAIR_SCHEMA = pa.schema(
    [
        pa.field(name, kind, nullable=False)
        for name, kind in (("id", pa.string()), ("prompt", pa.string()), ("completion", pa.string()), ("meta", _META))
    ]
)


@dataclass(frozen=True)
class Part:
    """An output file: a mask of its rows (num_rows,), and whether they are prompt and completion, or text."""

    name: str
    rows: NDArray[np.bool_]
    is_pairs: bool

    @property
    def schema(self) -> pa.Schema:
        """Return the columns of the file."""
        return PAIR_SCHEMA if self.is_pairs else TEXT_SCHEMA


class ScannedCode:
    """The scanned files and their rows, and which of them are kept.

    Attributes:
        reasons: (num_files,) why each file is left out; empty: it is kept.
        languages: (num_files,).
        pairs: number of functions with a docstring in files that passed the filters, by outcome.
        row_reasons: number of texts of kept files that are left out, by reason.
    """

    def __init__(self, shards: Sequence[Shard], config: CodeDataConfig) -> None:
        self._config = config
        self._shards = shards
        self.pairs: Counter[str] = Counter()
        self.row_reasons: Counter[str] = Counter()
        self._read_files()
        self._read_rows()
        self._drop_duplicates()
        self._require_code()

    def parts(self) -> list[Part]:
        """Return the output files that have rows."""
        config, kind = self._config, self._kinds
        train, held_out = self._kept & ~self._is_held_out[self._files], self._kept & self._is_held_out[self._files]
        code, pair, prose = kind == _CODE, kind == _PAIR, kind > _PAIR
        drawn = draws(config.seed, "pairs", self._digests)
        in_dc, dc_pairs = self._composition(train)
        learned = train & ~in_dc if config.dc_unseen else train
        parts = [
            Part("aug_train.parquet", learned & (code | (pair & (drawn < config.aug_pairs))), False),
            Part("anchor_train.parquet", learned & (prose | (pair & (drawn < config.anchor_pairs))), False),
            Part("pairs_train.parquet", learned & pair, True),
            Part("dc.parquet", train & ((code & in_dc) | dc_pairs), False),
            Part("dc_pairs.parquet", dc_pairs, True),
            Part("code_validation.parquet", held_out & code, False),
            Part("pairs_validation.parquet", held_out & pair, True),
            Part("prose_validation.parquet", held_out & prose, False),
            Part("dc_validation.parquet", held_out & (code | pair), False),
        ]
        if len(languages := np.unique(self.languages[self._files[learned & code]])) > 1:
            of_row = self.languages[self._files]
            parts += [Part(f"code_{each}.parquet", learned & code & (of_row == each), False) for each in languages]
        return [part for part in parts if part.rows.any()]

    def tables(self, part: Part) -> Iterator[pa.Table]:
        """Yield the rows of a part, one table per shard."""
        for shard, rows, files in self._pieces(part.rows):
            table = shard.read("rows", ["file", "id", "kind", "text", "completion"]).filter(rows)
            names = files.take(table["file"])
            meta = pa.StructArray.from_arrays(
                [table["kind"].combine_chunks(), *(names[each].combine_chunks() for each in ("language", "id"))],
                fields=list(_META),
            )
            completions = pc.fill_null(table["completion"], "")
            if part.is_pairs:
                columns = [table["id"], table["text"], completions, meta]
            else:
                columns = [table["id"], pc.binary_join_element_wise(table["text"], completions, ""), meta]
            yield pa.Table.from_arrays(columns, schema=part.schema)

    def held_out_pairs(self) -> Iterator[dict[str, Any]]:
        """Yield the held-out pairs, each with the original source and docstring of its function."""
        rows = self._kept & self._is_held_out[self._files] & (self._kinds == _PAIR)
        for shard, mask, _ in self._pieces(rows):
            columns = ["id", "completion", "original", "docstring"]
            yield from shard.read("rows", columns).filter(mask).to_pylist()

    def content_digests(self) -> Iterator[tuple[str, int, bytes]]:
        """Yield (id, size in bytes, sha256) of every file that could be read, in corpus order."""
        for shard in self._shards:
            for row in shard.read("files", ["id", "bytes", "sha256"]).to_pylist():
                if row["sha256"] is not None:
                    yield row["id"], row["bytes"], row["sha256"]

    def _pieces(self, rows: NDArray[np.bool_]) -> Iterator[tuple[Shard, pa.Array, pa.Table]]:
        """Yield (shard, mask of its rows, ids and languages of its files) for the shards that have some of the rows."""
        for shard, start, end in zip(self._shards, self._row_starts, self._row_starts[1:], strict=False):
            if rows[start:end].any():
                yield shard, pa.array(rows[start:end]), shard.read("files", ["id", "language"])

    def _read_files(self) -> None:
        tables = []
        for shard in self._shards:
            table = shard.read("files", ["language", "licence", "reason", "bytes", "is_held_out", "sha256"])
            counts = shard.counts
            self.pairs.update(counts["pairs"])
            self.row_reasons.update(counts["texts"])
            tables.append(table)
        self._file_starts = np.concatenate([[0], np.cumsum([table.num_rows for table in tables])])
        files = pa.concat_tables(tables)
        self.languages = np.array(files["language"].to_pylist(), dtype=np.str_)
        self.licences = np.array(files["licence"].to_pylist(), dtype=np.str_)
        self.reasons = np.array(pc.fill_null(files["reason"], "").to_pylist(), dtype="U32")
        self.bytes = files["bytes"].to_numpy()
        self._is_held_out = files["is_held_out"].to_numpy()
        shas = pc.fill_null(files["sha256"], b"\0" * 32).to_pylist()
        self._marks = np.frombuffer(b"".join(sha[:8] for sha in shas), np.uint64)

    def _read_rows(self) -> None:
        tables = [
            shard.read("rows", ["file", "kind", "digest", "completion_digest", "body_digest"]) for shard in self._shards
        ]
        self._row_starts = np.concatenate([[0], np.cumsum([table.num_rows for table in tables])])
        offsets = [start + table["file"].to_numpy() for start, table in zip(self._file_starts, tables, strict=False)]
        rows = pa.concat_tables(tables)
        self._files = np.concatenate(offsets).astype(np.int64)
        self._kinds = pc.index_in(rows["kind"], value_set=pa.array(KINDS)).to_numpy().astype(np.int8)
        self._digests = rows["digest"].to_numpy()
        self._completions = rows["completion_digest"].to_numpy()
        self._bodies = pc.fill_null(rows["body_digest"], 0).to_numpy()

    def _drop_duplicates(self) -> None:
        """Drop duplicate files (the later), duplicate texts (held-out first), and held-out pairs seen in training."""
        self._mark("duplicate", repeated(self._marks[self.reasons == ""]))
        if self._config.duplicate_similarity < 1.0:
            self._mark("near_duplicate", near_duplicates(self._signatures(), self._config.duplicate_similarity))
        self._kept = (self.reasons == "")[self._files]
        is_held_out, is_pair = self._is_held_out[self._files], self._kinds == _PAIR
        for of_kind in (self._kinds == _CODE, is_pair, self._kinds > _PAIR):
            rows = np.flatnonzero(self._kept & of_kind)
            rows = rows[np.argsort(is_held_out[rows], kind="stable")]
            self._drop(rows[repeated(self._digests[rows])], "duplicate")
        learned = self._learned_functions()
        is_known = np.isin(self._completions, learned) | np.isin(self._bodies, learned)
        self._drop(np.flatnonzero(self._kept & is_pair & is_held_out & is_known), "in_training")

    def _drop(self, rows: NDArray[np.int64], reason: str) -> None:
        self._kept[rows] = False
        for kind, count in zip(*np.unique(self._kinds[rows], return_counts=True), strict=True):
            self.row_reasons[f"{KINDS[kind]}_{reason}"] += int(count)

    def _learned_functions(self) -> NDArray[np.uint64]:
        """Return the digests of bodies and summaries of all functions in training files, not only of pairs."""
        found = [np.empty(0, np.uint64)]
        for shard, start, end in zip(self._shards, self._file_starts, self._file_starts[1:], strict=False):
            is_learned = (self.reasons[start:end] == "") & ~self._is_held_out[start:end]
            functions = shard.read("files", ["functions"])["functions"].filter(pa.array(is_learned))
            found.append(np.unique(pc.list_flatten(functions).to_numpy()))
        return np.unique(np.concatenate(found))

    def _mark(self, reason: str, found: NDArray[np.bool_]) -> None:
        self.reasons[np.flatnonzero(self.reasons == "")[found]] = reason

    def _signatures(self) -> NDArray[np.uint32]:
        """Return the MinHash signatures of the files that are still kept."""
        parts = []
        for shard, start, end in zip(self._shards, self._file_starts, self._file_starts[1:], strict=False):
            column = shard.read("files", ["signature"])["signature"]
            parts.append(b"".join(column.filter(pa.array(self.reasons[start:end] == "")).to_pylist()))
        return np.frombuffer(b"".join(parts), np.uint32).reshape(-1, NUM_PERMUTATIONS)

    def _composition(self, train: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return two masks (num_rows,): the rows of D_C's files, and the pairs of D_C."""
        order = np.argsort(draws(self._config.seed, "dc", self._marks), kind="stable")
        is_code = np.zeros(len(self.bytes), np.bool_)
        is_code[self._files[train & (self._kinds == _CODE)]] = True
        sizes = np.where(is_code, self.bytes, 0)[order]
        chosen = np.zeros(len(self.bytes), np.bool_)
        before = np.cumsum(sizes) - sizes
        chosen[order[before < self._config.dc_share * sizes.sum()]] = True
        in_dc, pairs = chosen[self._files], train & (self._kinds == _PAIR)
        if self._config.dc_pairs_share is None:
            return in_dc, pairs & in_dc
        ranks = np.empty(len(order), np.int64)
        ranks[order] = np.arange(len(order))
        rows = np.flatnonzero(pairs)
        rows = rows[np.argsort(ranks[self._files[rows]], kind="stable")]
        dc_pairs = np.zeros(len(pairs), np.bool_)
        dc_pairs[rows[: round(self._config.dc_pairs_share * len(rows))]] = True
        return in_dc, dc_pairs

    def _require_code(self) -> None:
        code = self._kept & (self._kinds == _CODE)
        for what, there in (("training", ~self._is_held_out), ("validation", self._is_held_out)):
            if not (code & there[self._files]).any():
                reasons = Counter(self.reasons[self.reasons != ""].tolist()).most_common()
                left_out = ", ".join(f"{count:,} {reason}" for reason, count in reasons) or "none"
                raise UserError(
                    f"sources: no code is left for {what} of {len(self.reasons):,} files (left out: {left_out});"
                    " name more sources, or change the filters or validation_share"
                )
