"""CodeXGLUE code-to-text: docstrings out of the code, leaks found, prompts to the byte, both metrics."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from data_builders.benchmarks.codexglue import leaks, remove_docstring
from data_builders.errors import UserError
from evals.codexglue import CodeXGLUETask
from tests.real_data import real_data

PYTHON = 'def {name}(a, b="):"):\n    """Adds a to {name}.\n\n    At length.\n    """\n    return a + b\n'


def row(language: str, name: str, **changes: Any) -> dict[str, Any]:
    codes = {"python": PYTHON.format(name=name), "go": f"func {name}(a int) int {{\n\treturn a\n}}"}
    return {
        "code": codes[language],
        "docstring": f"Adds a to {name}.\n\nAt length.",
        "docstring_tokens": ["Adds", "a", "to", name, "."],
        "language": language,
        "original_string": "",
        **changes,
    }


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    text = "".join(json.dumps(each) + "\n" for each in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for language, end in (("python", "jsonl"), ("go", "jsonl.gz")):
        write(tmp_path / language / f"test.{end}", [row(language, f"test{i}") for i in range(4)])
        write(tmp_path / language / f"valid.{end}", [row(language, f"valid{i}") for i in range(5)])
    return tmp_path


@pytest.mark.parametrize(
    ("code", "without"),
    [
        ('def f(a):\n    """Doc."""\n    return a\n', "def f(a):\n    return a\n"),
        (
            "def f(a={':': 1}):\n    r'''Doc\n    more'''\n\n    # why\n    return a",
            "def f(a={':': 1}):\n\n    # why\n    return a",
        ),
        (
            'def f(a: int) -> "X":  # why\n    # first\n    "Doc" " twice"\n    return "no doc"\n',
            'def f(a: int) -> "X":  # why\n    # first\n    return "no doc"\n',
        ),
        (
            '@wrap("no doc")\n@more\nasync def f():\n\n    u"""Doc."""; return 1\n',
            '@wrap("no doc")\n@more\nasync def f():\n\n    return 1\n',
        ),
        ('def f(): "Doc."', "def f():"),
        ('def f():\n    """Doc."""', "def f():\n"),
        ('def f():\n    """Doc."""  # why\n    pass', "def f():\n    # why\n    pass"),
        ('def f():\n    print "old"\n    return `a`, 0777', 'def f():\n    print "old"\n    return `a`, 0777'),
        ('def f():\n    """Doc."""\n    print "old"\n    exec "a"', 'def f():\n    print "old"\n    exec "a"'),
        ('def f():\n    "no {}".format(1)\n', 'def f():\n    "no {}".format(1)\n'),
        ('def f():\n    return """no"""\n', 'def f():\n    return """no"""\n'),
        (
            'class C:\n    """Doc."""\n    def f(self):\n        """Kept."""\n',
            'class C:\n    def f(self):\n        """Kept."""\n',
        ),
        ('def f(é="日本"):\n    """Doc. 日本"""; x = "日本"\n', 'def f(é="日本"):\n    x = "日本"\n'),
    ],
)  # fmt: skip
def test_docstrings_are_cut_out(code: str, without: str) -> None:
    assert remove_docstring(code) == without


def test_code_that_cannot_be_read_says_so() -> None:
    with pytest.raises(ValueError, match="cannot be tokenized"):
        remove_docstring('def f(:\n    """never ends')


def test_leaks_are_words_in_their_order() -> None:
    assert leaks("# Reads the\n#   file, quickly\nx()", "reads the file quickly.")
    assert not leaks("def reads_the_file_quickly(): pass", "Reads the file quickly")
    assert not leaks("the file", "the files")
    assert not leaks("anything", "...")


def test_the_prompt_is_this_to_the_byte(folder: Path) -> None:
    task = CodeXGLUETask(shots=1)
    requests = task.requests(task.load(folder, limit=2))
    shown = 'def {}(a, b="):"):\n    return a + b\n# Summary:'
    assert requests[1].text == f"{shown.format('valid0')} Adds a to valid0 .\n\n{shown.format('test1')}"
    assert requests[2].text == (
        "func valid0(a int) int {\n\treturn a\n}\n// Summary: Adds a to valid0 .\n\n"
        "func test0(a int) int {\n\treturn a\n}\n// Summary:"
    )
    assert [request.id for request in requests] == ["python/test/0", "python/test/1", "go/test/0", "go/test/1"]
    assert requests[0].stop == ("\n",) and requests[0].max_new_tokens == 64
    assert requests[0].shots is requests[1].shots


def test_one_language_and_its_own_folder(folder: Path) -> None:
    assert {record.set.language for record in CodeXGLUETask(languages=("go",)).load(folder)} == {"go"}
    assert len(CodeXGLUETask().load(folder / "go")) == 4
    with pytest.raises(UserError, match="holds no php, only python, go"):
        CodeXGLUETask(languages=("php",)).load(folder)


