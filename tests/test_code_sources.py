"""Code data: what a build reads and refuses: datasets, other languages, odd files, settings; and the command."""

import os
import sysconfig
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calmctl.cli.main import main
from data_builders.benchmarks.humaneval import read_humaneval
from data_builders.benchmarks.mbpp import read_mbpp
from data_builders.code.build import build
from data_builders.errors import UserError
from tests.code_tree import (
    TRAINING,
    VALIDATION,
    files,
    left_out,
    module,
    rows,
    settings,
    write_test_sets,
    write_tree,
)
from tests.real_data import real_data


@pytest.fixture(scope="module")
def tests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_test_sets(tmp_path_factory.mktemp("tests"))


def test_rows_of_a_dataset_are_a_source(tests: Path, tmp_path: Path) -> None:
    names = [f"things{number}" for number in range(24)]
    (tmp_path / "copy").mkdir()
    table = {
        "content": [module(name) for name in names],
        "lang": ["Python"] * 20 + ["COBOL"] * 4,
        "max_stars_repo_licenses": [["MIT"]] * 18 + [["GPL-3.0"]] * 6,
    }
    pq.write_table(pa.table(table), tmp_path / "copy" / "train.parquet")
    manifest = build(settings(tmp_path / "copy", tests, validation_share=0.4), tmp_path / "out", workers=1)
    assert manifest["counts"]["files"]["python"]["kept"] == 18
    assert left_out(manifest) == {"licence_other": 2}
    assert {row["text"] for row in rows(tmp_path / "out", "aug_train")} & {module("things0"), module("things7")}


def test_other_languages_have_a_corpus_each(tests: Path, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "tree", count=20)
    for number in range(10):
        lines = (f"func Step{number}_{line}(x int) int {{ return x*{line + number} }}\n" for line in range(20))
        (source / f"steps{number}.go").write_text("package steps\n" + "".join(lines))
    manifest = build(settings(source, tests, languages=("python", "go")), tmp_path / "out", workers=1)
    assert {row["meta"]["language"] for row in rows(tmp_path / "out", "code_go")} == {"go"}
    of_each = files(tmp_path / "out", "code_go"), files(tmp_path / "out", "code_python")
    assert set.union(*of_each) == files(tmp_path / "out", "aug_train")
    assert manifest["counts"]["files"]["go"]["files"] == 10


def test_files_that_are_none_and_names_that_are_no_text(tests: Path, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "tree", count=20)
    Path(os.fsdecode(os.fsencode(source) + b"/caf\xe9.py")).write_text(module("cafes"))
    os.mkfifo(source / "pipe.py")
    (source / "link.py").symlink_to(source / "nothing.py")
    manifest = build(settings(source, tests), tmp_path / "out", workers=1)
    assert manifest["counts"]["files"]["python"]["files"] == 21
    assert "tree/caf\\xe9.py" in files(tmp_path / "out", *TRAINING, *VALIDATION)


def test_a_tokenizer_that_is_too_small_for_the_scripts_is_refused(tests: Path, tmp_path: Path) -> None:
    source = write_tree(tmp_path / "tree", count=20)
    for path in source.glob("*.py"):
        path.write_text(f"{path.read_text()}\nLETTERS = '{path.stem} {'नमस्ते दुनिया ' * 60}'\n")
    config = settings(source, tests, vocab_size=258)
    with pytest.raises(UserError, match="vocab_size: 258: too small for the scripts: python takes 1"):
        build(config, tmp_path / "out", workers=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([], "sources: name at least one with --source"),
        (["--source=TMP/nothing"], "no such"),
        (["--source=TMP/empty"], "no usable file of document, "),
        (["--source=TMP/file.py"], "is a file; name a folder"),
        (["--source=TMP/tree", "humaneval=null", "tests=null"], "humaneval: name its path or hub id"),
        (["--source=TMP/tree", "mbpp=TMP/none/at/all"], "no such file or folder"),
        (["--source=TMP/tree", "languages=[cobol]"], "languages: 'cobol' is not one of python"),
        (["--source=TMP/tree", "min_alphanumeric=0.99"], "no code is left for training of 5 files"),
        (["--source=TMP/latin", "on_undecodable=fail"], "latin/a.py: byte 2 is not UTF-8"),
        (["--source=TMP/tree", "vocab_size=100"], "vocab_size: 100 is too small"),
        (["--source=TMP/tree", "dc_unseen=true", "dc_pairs_share=0.5"], "dc_unseen: D_C is whole files then"),
        (["--source=TMP/tree", "dc_share=0"], "dc_share: 0.0 must lie between 0 and 1"),
        (["--source=TMP/tree", "--workers=0"], "Invalid value for '--workers'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(changes: list[str], message: str, tests: Path, tmp_path: Path,
                                               capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    write_tree(tmp_path / "tree", count=4)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.py").touch()
    (tmp_path / "latin").mkdir()
    (tmp_path / "latin" / "a.py").write_bytes(b"# \xe9" + b"x = 1\n" * 50)
    given = [text.replace("TMP", str(tmp_path)) for text in changes]
    command = ["data", "code", "--preset=default", "--out", str(tmp_path / "out"), "--data", str(tests), *given]
    assert main([*command, *([] if "--workers=0" in given else ["--workers=1"])]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("calmctl: error: ") and message in error


def test_command_builds_once_and_prints_what_there_is(tests: Path, tmp_path: Path,
                                                      capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    write_tree(tmp_path / "tree", count=20)
    command = ["data", "code", "--preset=smoke", "--out", str(tmp_path / "out"), "--tests", str(tests),
               "--source", str(tmp_path / "tree"), "--workers=1", "vocab_size=400"]  # fmt: skip
    assert main(command) == 0
    assert "aug_train.parquet" in capsys.readouterr().out
    assert main(command) == 0
    assert not (tmp_path / "out" / ".work").exists()


def test_real_solutions_in_real_files_are_found_and_nothing_is_left(tmp_path: Path) -> None:
    names = [real_data(name) for name in ("humaneval", "mbpp", "codexglue/code_to_text")]
    problems = {**{p.task_id: p.prompt + p.canonical_solution for p in read_humaneval(names[0])[::20]},
                **{str(p.task_id): p.code for p in read_mbpp(names[1])[::100]}}  # fmt: skip
    source = tmp_path / "source"
    source.mkdir()
    standard = Path(sysconfig.get_path("stdlib"))
    for name in ("textwrap", "heapq", "shlex", "fnmatch", "bisect", "statistics", "colorsys", "queue", "glob"):
        (source / f"{name}.py").write_text((standard / f"{name}.py").read_text())
    for number, code in enumerate(problems.values()):
        (source / f"planted{number}.py").write_text(f"{module(f'herd{number}')}\n{code}\n")
    config = settings(source, tmp_path, licences="any", duplicate_similarity=1.0, validation_share=0.4,
                      humaneval=str(names[0]), mbpp=str(names[1]), codexglue=str(names[2]))  # fmt: skip
    manifest = build(config, tmp_path / "out", workers=1)
    found = sum(count for reason, count in left_out(manifest).items() if reason.startswith("overlap"))
    assert found >= len(problems)
    assert not any("planted" in name for name in files(tmp_path / "out", *TRAINING, *VALIDATION))
    assert manifest["overlap"] == {"humaneval": 0, "mbpp": 0, "codexglue": 0}
