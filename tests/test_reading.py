"""Files as users have them, and damaged ones: every reader gives the same answer, or one line with file and place."""

import bz2
import gzip
import json
import lzma
import os
import socket
import tarfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calmctl.cli.main import main
from calmctl.errors import UserError
from calmctl.evaluation.scoring import read_completions
from calmctl.training.examples import load_examples
from calmctl.training.settings import TrainSettings
from data_builders.benchmarks.codexglue import read_functions
from data_builders.benchmarks.flores import ROWS, read_flores
from data_builders.benchmarks.gsm8k import read_gsm8k, read_mgsm
from data_builders.benchmarks.humaneval import read_humaneval
from data_builders.benchmarks.mbpp import read_mbpp
from data_builders.files import read_lines, sha256_of
from data_builders.ntl.aligned_files import read_aligned
from data_builders.ntl.table_files import read_nusax
from data_builders.row_files import read_jsonl
from data_builders.values import MAX_DEPTH, numbered_json, read_json
from evals.text import TextTask
from tests.task_data import byte_tokenizer

Reader = Callable[[Path], Any]
FUNCTION = {"code": "def a(b)\nend", "docstring": "Adds.", "docstring_tokens": ["Adds"], "language": "ruby"}
HUMANEVAL = {"task_id": "a", "prompt": "def a():\n  1\n", "entry_point": "a", "canonical_solution": "  2", "test": ""}
MBPP = {"task_id": 2, "text": "t", "code": "c", "test_list": ["assert 1"] * 3, "test_setup_code": ""}
LONG = "a line\n" * 3


def ids(problems: list[Any]) -> list[Any]:
    return [each.task_id for each in problems]


# By name: the file that is read, its rows of JSON, and what reads it.
ROWS_OF_JSON: dict[str, tuple[str, list[dict[str, Any]], Reader]] = {
    "gsm8k": (
        "test.jsonl",
        [{"question": f"{n}?", "answer": f"#### {n}"} for n in range(3)],
        lambda p: read_gsm8k(p, "test")[0],
    ),
    "humaneval": ("h.jsonl", [HUMANEVAL | {"task_id": str(n)} for n in range(3)], lambda p: ids(read_humaneval(p))),
    "mbpp": ("m.jsonl", [MBPP | {"task_id": n} for n in range(3)], lambda p: ids(read_mbpp(p))),
    "codexglue": ("test.jsonl", [FUNCTION] * 3, lambda p: list(read_functions(p.parent, "ruby", "test"))),
    "text": ("t.jsonl", [{"text": f"{n} {LONG}"} for n in range(3)], lambda p: TextTask(window=8).load(p)),
    "predictions": ("p.jsonl", [{"id": f"{n}", "completion": "c"} for n in range(3)], read_completions),
    "training": ("t.jsonl", [{"text": f"text {n}", "meta": {"n": n}} for n in range(3)], lambda p: examples(p)),
}


def examples(path: Path) -> list[list[int]]:
    found = load_examples(path, byte_tokenizer(), TrainSettings())
    assert list(found.meta["n"]) == [0, 1, 2]
    return [list(found.example(index)) for index in range(len(found))]


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


AS_IT_IS: dict[str, Callable[[bytes], bytes]] = {
    "mark": lambda content: b"\xef\xbb\xbf" + content,
    "crlf": lambda content: content.replace(b"\n", b"\r\n"),
    "no last end": lambda content: content[:-1],
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "gzip in parts": lambda content: gzip.compress(content[:20]) + gzip.compress(content[20:]),
}
ROWS_AS_THEY_ARE = AS_IT_IS | {
    "blank lines": lambda content: b"\n \n" + content.replace(b"\n", b"\n\r\n"),
    "a list": lambda content: b"[" + b",\n".join(content.splitlines()) + b"]",
    "parquet": lambda content: parquet([json.loads(line) for line in content.splitlines()]),
}


@pytest.mark.parametrize("name", ROWS_OF_JSON)
def test_rows_of_json_are_read_in_every_form(tmp_path: Path, name: str) -> None:
    file, rows, read = ROWS_OF_JSON[name]
    path = tmp_path / file
    path.write_bytes(jsonl(rows))
    expected = read(path)
    assert len(expected) >= 3
    for form, change in ROWS_AS_THEY_ARE.items():
        path.write_bytes(change(jsonl(rows)))
        assert read(path) == expected, form


