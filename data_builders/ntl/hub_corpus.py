"""Corpora of the Hugging Face hub, by id (`org/name`, `org/name@revision`, `org/name#config`) or a copy in a folder.

Four column layouts are supported: `translation` (a dictionary by code, as in OPUS); one column per language;
`iso_639_3`, `iso_15924`, `id` and `text` (OLDI Seed); and `text` alone, with the language at the end of the
configuration's name (as in `20231101.lij` of Wikipedia). The split `train` is read, or the only split.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from data_builders.benchmarks.languages import known_code
from data_builders.errors import UserError
from data_builders.hub import hub_configs, open_hub
from data_builders.ntl.corpus import Block, Corpus, block_rows, clean, require_languages


def read_hub_corpus(name: str, languages: Collection[str]) -> list[Corpus]:
    """Return the corpus of a dataset, with these languages (empty: all); none if it has none of them.

    Raises:
        UserError: the dataset cannot be loaded, has other columns, or several configurations or splits to choose from.
    """
    path, _, config = name.partition("#")
    data = Path(path)
    if not config:
        configs = hub_configs(data)
        if len(configs) != 1:
            raise UserError(
                f"{name}: has {len(configs)} configurations ({', '.join(configs[:5])}, ...); name {name}#ONE"
            )
        config = configs[0]
    splits = open_hub(data, config)
    if "train" not in splits and len(splits) != 1:
        raise UserError(f"{name}: has no split train, only {', '.join(splits)}; is it a training corpus?")
    rows = splits["train"] if "train" in splits else next(iter(splits.values()))
    columns = set(rows.column_names)
    if {"iso_639_3", "iso_15924", "id", "text"} <= columns:
        return [_by_row_id(name, rows, languages)]
    has_pairs = "translation" in columns
    names = list(rows.features["translation"]) if has_pairs else rows.column_names
    codes = {code: column for column in names if (code := known_code(column))}
    if not codes and "text" in columns and (code := known_code(config.rpartition(".")[2])):
        return [_text(name, rows, code)] if not languages or code in languages else []
    require_languages(name, list(codes), "column")
    chosen = {code: column for code, column in codes.items() if not languages or code in languages}
    return [_aligned(name, rows, chosen, _translations if has_pairs else _columns)] if chosen else []


def _aligned(
    name: str, rows: Any, columns: dict[str, str], pick: Callable[[dict[str, Any], str], list[str | None]]
) -> Corpus:
    def blocks() -> Iterator[Block]:
        for batch in rows.iter(batch_size=block_rows(len(columns))):
            yield {code: [clean(text or "") for text in pick(batch, column)] for code, column in columns.items()}

    return Corpus(name, tuple(columns), _identity(name, rows), blocks, len(rows))


def _text(name: str, rows: Any, code: str) -> Corpus:
    """Return a corpus of documents; each non-empty line becomes a row."""

    def blocks() -> Iterator[Block]:
        for batch in rows.iter(batch_size=block_rows(1) // 16):
            lines = [clean(line) for text in batch["text"] for line in (text or "").split("\n")]
            yield {code: [line for line in lines if line]}

    lines = sum(len(block[code]) for block in blocks())
    return Corpus(name, (code,), _identity(name, rows), blocks, lines)


def _by_row_id(name: str, rows: Any, languages: Collection[str]) -> Corpus:
    """Return a corpus that has a row per sentence and language, aligned by `id`; it is small, and kept in memory."""
    by_id: dict[Any, dict[str, str]] = {}
    for row in rows:
        code = known_code(f"{row['iso_639_3']}_{row['iso_15924']}")
        if code and (not languages or code in languages):
            by_id.setdefault(row["id"], {})[code] = clean(row["text"] or "")
    codes = sorted({code for sentences in by_id.values() for code in sentences})
    require_languages(name, codes, "row")

    def blocks() -> Iterator[Block]:
        everything = list(by_id.values())
        size = block_rows(len(codes))
        for start in range(0, len(everything), size):
            part = everything[start : start + size]
            yield {code: [sentences.get(code, "") for sentences in part] for code in codes}

    return Corpus(name, tuple(codes), _identity(name, rows), blocks, len(by_id))


def _translations(batch: dict[str, Any], column: str) -> list[str | None]:
    return [translations[column] for translations in batch["translation"]]


def _columns(batch: dict[str, Any], column: str) -> list[str | None]:
    found: list[str | None] = batch[column]
    return found


def _identity(name: str, rows: Any) -> dict[str, str]:
    """Identify the rows by their fingerprint in `datasets`, which changes with their content."""
    return {name: str(rows._fingerprint)}
