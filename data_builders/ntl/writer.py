"""Write the files of a build from its shards: training and validation files of each model, D_C, and tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_builders.build import BuildFolder, Shard
from data_builders.errors import UserError
from data_builders.hashing import Hashes
from data_builders.ntl.config import NTLDataConfig
from data_builders.ntl.shards import marks_of, shard_rows

_META = pa.struct([("kind", pa.string()), ("source", pa.string()), ("target", pa.string())])
# By the value of `train_rows` or `composition_rows`.
_COLUMNS = {"text": ("text",), "pairs": ("prompt", "completion")}
# Every file has its own random stream, so a change to one leaves the bytes of the others unchanged.
_STREAMS = (
    *("aug_validation", "anchor_validation", "dc_train", "dc_validation"),
    *("seen_test", "unseen_test", "dc_train_once", "dc_validation_once"),
)


class Writer:
    """Writes the files of a build.

    Args:
        languages: trained languages of the aug that have translations to test.

    Attributes:
        held_out: by model, the number of held-out rows, and of training rows that are left out because a sentence in
            them (also in a worked pair) or its translation is held out.
        counts: rows by (kind, source, target) of each file (its name without `.parquet`).
    """

    def __init__(
        self,
        config: NTLDataConfig,
        folder: BuildFolder,
        shards: Mapping[str, list[Shard]],
        languages: Sequence[str],
    ) -> None:
        self.counts: dict[str, Counter[tuple[str, str, str]]] = {}
        self.held_out: dict[str, dict[str, int]] = {}
        self._config, self._languages = config, languages
        self._folder = folder
        self._shards = {name: of_model for name, of_model in shards.items() if of_model}
        self._validation, composition = (
            np.union1d(*(marks_of(each, split) for each in shards.values())) for split in ("validation", "composition")
        )
        self._tested = np.union1d(*(marks_of(each, "test") for each in shards.values()))
        self._not_for_composition = np.union1d(self._validation, self._tested)
        self._held_out = np.union1d(self._not_for_composition, composition)
        self._rngs = {name: np.random.default_rng([config.seed, i]) for i, name in enumerate(_STREAMS)}

    def write_model(self, name: str) -> None:
        """Write the training and validation files of a model; nothing if it has no corpora."""
        if (shards := self._shards.get(name)) is None:
            return
        columns = self._config.train_rows
        self._write(f"{name}_train", shard_rows(shards, "train", self._held_out), columns)
        made = sum(shard.num_rows("train") for shard in shards)
        total = sum(table.num_rows for table in shard_rows(shards, "validation", self._tested))
        left_out = made - self._folder.files[f"{name}_train.parquet"]["rows"]
        self.held_out[name] = {"rows": total, "training_rows_left_out": left_out}
        chosen = _choose(self._rngs[f"{name}_validation"], total, self._config.num_validation_rows)
        self._write(f"{name}_validation", sample(shard_rows(shards, "validation", self._tested), chosen), columns)

    def write_composition(self) -> None:
        """Write D_C, a mixture of the aug's and the anchor's rows, and its validation file in the same proportion."""
        config, kinds = self._config, self._config.composition_kinds
        share = config.high_resource_share if "anchor" in self._shards else 0.0
        trained = sum(rows for (kind, *_), rows in self.counts["aug_train"].items() if kind in kinds)
        rows = max(1, round(config.composition_fraction * trained))
        split, held_out = "train", self._held_out
        if config.composition_unseen:
            split, held_out = "composition", self._not_for_composition
        usable = self._usable("dc_train", split, held_out)
        if config.composition_unseen:
            self._require_rows(len(usable["aug"]), rows)
        rows = min(rows, len(usable["aug"]))
        self._write_mixture("dc_train", split, usable, rows, share, held_out)
        usable = self._usable("dc_validation", "validation", self._tested)
        rows = min(len(usable["aug"]), round(config.num_validation_rows * (1 - share)))
        self._write_mixture("dc_validation", "validation", usable, rows, share, self._tested)

    def write_tests(self) -> None:
        """Write the held-out translations for tests: of trained languages, and of unseen ones."""
        config = self._config
        if not config.test_fraction:
            return
        for name, languages in (("seen_test", self._languages), ("unseen_test", config.unseen_languages)):
            if languages:
                self._write(name, self._tests(name, languages), "pairs")

    def _tests(self, name: str, languages: Sequence[str]) -> Iterator[pa.Table]:
        """Yield at most `num_test_rows` rows of each language, one language after the other."""
        tables = list(shard_rows(self._shards["aug"], "test"))
        for code in languages:
            found = [table.filter(pc.equal(table["source"], code)) for table in tables]
            of_code = pa.concat_tables(found) if found else None
            if of_code is None or not of_code.num_rows:
                raise UserError(f"{name}: no row of {code} is held out; use more data, or a larger test_fraction")
            chosen = _choose(self._rngs[name], of_code.num_rows, self._config.num_test_rows)
            yield of_code.take(pa.array(chosen))

    def _usable(self, name: str, split: str, held_out: Hashes) -> dict[str, NDArray[np.int64]]:
        """Return, by model, the indices of the rows that D_C (or its validation file) may hold."""
        kinds = self._config.composition_kinds
        counts = {
            model: sum(table.num_rows for table in shard_rows(shards, split, held_out, kinds))
            for model, shards in self._shards.items()
        }
        if not self._config.composition_once:
            return {model: np.arange(count) for model, count in counts.items()}
        all_rows = chain.from_iterable(shard_rows(shards, split, held_out, kinds) for shards in self._shards.values())
        kept = _each_once(all_rows, self._rngs[f"{name}_once"])
        ends = np.cumsum([0, *counts.values()])
        return {
            model: kept[(kept >= begin) & (kept < end)] - begin
            for model, begin, end in zip(counts, ends, ends[1:], strict=False)
        }

    def _require_rows(self, there: int, wanted: int) -> None:
        if there < wanted:
            raise UserError(
                f"composition_unseen: {self._config.composition_unseen} leaves {there:,} rows for D_C, and "
                f"composition_fraction={self._config.composition_fraction} wants {wanted:,}; set it higher"
            )

    def _write_mixture(
        self,
        name: str,
        split: str,
        usable: Mapping[str, NDArray[np.int64]],
        rows: int,
        share: float,
        held_out: Hashes,
    ) -> None:
        """Write `rows` of the aug's rows, and as many of the anchor's as make `share` of the total."""
        wanted = {"aug": rows, "anchor": round(rows * share / (1 - share))}

        def tables() -> Iterator[pa.Table]:
            for model, places in usable.items():
                found = shard_rows(self._shards[model], split, held_out, self._config.composition_kinds)
                yield from sample(found, places[_choose(self._rngs[name], len(places), wanted[model])])

        self._write(name, tables(), self._config.composition_rows)

    def _write(self, name: str, tables: Iterable[pa.Table], columns: str) -> None:
        counts = self.counts[name] = Counter()
        file = f"{name}.parquet"
        rows = self._folder.write_table(file, _as_training(tables, columns, counts), _schema(columns))
        if not rows:
            raise UserError(f"{file}: no rows are left for it; use more data, or a larger validation_fraction")
        self._folder.progress.note(f"{file}: {rows:,} rows")


def _schema(columns: str) -> pa.Schema:
    fields = [pa.field(name, pa.string(), nullable=False) for name in ("id", *_COLUMNS[columns])]
    return pa.schema([*fields, pa.field("meta", _META, nullable=False)])


def sample(tables: Iterable[pa.Table], chosen: NDArray[np.int64]) -> Iterator[pa.Table]:
    """Yield the rows with these sorted indices."""
    first = 0
    for table in tables:
        inside = chosen[np.searchsorted(chosen, first) : np.searchsorted(chosen, first + table.num_rows)]
        if len(inside):
            yield table.take(pa.array(inside - first))
        first += table.num_rows


def _each_once(tables: Iterable[pa.Table], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the sorted indices of randomly drawn rows that share no sentence; worked pairs do not count."""
    owned: list[list[int]] = []
    for table in tables:
        for kind, marks in zip(table["kind"].to_pylist(), table["marks"].to_pylist(), strict=True):
            owned.append(marks[: 2 if kind == "translation" else 1])
    seen: set[int] = set()
    kept = []
    for row in rng.permutation(len(owned)).tolist():
        if seen.isdisjoint(owned[row]):
            seen.update(owned[row])
            kept.append(row)
    return np.sort(np.asarray(kept, np.int64))


