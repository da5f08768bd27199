"""Scan one batch of documents: read, filter, extract texts, and write a shard into the work folder.

The shard's table `files` has a row per document, with the reason why it is left out (null: kept); `rows` has the texts
of kept documents. Both depend only on the batch, the settings and the test sets, not on the process.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pyarrow as pa

from data_builders.build import Shard
from data_builders.code.config import CodeDataConfig
from data_builders.code.documents import DOCUMENT, Document
from data_builders.code.filters import comment_blocks, document_text, prose_of, size_reason, text_reason
from data_builders.code.fingerprints import NUM_PERMUTATIONS, ids_digest, minhash, token_ids
from data_builders.code.functions import (
    PythonFunction,
    find_docstrings,
    find_functions,
    make_pair,
    parse,
    summary_tokens,
)
from data_builders.code.licences import OTHER, PERMISSIVE, UNKNOWN, of_header
from data_builders.code.overlap import CodeOverlapIndex, body_digest
from data_builders.code.sources import Batch
from data_builders.errors import UserError
from data_builders.hashing import draw
from data_builders.row_files import Row, text_of

FILES_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("language", pa.string()),
        ("licence", pa.string()),
        ("bytes", pa.int64()),
        ("sha256", pa.binary()),
        ("reason", pa.string()),  # null: kept
        ("is_held_out", pa.bool_()),
        ("signature", pa.binary(4 * NUM_PERMUTATIONS)),
        ("functions", pa.list_(pa.uint64())),  # digests of bodies and of summaries
    ]
)
ROWS_SCHEMA = pa.schema(
    [
        ("file", pa.int32()),  # index of the row in `files`
        ("id", pa.string()),
        ("kind", pa.string()),  # code, pair, docstring, comment, document
        ("text", pa.string()),  # of a pair: the prompt
        ("completion", pa.string()),  # of pairs only
        ("digest", pa.uint64()),  # of the tokens of the text
        ("completion_digest", pa.uint64()),
        ("body_digest", pa.uint64()),  # of pairs only; null if the function's body is short
        ("original", pa.string()),  # of held-out pairs only: the function's source and docstring
        ("docstring", pa.string()),
    ]
)
_ACCEPTED = {
    "permissive": (PERMISSIVE,),
    "permissive_or_unknown": (PERMISSIVE, UNKNOWN),
    "any": (PERMISSIVE, UNKNOWN, OTHER),
}


def scan(index: CodeOverlapIndex, batch: Batch, config: CodeDataConfig, work: Path) -> Shard:
    """Write the shard of a batch unless it exists; raises UserError for undecodable text if the settings say so."""
    shard = Shard(work, f"{batch.index:05d}-{batch.key}")
    if shard.is_whole:
        return shard
    scanner = _Scanner(config, index)
    files: list[Row] = []
    rows: list[Row] = []
    for number, document in enumerate(batch.documents):
        entry, texts = scanner.scan(document)
        files.append(entry)
        rows += [{"file": number, **row} for row in texts]
    tables = {
        "rows": pa.Table.from_pylist(rows, schema=ROWS_SCHEMA),
        "files": pa.Table.from_pylist(files, schema=FILES_SCHEMA),
    }
    shard.write(tables, {"bytes": batch.num_bytes, "pairs": scanner.pairs, "texts": scanner.texts})
    return shard


def count_overlaps(index: CodeOverlapIndex, rows: list[Row]) -> Counter[str]:
    """Count the rows of a written file that overlap with each test set."""
    found: Counter[str] = Counter()
    for row in rows:
        is_python = row["meta"]["kind"] in ("code", "pair") and row["meta"]["language"] == "python"
        if (name := index.find_in(text_of(row), is_python)) is not None:
            found[name] += 1
    return found


class _Scanner:
    """Scans documents one after the other.

    Attributes:
        pairs: number of functions with a docstring, by outcome.
        texts: number of texts of kept files that are left out, by reason.
    """

    def __init__(self, config: CodeDataConfig, index: CodeOverlapIndex) -> None:
        self._config = config
        self._index = index
        self.pairs: Counter[str] = Counter()
        self.texts: Counter[str] = Counter()

    def scan(self, document: Document) -> tuple[Row, list[Row]]:
        """Return a document's row of `files`, and its texts (rows of `rows`) if it is kept."""
        is_held_out = draw(self._config.seed, "validation", document.id) < self._config.validation_share
        entry = {
            "id": document.id,
            "language": document.language,
            "licence": document.licence,
            "bytes": document.size,
            "is_held_out": is_held_out,
        }
        try:
            content = document.read()
        except OSError:
            return entry | {"reason": "unreadable"}, []
        entry |= {"bytes": len(content), "sha256": sha256(content).digest()}
        if (reason := size_reason(len(content), self._config)) is not None:
            return entry | {"reason": reason}, []
        try:
            text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        except UnicodeDecodeError as error:
            if self._config.on_undecodable == "fail":
                raise UserError(
                    f"{document.id}: byte {error.start} is not UTF-8; convert the file, exclude it, "
                    "or set on_undecodable=skip"
                ) from None
            return entry | {"reason": "undecodable"}, []
        entry["licence"] = licence = self._licence(document, text)
        reason, functions, rows = self._take_apart(document, text, licence, is_held_out)
        if reason is None:
            entry["signature"] = minhash(token_ids(text)).tobytes()
            entry["functions"] = list(_function_digests(functions))
        return entry | {"reason": reason}, rows

    def _licence(self, document: Document, text: str) -> str:
        stated = of_header(text) if document.language != DOCUMENT else UNKNOWN
        return stated if stated != UNKNOWN else document.licence

    def _take_apart(
        self, document: Document, text: str, licence: str, is_held_out: bool
    ) -> tuple[str | None, list[PythonFunction], list[Row]]:
        """Return (why a document is left out, or None; the functions in it; its rows)."""
        config, language = self._config, document.language
        if (reason := text_reason(document.id, text, config)) is not None:
            return reason, [], []
        if licence not in _ACCEPTED[config.licences]:
            return f"licence_{licence}", [], []
        if language == DOCUMENT:
            prose = prose_of(document_text(document.id, text), config.min_prose_words)
            if not prose:
                return "no_prose", [], []
        if (found := self._index.find_text(text, language == "python")) is not None:
            return f"overlap_{found}", [], []
        functions: list[PythonFunction] = []
        if language == DOCUMENT:
            rows = [self._row(document.id, DOCUMENT, prose)]
        elif language != "python":
            rows = [self._row(document.id, "code", text, is_compared=True)]
        else:
            try:
                tree = parse(text)
            except SyntaxError:
                return "syntax_error", [], []
            functions = list(find_functions(tree, text))
            if found := next(filter(None, map(self._index.find_function, functions)), None):
                return f"overlap_{found}", [], []
            rows = [self._row(document.id, "code", text, is_compared=True), *self._prose(document.id, tree, text)]
            rows += self._pairs(document.id, functions, is_held_out)
        return None, functions, [row for row in rows if row is not None]

    def _prose(self, name: str, tree: ast.Module, text: str) -> Iterator[Row | None]:
        texts = {"docstring": find_docstrings(tree), "comment": comment_blocks(text)}
        for kind in self._config.prose:
            for number, each in enumerate(texts.get(kind, [])):
                if prose := prose_of(each, self._config.min_prose_words):
                    yield self._row(f"{name}#{kind}{number}", kind, prose)

    def _pairs(self, name: str, functions: list[PythonFunction], is_held_out: bool) -> Iterator[Row]:
        for function in functions:
            if not function.docstring:
                continue
            pair = make_pair(function, self._config.max_pair_bytes, self._config.max_summary_tokens)
            if isinstance(pair, str):
                self.pairs[pair] += 1
                continue
            row = self._row(f"{name}#{function.name}:{function.line}", "pair", pair.prompt, pair.completion)
            self.pairs["usable" if row else "overlap"] += 1
            if row is not None:
                kept = {"original": function.original, "docstring": function.docstring} if is_held_out else {}
                yield row | {"body_digest": body_digest(function)} | kept

    def _row(
        self, name: str, kind: str, text: str, completion: str | None = None, is_compared: bool = False
    ) -> Row | None:
        """Return a row, or None if its text overlaps with a test set: a part may overlap although the whole does not.

        `is_compared`: the text was compared with the test sets before.
        """
        if not is_compared and self._index.find_text(text + (completion or ""), kind == "pair") is not None:
            self.texts[f"{kind}_overlap"] += 1
            return None
        return {
            "id": name,
            "kind": kind,
            "text": text,
            "completion": completion,
            "digest": ids_digest(token_ids(text)),
            "completion_digest": ids_digest(token_ids(completion)) if completion else 0,
        }


def _function_digests(functions: list[PythonFunction]) -> Iterator[int]:
    for function in functions:
        if (body := body_digest(function)) is not None:
            yield body
        if summary := summary_tokens(function.docstring):
            yield ids_digest(token_ids(" ".join(summary)))
