"""Rows of the user's own: the same rows in every format, from every kind of source; what is refused, and how."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_builders import hub
from data_builders.errors import UserError
from data_builders.example_rows import alpaca_prompt, read_example_rows
from data_builders.files import sha256_file
from data_builders.row_forms import FORMS, PROMPT_FORMS, messages_of
from data_builders.row_sources import find_rows

ROWS = [
    {"id": "a", "prompt": "1 + 1 =", "completion": " 2"},
    {"id": "b", "prompt": 'say "hi",\nplease', "completion": "hi\r\n"},
    {"id": "c", "prompt": "Ü 🙂", "completion": "x" * 200_000},  # more than the csv module takes by itself
]
TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_csv(path: Path, rows: list[dict[str, Any]], delimiter: str = ",") -> None:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter, lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(rows)


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], Any]] = {
    "jsonl": write_jsonl,
    "json": lambda path, rows: path.write_text(json.dumps(rows, indent=1)),
    "csv": write_csv,
    "tsv": lambda path, rows: write_csv(path, rows, "\t"),
    "parquet": lambda path, rows: pq.write_table(pa.Table.from_pylist(rows), path),
}


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return bytes(sink.getvalue().to_pybytes())


COMPRESSIONS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd}


def read(source: object, columns: dict[str, str] | None = None, **how: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_example_rows(str(source), columns, **how).to_pylist()
    return rows


def refused(source: object, columns: dict[str, str] | None = None) -> str:
    with pytest.raises(UserError) as caught:
        read(source, columns)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_and_compression_has_the_same_rows(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"the rows.{kind}"
    WRITERS[kind](path, ROWS)
    assert read(path) == ROWS
    assert find_rows(str(path)).sha256 == sha256_file(path)  # as of every single file before
    if kind not in ("csv", "tsv"):  # which only their names tell
        assert read(path.rename(tmp_path / "rows")) == ROWS
        WRITERS[kind](path, ROWS)
    for suffix, compress in COMPRESSIONS.items():
        packed = path.with_name(f"{path.name}.{suffix}")
        packed.write_bytes(compress(path.read_bytes()))
        assert read(packed) == ROWS


@pytest.mark.parametrize("kind", WRITERS)
def test_shards_are_read_in_order_and_all_count(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "shards of mine"
    (folder / "more").mkdir(parents=True)
    for number, place in enumerate(("0", "1", "more/2")):
        WRITERS[kind](folder / f"{place}.{kind}", ROWS[number : number + 1])
    WRITERS[kind](folder / f".hidden.{kind}", ROWS)
    (folder / "README.md").write_text("not data")
    assert read(folder) == ROWS == read(folder / f"**/*.{kind}")
    assert read(folder / f"[01].{kind}") == ROWS[:2] and read(folder / f"**/**/*.{kind}") == ROWS
    before = find_rows(str(folder)).sha256
    assert before == find_rows(str(folder / f"**/*.{kind}")).sha256 != find_rows(str(folder / f"*.{kind}")).sha256
    WRITERS[kind](folder / f"1.{kind}", ROWS[2:])
    assert find_rows(str(folder)).sha256 != before


def test_splits_are_named_where_there_are_several(tmp_path: Path) -> None:
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test"):
        write_jsonl(tmp_path / f"{name}.jsonl", [{"text": name}])
    assert f"name one, as {tmp_path}:" in refused(tmp_path)
    assert [row["text"] for row in read(f"{tmp_path}:train")] == ["train-00000-of-00002", "train-00001-of-00002"]
    assert read(f"{tmp_path}:test") == [{"text": "test"}] == read(f"{tmp_path}/*.jsonl:test")
    assert "has no split 'dev' (has: test, train)" in refused(f"{tmp_path}:dev")
    assert "which has no splits" in refused(f"{tmp_path}/test.jsonl:train")
    for split in ("train", "test"):  # as names of folders
        (tmp_path / "test data" / split).mkdir(parents=True)
        write_jsonl(tmp_path / "test data" / split / "0.jsonl", [{"text": split}])
    assert "has several splits (test, train)" in refused(tmp_path / "test data")
    assert "has several splits (test, train)" in refused(f"{tmp_path}/test data/**/*.jsonl")
    assert read(f"{tmp_path}/test data:train") == [{"text": "train"}] == read(tmp_path / "test data" / "train")
    assert read(f"{tmp_path}/test data/train/*.jsonl") == [{"text": "train"}]
    (tmp_path / "of:colons.jsonl").write_text('{"text": "a"}\n')
    assert read(tmp_path / "of:colons.jsonl") == [{"text": "a"}]


def test_saved_datasets_are_read_as_they_were_saved(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    whole = Dataset.from_list([*ROWS, {"id": "d", "prompt": "left", "completion": "out"}])
    whole.select([2, 0, 1]).save_to_disk(tmp_path / "one")
    assert read(tmp_path / "one") == [ROWS[2], ROWS[0], ROWS[1]]
    DatasetDict(train=whole, test=whole.select([1])).save_to_disk(tmp_path / "both")
    assert "has several splits (train, test)" in refused(tmp_path / "both")
    assert read(f"{tmp_path}/both:test") == [ROWS[1]]
    sources = [find_rows(f"{tmp_path}/both:{split}").sha256 for split in ("train", "test")]
    assert len(set(sources)) == 2
    next((tmp_path / "one").glob("*.arrow")).write_bytes(b"damaged")
    assert "cannot be read as a saved dataset" in refused(tmp_path / "one")


def test_hub_datasets_are_read_by_subset_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network is asked for nothing: what loads and lists a dataset is replaced."""
    from datasets import Dataset, DatasetDict

    both = DatasetDict(train=Dataset.from_list(ROWS), test=Dataset.from_list(ROWS[1:]))
    asked = []

    def opened(data: Path, subset: str | None) -> DatasetDict:
        asked.append((str(data), subset))
        return both

    monkeypatch.setattr("data_builders.row_sources.open_hub", opened)
    monkeypatch.setattr("data_builders.row_sources.hub_configs", lambda data: ["main", "socratic"])
    assert read("org/name:main/test") == ROWS[1:]
    assert read("org/name@refs/pr/1:main/train") == ROWS
    assert asked == [("org/name", "main"), ("org/name@refs/pr/1", "main")]
    assert "has several subsets (main, socratic)" in refused("org/name")
    monkeypatch.setattr("data_builders.row_sources.hub_configs", lambda data: ["default"])
    assert "name one, as org/name:train" in refused("org/name")
    assert read("org/name:test") == ROWS[1:]
    assert find_rows("org/name:test").sha256 == find_rows("x/y:test").sha256 != find_rows("x/y:train").sha256