def _choose(rng: np.random.Generator, total: int, rows: int) -> NDArray[np.int64]:
    """Return the sorted indices of `rows` (at most `total`) rows, drawn uniformly out of `total`."""
    return np.sort(rng.choice(total, min(rows, total), replace=False))


def _as_training(tables: Iterable[pa.Table], columns: str, counts: Counter[tuple[str, str, str]]) -> Iterator[pa.Table]:
    """Yield rows with the columns of `text` or `pairs`, and count them by (kind, source, target) in `counts`."""
    for table in tables:
        grouped = table.group_by(["kind", "source", "target"]).aggregate([([], "count_all")])
        for row in grouped.to_pylist():
            counts[row["kind"], row["source"], row["target"]] += row["count_all"]
        meta = pa.StructArray.from_arrays([table[field.name].combine_chunks() for field in _META], fields=list(_META))
        texts = [table["prompt"], table["completion"]]
        if columns == "text":
            texts = [pc.binary_join_element_wise(*texts, "")]
        yield pa.Table.from_arrays([table["id"], *texts, meta], schema=_schema(columns)).combine_chunks()


def described(counts: Counter[tuple[str, str, str]]) -> dict[str, dict[str, int]]:
    """Return the number of rows of a file by kind, and by language or language pair."""
    tables: dict[str, dict[str, int]] = {}
    for (kind, source, target), rows in sorted(counts.items()):
        tables.setdefault(kind, {})[source if source == target else f"{source}-{target}"] = rows
    return tables
