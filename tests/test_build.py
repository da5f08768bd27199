"""The frame of a build: a folder that is finished, unfinished, damaged or somebody else's, and its processes."""

from __future__ import annotations

import operator
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from data_builders.errors import UserError
from data_builders.kv.build import build
from data_builders.manifest import read_manifest, verify_files
from data_builders.progress import Progress
from data_builders.workers import Workers, num_workers
from tests.kv_settings import SMALL


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("kv") / "data"
    build(SMALL, out)
    return out


def test_finished_folder_is_kept_and_anything_else_is_refused(folder: Path, tmp_path: Path) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    lines: list[str] = []
    assert build(SMALL, folder, Progress(lines.append)) == read_manifest(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == stamps
    assert len(lines) == 1
    with pytest.raises(UserError, match="seed 3 there, 9 asked"):
        build(replace(SMALL, seed=9), folder)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"other files \(notes.txt\)"):
        build(SMALL, tmp_path)
    with pytest.raises(UserError, match="is a file"):
        build(SMALL, tmp_path / "notes.txt")


def test_damaged_folder_is_named(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    build(SMALL, out)
    (out / "aug_train.parquet").write_bytes(b"x" * (out / "aug_train.parquet").stat().st_size)
    with pytest.raises(UserError, match="aug_train.parquet differs"):
        build(SMALL, out)
    (out / "aug_train.parquet").unlink()
    with pytest.raises(UserError, match="aug_train.parquet is named"):
        verify_files(out, read_manifest(out))


def test_interrupted_build_is_unfinished_and_runs_again(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"

    def interrupt(line: str) -> None:
        if line.startswith("anchor"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(SMALL, out, Progress(interrupt))
    with pytest.raises(UserError, match="unfinished build"):
        read_manifest(out)
    with pytest.raises(UserError, match="unfinished build with other settings"):
        build(replace(SMALL, seed=9), out)
    assert build(SMALL, out) == read_manifest(folder)
    shutil.rmtree(out)
    out.mkdir()
    (out / "run.json").write_text('{"kind": "train"}')
    with pytest.raises(UserError, match=r"other files \(run.json\)"):
        build(SMALL, out)
    (out / "run.json").write_text('{"kind": "data"}')  # of a command, which looks after the settings
    with pytest.raises(KeyboardInterrupt):
        build(SMALL, out, Progress(interrupt))
    with pytest.raises(UserError, match="unfinished build"):
        read_manifest(out)
    assert build(SMALL, out) == read_manifest(folder)
    assert not [path.name for path in out.iterdir() if path.name.startswith((".", "unfinished"))]


def test_results_come_in_order_and_items_are_taken_as_they_are_needed() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(20):
            taken.append(item)
            yield -item

    with Workers(2, partial(int, -3)) as workers:  # what is prepared in each process goes with every item
        results = workers.map(operator.mul, items())
        assert next(results) == 0 and len(taken) == 4
        assert list(results) == list(range(3, 60, 3))


def test_a_process_that_is_killed_is_one_line() -> None:
    message = "was killed, perhaps for want of memory; run the"
    with Workers(2, os.getpid) as workers, pytest.raises(UserError, match=message):
        list(workers.map(os.kill, [signal.SIGKILL]))


def test_one_process_for_each_processor_unless_said_otherwise() -> None:
    assert num_workers(3) == 3 and num_workers(None) >= 1
    with pytest.raises(UserError, match="workers: 0 is too few"):
        num_workers(0)