@pytest.mark.parametrize("form", AS_IT_IS)
def test_lines_of_text_are_read_in_every_form(tmp_path: Path, form: str) -> None:
    """Aligned corpora, NusaX, MGSM and FLORES; what is no line end to other programs is none here."""
    odd = "a\u2028b\u0085c\x0bd\x0c\x1ce"
    lines = [f"{odd} {row}" for row in range(1012)]
    changed = AS_IT_IS[form]
    for code in ("eng_Latn", "fra_Latn"):
        for split, count in ROWS.items():
            (tmp_path / "flores" / split).mkdir(parents=True, exist_ok=True)
            content = "".join(f"{line}\n" for line in lines[:count]).encode()
            (tmp_path / "flores" / split / f"{code}.{split}").write_bytes(changed(content))
    found = read_flores(tmp_path / "flores", ["fra_Latn"], ["eng_Latn"])
    assert found.sentences["fra_Latn"]["devtest"] == tuple(lines)
    (tmp_path / "mgsm_de.tsv").write_bytes(
        changed("".join(f"{line}\t1,{row:03}\n" for row, line in enumerate(lines[:250])).encode())
    )
    assert [each.question for each in read_mgsm(tmp_path, "de")[0]] == lines[:250]
    (tmp_path / "own").mkdir()
    for code in ("en", "fr"):
        (tmp_path / "own" / f"a.{code}").write_bytes(changed(b"one\n\nthree\n"))
    assert next(read_aligned(tmp_path / "own", ())[0].blocks()) == dict.fromkeys(
        ("eng_Latn", "fra_Latn"), ["one", "", "three"]
    )
    (tmp_path / "train.csv").write_bytes(changed(b'english,acehnese\n"a, ""b""",c\n\nd,"e\nf"\n'))
    assert next(read_nusax(tmp_path, ())[0].blocks()) == {"eng_Latn": ['a, "b"', "d"], "ace_Latn": ["c", "e f"]}


def test_quoted_fields_of_mgsm_are_those_without_quotes(tmp_path: Path) -> None:
    (tmp_path / "mgsm_de.tsv").write_text('"Say ""hi"", he said."\t"18"\n' * 249 + 'Say "hi"\t1\n')
    found = read_mgsm(tmp_path, "de")[0]
    assert (found[0].question, found[0].answer, found[249].question) == ('Say "hi", he said.', "18", 'Say "hi"')


DEEP = b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
# What stands in the second line, and what is said of it.
DAMAGE: dict[str, tuple[bytes, str]] = {
    "nul": (b'{"a": "\0"}', ":2: holds a NUL character"),
    "not utf-8": (b'{"a": "\xff"}', ":2: is no UTF-8"),
    "surrogate bytes": (b'{"a": "\xed\xa0\x80"}', ":2: is no UTF-8"),
    "torn": (b'{"a": ', ":2: is no JSON"),
    "not json": (b"a: b", ":2: is no JSON"),
    "deep": (DEEP, f":2: its JSON is nested more than {MAX_DEPTH} levels deep"),
    "deep enough": (b"[" * 101 + b"]" * 101, ":2: its JSON is nested"),
    "long number": (b'{"a": ' + b"9" * 5000 + b"}", ":2: a number in it is too long"),
    "no object": (b'["a"]', ":2: no JSON object"),
    "an empty object": (b"{}", ":2: "),
}


@pytest.mark.parametrize("name", ROWS_OF_JSON)
def test_damaged_rows_are_named_by_file_and_line(tmp_path: Path, name: str) -> None:
    file, rows, read = ROWS_OF_JSON[name]
    path, lines = tmp_path / file, jsonl(rows).splitlines()
    for damage, (line, message) in DAMAGE.items():
        if (name, damage) == ("training", "an empty object"):
            message = "row 2 has no `text`"
        for change in (bytes, gzip.compress):
            path.write_bytes(change(b"\n".join([lines[0], line, lines[1]])))
            assert refused(read, path).startswith(str(path)) and message in refused(read, path), damage