def test_a_leaking_row_is_an_error_or_left_out_and_counted(folder: Path) -> None:
    leaking = row("go", "test9", code="// Adds a\n// to test9.\nfunc test9() {}")
    write(folder / "go" / "test.jsonl.gz", [row("go", "test0"), leaking, row("go", "test2", docstring_tokens=[])])
    with pytest.raises(
        UserError, match=r"go/test/1 cannot be used: its code still holds its documentation \(2 such rows"
    ):
        CodeXGLUETask().load(folder)
    task = CodeXGLUETask(leaks="skip", languages=("go",))
    records = task.load(folder)
    scores = task.score(records, {record.id: [f" {record.function.summary}"] for record in records})
    assert scores.n == 1 and scores.breakdown["by_language"]["go"]["num_skipped"] == 2
    assert (scores.protocol["num_scored"], scores.protocol["num_skipped"]) == (1, 2)
    assert scores.protocol["skipped"]["go/test/2"] == "it has no documentation"
    # A row past the limit is none of this run's business.
    assert len(CodeXGLUETask(languages=("go",)).load(folder, limit=1)) == 1


def test_worked_examples_are_usable_and_not_in_the_test(folder: Path) -> None:
    copied = row("go", "test1", code="func test1(a int) int {\n\n  return a }")
    write(
        folder / "go" / "test.jsonl.gz", [row("go", "test0"), copied | {"docstring_tokens": ["other", "words", "here"]}]
    )
    valid = [row("go", "valid0", docstring_tokens=[]), copied, row("go", "valid2"), row("go", "valid3")]
    write(folder / "go" / "valid.jsonl.gz", valid)
    task = CodeXGLUETask(shots=2, languages=("go",))
    assert task.load(folder, limit=1)[0].set.exemplars == ("go/valid/2", "go/valid/3")
    with pytest.raises(UserError, match="shots: 3 is more than the 2 usable rows of valid"):
        CodeXGLUETask(languages=("go",)).load(folder)
    (folder / "go" / "valid.jsonl.gz").unlink()
    write(folder / "go" / "train.jsonl", [row("go", "train0")])
    assert CodeXGLUETask(shots=1, languages=("go",)).load(folder)[0].set.exemplars == ("go/train/0",)


def test_scores_of_the_first_line(folder: Path) -> None:
    task = CodeXGLUETask()
    records = task.load(folder)
    scores = task.score(records, {r.id: [f" {r.function.summary}\nfunc more() {{}}"] for r in records})
    assert scores.metrics == {"chrf1": 100.0, "smoothed_bleu4": 100.0} and scores.n == 8
    given = {r.id: [f" {r.function.summary}" if r.set.language == "go" else ""] for r in records}
    scores = task.score(records, given)
    assert scores.metrics["chrf1"] == 50.0 and scores.breakdown["by_language"]["python"]["chrf1"] == 0.0
    assert scores.protocol["metrics"]["chrf1"]["beta"] == 1
    assert scores.protocol["exemplars"] == {each: [f"{each}/valid/{i}" for i in range(3)] for each in ("python", "go")}
    assert sorted(scores.protocol["data_sha256"]) == [
        "go/test.jsonl.gz", "go/valid.jsonl.gz", "python/test.jsonl", "python/valid.jsonl",
    ]  # fmt: skip
    assert set(scores.samples[0]) == {
        "id", "prompt", "completion", "answer", "reference", "sentence_chrf1", "smoothed_bleu4",
    }  # fmt: skip
    json.dumps([scores.protocol, scores.breakdown, scores.samples])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shots": -1}, "shots: -1 is too small"),
        ({"languages": ("perl",)}, "'perl' is not one of python, php"),
        ({"leaks": "keep"}, "leaks: 'keep' is not one of error, skip"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CodeXGLUETask(**options)


def test_files_that_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        CodeXGLUETask().load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no test.jsonl or test.jsonl.gz"):
        CodeXGLUETask().load(tmp_path / "empty")
    write(tmp_path / "more" / "test.jsonl", [row("go", "a")])
    with pytest.raises(UserError, match="both go and more hold go"):
        CodeXGLUETask().load(folder)
    write(tmp_path / "more" / "test.jsonl", [row("go", "a") | {"language": "perl"}])
    with pytest.raises(UserError, match="is of 'perl'"):
        CodeXGLUETask().load(folder)
    write(tmp_path / "more" / "test.jsonl", [row("go", "a") | {"docstring_tokens": "a b c"}])
    with pytest.raises(UserError, match="test.jsonl:1: no usable 'docstring_tokens'"):
        CodeXGLUETask().load(tmp_path / "more")


def test_the_real_ruby() -> None:
    task = CodeXGLUETask()
    records = task.load(real_data("codexglue/code_to_text"))
    assert len(records) == 1261
    first = task.requests(records)[0]
    assert (
        hashlib.sha256(first.text.encode()).hexdigest()
        == "5ab5085107dc11a9fdfbac346febf0aae44e11a423e313f340b1a08e647d4da8"
    )
    scores = task.score(records, {record.id: [f" {record.function.summary}"] for record in records})
    assert {name: round(value, 9) for name, value in scores.metrics.items()} == {
        "chrf1": 100.0,
        "smoothed_bleu4": 100.0,
    }
    assert scores.protocol["num_skipped"] == 0