def test_the_hub_is_not_asked_for_what_was_meant_as_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    monkeypatch.setattr(hub, "_load", lambda *_: pytest.fail("asked the hub"))
    for name in (
        "data/missing",
        "data/missing.jsonl",
        "new/missing.csv",
        "missing",
        "./a/b",
        "/a/b",
        "~/none/b",
        "*.csv",
    ):
        assert refused(name).endswith("check the path") or "check the pattern" in refused(name)


def test_columns_can_have_other_names(tmp_path: Path) -> None:
    rows = [{"question": "a?", "answer": "b", "prompt": 7, "completion": {"not": "text"}, "text": "whole"}]
    for kind in ("jsonl", "parquet"):
        path = tmp_path / f"a.{kind}"
        WRITERS[kind](path, rows)
        assert read(path, {"prompt": "question", "completion": "answer"}) == [{"prompt": "a?", "completion": "b"}]
        assert read(path, {"text": "answer"}) == [{"text": "b"}]  # what is mapped goes before what is called so
        assert "columns.prompt=query: no such column; found ['question'" in refused(path, {"prompt": "query"})
        assert "`prompt`" in refused(path) and "text" in refused(path)
    assert "columns.answer: no such column; those" in refused(path, {"answer": "answer"})


@pytest.mark.parametrize("kind", WRITERS)
def test_conversations_and_instructions_are_read_from_every_format(tmp_path: Path, kind: str) -> None:
    def written(name: str, rows: list[dict[str, Any]]) -> Path:
        path = tmp_path / f"{name}.{kind}"
        flat = kind in ("csv", "tsv")
        WRITERS[kind](path, [{key: json.dumps(v) if flat and key != "input" and not isinstance(v, str) else v
                              for key, v in row.items()} for row in rows])  # fmt: skip
        return path

    (row,) = read(written("chat", [{"messages": TALK}]))
    assert messages_of(row["messages"]) == TALK
    shared = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    (row,) = read(written("shared", [{"conversations": shared}]))
    assert messages_of(row["messages"]) == TALK
    alpaca = [
        {"instruction": "Add.", "input": "1, 2", "output": "3"},
        {"instruction": "Sing.", "input": "", "output": "la"},
    ]
    first, second = read(written("alpaca", alpaca))
    assert (first["completion"], second["completion"]) == ("3", "la")
    assert first["prompt"].endswith("### Instruction:\nAdd.\n\n### Input:\n1, 2\n\n### Response:\n")
    assert second["prompt"] == alpaca_prompt("Sing.", None) and "Input" not in second["prompt"]
    assert read(written("only", [{"instruction": "Sing."}]), forms=PROMPT_FORMS) == [{"prompt": second["prompt"]}]