def refused(read: Reader, path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


NO_FILES: dict[str, Callable[[Path], Any]] = {
    "a FIFO": os.mkfifo,
    "a folder": Path.mkdir,
    "a socket": lambda path: socket.socket(socket.AF_UNIX).bind(os.path.relpath(path)),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "no such": lambda path: path.symlink_to("nowhere"),
    "cannot be opened": lambda path: path.symlink_to(path),
}
WHOLE_FILES: dict[str, bytes] = {
    "UTF-16": "{}".encode("utf-16"),
    "cannot be read": gzip.compress(b"{}" * 99)[:-9],
    "cannot be read (": lzma.compress(os.urandom(99))[:60],
    "cannot be read (Truncated": b"\x28\xb5\x2f\xfd" + b"\0" * 20,
    "a zip archive": b"PK\x03\x04" + b"\0" * 20,
}


@pytest.mark.parametrize("name", [*ROWS_OF_JSON, "json", "log", "lines"])
def test_what_is_no_text_file_is_refused_at_once(tmp_path: Path, name: str) -> None:
    others = {"json": read_json, "log": read_jsonl, "lines": lambda path: list(read_lines(path))}
    file, _, read = ROWS_OF_JSON.get(name) or ("a.json", [], others[name])
    os.chdir(tmp_path)
    path = tmp_path / file
    for message, make in NO_FILES.items():
        make(path)
        said = refused(read, path) if path.exists() or name not in ("log", "codexglue") else message
        assert message in said or "holds no" in said or "has no" in said or "no such" in said, said
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    for message, content in WHOLE_FILES.items():
        path.write_bytes(content)
        assert message in refused(read, path)


def test_half_a_surrogate_pair_does_not_refuse_a_file(tmp_path: Path, caplog: Any) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"id": "a", "completion": "\\ud83d\\ude00 \\ud800"}\n{"id": "b", "completion": ["\\uDFFF"]}\n')
    assert [row for _, row in numbered_json(path)] == [
        {"id": "a", "completion": "\N{GRINNING FACE} \ufffd"},
        {"id": "b", "completion": ["\ufffd"]},
    ]
    assert caplog.messages == [f"{path}: 2 halves of surrogate pairs in it are read as U+FFFD"]


@pytest.mark.parametrize("answer", ["18 €", "five", "", "1/2", "$5", "٣", "nan", "--5", "1e3"])
def test_references_that_are_no_number_are_named(tmp_path: Path, answer: str) -> None:
    (tmp_path / "test.jsonl").write_text(json.dumps({"question": "a?", "answer": f"So.\n#### {answer}"}) + "\n")
    assert "test.jsonl:1: its answer" in refused(lambda path: read_gsm8k(path, "test"), tmp_path)
    (tmp_path / "mgsm_de.tsv").write_text(f"a?\t1\nb?\t{answer}\n")
    assert "mgsm_de.tsv:2: " in refused(lambda path: read_mgsm(path, "de"), tmp_path)


def archive(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as stream:
        for member, content in members:
            member.size = len(content)
            stream.addfile(member, BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


def hostile_archives(path: Path) -> Iterator[tuple[Path, str]]:
    name = "x/dev/fra_Latn.dev"
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        yield archive(path, (member(name, kind, name), b"")), "is a link or a device"
        yield archive(path, (member(name, kind, "/etc/passwd"), b"")), "is a link or a device"
    for kind in (tarfile.CHRTYPE, tarfile.FIFOTYPE):
        yield archive(path, (member(name, kind), b"")), "is a link or a device"
    yield archive(path, (member(name), b"a\n"), (member(f"/../{name}"), b"a\n")), "is there twice"
    for kind in (tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
        huge = member(name, kind)
        huge.size = 6 << 30
        path.write_bytes(gzip.compress(huge.tobuf(tarfile.GNU_FORMAT)))
        yield path, "bytes"
    path.write_bytes(gzip.compress(os.urandom(4096)))
    yield path, "cannot be read as a tar archive"


def test_hostile_archives_are_refused_without_unpacking(tmp_path: Path) -> None:
    for path, message in hostile_archives(tmp_path / "flores200_dataset.tar.gz"):
        assert message in refused(lambda path: read_flores(path, ["fra_Latn"]), path)
    assert [each.name for each in tmp_path.iterdir()] == ["flores200_dataset.tar.gz"]


def test_checksums_and_commands_do_not_wait_for_what_never_ends(tmp_path: Path, capsys: Any) -> None:
    os.mkfifo(tmp_path / "p.jsonl")
    assert "is a FIFO" in refused(sha256_of, tmp_path / "p.jsonl")
    shared = ["--out", str(tmp_path / "out"), "--data", str(tmp_path / "p.jsonl")]
    assert main(["score", "text", *shared, "--predictions", str(tmp_path / "p.jsonl")]) == 2
    assert "is a FIFO" in capsys.readouterr().err