def test_columns_that_are_not_needed_may_hold_anything_or_nothing(tmp_path: Path) -> None:
    for kind in ("jsonl", "parquet"):
        for name, row, read_as in (
            ("prompts", {"id": 1, "prompt": "a", "completion": 42}, {"id": "1", "prompt": "a"}),
            ("asked", {"instruction": "a", "input": None, "output": 3}, {"prompt": alpaca_prompt("a", None)}),
        ):
            WRITERS[kind](path := tmp_path / f"{name}.{kind}", [row])
            assert read(path, forms=PROMPT_FORMS) == [read_as]
            assert "text" in refused(path)
        WRITERS[kind](tmp_path / f"none.{kind}", [{"text": None, "messages": TALK}])
        assert messages_of(read(tmp_path / f"none.{kind}")[0]["messages"]) == TALK
    write_csv(tmp_path / "a.csv", [{"id": "", "prompt": "a"}, {"id": "", "prompt": "b"}])
    assert read(tmp_path / "a.csv", forms=PROMPT_FORMS) == [{"prompt": "a"}, {"prompt": "b"}]


@pytest.mark.parametrize("value", ["text", 3, [], [3], [{"role": "user"}], [{"role": "user", "content": 3}],
                                   [{"from": "martian", "value": "x"}], [{"content": "x"}],
                                   [{"role": "user", "content": [{"type": "image"}]}]])  # fmt: skip
def test_what_is_no_conversation_is_named_with_its_place(tmp_path: Path, value: Any) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"messages": TALK}, {"messages": value}])
    assert f"{tmp_path}/a.jsonl:2: " in refused(tmp_path / "a.jsonl")


BAD: dict[str, tuple[str, str | bytes, str]] = {
    "no rows": ("a.csv", "prompt,completion\n", "there are no rows"),
    "empty": ("a.csv", "", "there are no rows"),
    "no list": ("a.json", "[]", "there are no rows"),
    "ragged": ("a.csv", "prompt,completion\na,b\na,b,c\n", "a.csv:3: has 3 values, and the first row names 2 columns"),
    "short": ("a.tsv", "prompt\tcompletion\n\na\n", "a.tsv:3: has 1 values"),
    "twice": ("a.csv", "prompt,prompt\na,b\n", "two columns are named 'prompt'"),
    "semicolons": ("a.csv", "prompt;completion\na;b\n", "found ['prompt;completion']"),
    "open quote": ("a.csv", 'prompt,completion\na,"b\n', "is no CSV"),
    "UTF-16": ("a.csv", "prompt,completion\na,b\n".encode("utf-16"), "convert the file to UTF-8"),
    "Latin-1": ("a.csv", "prompt,completion\na,\xfc\n".encode("latin-1"), "a.csv:2: is no UTF-8"),
    "unknown": ("a.xlsx", b"PK\x03\x04", ".xlsx is not read here; give JSONL"),
    "no rows at all": ("a.txt", "some text", "a.txt:1: is no JSON"),
    "null": ("a.jsonl", '{"text": "a"}\n{"text": null}\n', "row 2 has no `text` (1 such rows)"),
    "number": ("a.jsonl", '{"prompt": "a", "completion": NaN}\n', "a.jsonl:1: `completion` is not text"),
    "damaged": ("a.parquet", b"PAR1 and no more", "cannot be read as Parquet"),
    "cut": ("a.jsonl.zst", zstd(b'{"text": "a"}\n' * 999)[:-4], "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_one_clear_line(tmp_path: Path, name: str) -> None:
    file, content, message = BAD[name]
    (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert message in refused(tmp_path / file)


def test_folders_that_are_no_shards_are_one_clear_line(tmp_path: Path) -> None:
    assert "a folder that holds no data" in refused(tmp_path)
    write_jsonl(tmp_path / "a.jsonl", ROWS)
    write_csv(tmp_path / "b.csv", ROWS)
    assert "holds csv and jsonl files; choose with a pattern" in refused(tmp_path)
    (tmp_path / "b.csv").unlink()
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert "is a FIFO" in refused(tmp_path / "pipe.jsonl") and len(read(tmp_path)) == 3
    write_jsonl(tmp_path / "b.jsonl", [{"text": "other"}])
    assert "row 4 has no `prompt` (1 such rows)" in refused(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    assert "`calmctl data` built this folder; name one of its files (a.jsonl, b.jsonl)" in refused(tmp_path)


def test_meta_and_columns_beside_it_are_kept(tmp_path: Path) -> None:
    rows = [{"text": "a", "meta": {"level": 1}, "lang": "de"}, {"text": "b", "lang": "fr", "meta": {"level": 2}}]
    for kind in ("jsonl", "parquet"):
        WRITERS[kind](tmp_path / f"a.{kind}", rows)
        found = read(tmp_path / f"a.{kind}", fields=["lang", "absent"])
        assert [row["meta"] for row in found] == [{"lang": "de", "level": 1}, {"lang": "fr", "level": 2}]
        assert read(tmp_path / f"a.{kind}", forms=FORMS)[0]["meta"] == {"level": 1}
