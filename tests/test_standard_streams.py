"""Streams and disks that fail: one line, the documented exit code, and nothing that was made is lost."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calmctl.cli.main import main
from calmctl.runs.record import read_run
from data_builders.manifest import read_manifest, verify_files
from data_builders.values import read_json

COMMAND = [sys.executable, "-m", "calmctl"]
# How a stream is spoilt in the shell, and the exit code of a command that prints results and has no mistake.
SPOILT = {">&-": 0, ">&- 2>&- <&-": 0, "| head -n 1": 0, ">/dev/full": 1, ">/dev/full 2>/dev/full": 1, "2>&-": 0}


def shell(command: str, streams: str) -> tuple[int, str]:
    """Return the exit code of a command whose streams the shell spoils, and what it says on stderr."""
    words = " ".join(map(repr, COMMAND))
    line = f"set -o pipefail; {words} {command} {streams}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=100)
    return done.returncode, done.stderr


@pytest.mark.parametrize("streams", [">&- 2>&- <&-", "| head -n 1", ">/dev/full"])
def test_streams_that_fail_have_the_documented_exit_code(streams: str) -> None:
    code, said = shell("ls presets --json", streams)
    assert code == SPOILT[streams]
    expected = "calmctl: failed: stdout: No space left on device" if streams == ">/dev/full" else ""
    assert said.startswith(expected) and said.count("\n") == bool(expected)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["--help", "ls tasks"])
def test_every_printing_fails_alike(command: str) -> None:
    for streams, expected in SPOILT.items():
        code, said = shell(command, streams)
        assert code == expected and "Traceback" not in said and "Exception ignored" not in said, streams
    assert shell("ls nonsense", "2>/dev/full")[0] == shell("ls nonsense", ">&- 2>&-")[0] == 2


def test_a_file_never_gets_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    code = (
        "import sys; from calmctl.cli.standard_streams import prepare_streams; prepare_streams(); "
        f"file = open({str(tmp_path / 'data')!r}, 'w'); import os; os.write(1, b'x'); os.write(2, b'y'); print('z'); "
        "print('z', file=sys.stderr); sys.exit(file.fileno() < 3)"
    )
    done = subprocess.run(["bash", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, code], check=False)
    assert done.returncode == 0 and (tmp_path / "data").read_bytes() == b""


NOWHERE: dict[str, Callable[[Path], Path]] = {
    "below a file": lambda folder: _file(folder) / "out",
    "a file": lambda folder: _file(folder),
    "a device": lambda folder: Path("/dev/null"),
    "below a device": lambda folder: Path("/dev/null/out"),
    "a file system of the system": lambda folder: Path("/proc/out"),
    "too long a name": lambda folder: folder / ("a" * 300),
    "links in a circle": lambda folder: _circle(folder),
}


def _file(folder: Path) -> Path:
    (folder / "file").write_text("kept")
    return folder / "file"


def _circle(folder: Path) -> Path:
    (folder / "circle").symlink_to("circle")
    return folder / "circle"


@pytest.mark.parametrize("place", NOWHERE)
def test_results_that_can_go_nowhere_are_refused_in_one_line(tmp_path: Path, place: str, capsys: Any) -> None:
    out = NOWHERE[place](tmp_path)
    (tmp_path / "p.jsonl").write_text('{"id": "test/0", "completion": "1"}\n')
    (tmp_path / "test.jsonl").write_text('{"question": "a?", "answer": "#### 1"}\n')
    shared = ["--predictions", str(tmp_path / "p.jsonl"), "--data", str(tmp_path / "test.jsonl"), "--shots", "0"]
    for command in (["data", "kv", "--preset", "tiny"], ["score", "gsm8k", *shared]):
        assert main([*command, "--out", str(out)]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and str(out)[:20] in said and "Traceback" not in said
    assert not (tmp_path / "file").exists() or (tmp_path / "file").read_text() == "kept"


@pytest.mark.slow
def test_what_cannot_be_printed_is_stored_and_printed_by_the_same_command(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"id": "test/0", "completion": "#### 1"}\n')
    (tmp_path / "test.jsonl").write_text('{"question": "a?", "answer": "#### 1"}\n')
    shared = f"--data {tmp_path}/test.jsonl --predictions {tmp_path}/p.jsonl --shots 0"
    command = f"score gsm8k {shared} --out {tmp_path}/out --json"
    assert shell(command, ">/dev/full 2>/dev/full")[0] == 1
    assert read_run(tmp_path / "out").status == "complete"
    assert shell(command, f">{tmp_path}/printed")[0] == 0
    assert json.loads((tmp_path / "printed").read_text()) == read_json(tmp_path / "out" / "metrics.json")


BUILD = ["data", "kv", "--preset", "tiny", "--out"]


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(tmp_path: Path) -> None:
    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = subprocess.run([*COMMAND, *BUILD, tmp_path / "a"], preexec_fn=small, capture_output=True, text=True)
    assert done.returncode == 1 and "File too large; make room" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "a" / "manifest.json").exists()
    assert main([*BUILD, str(tmp_path / "a")]) == 0
    verify_files(tmp_path / "a", read_manifest(tmp_path / "a"))


@pytest.mark.slow
def test_a_terminal_that_goes_away_interrupts(tmp_path: Path) -> None:
    """SIGHUP, and from then on nothing can be written to the terminal."""
    process, terminal = os.forkpty()
    if process == 0:
        os.execv(sys.executable, [*COMMAND, "data", "kv", "--preset", "paper", "--out", str(tmp_path / "run")])
    for _ in range(600):
        if (tmp_path / "run" / "run.json").exists() or (tmp_path / "run" / "unfinished.json").exists():
            break
        time.sleep(0.1)
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) in (130, -signal.SIGHUP)
    assert read_run(tmp_path / "run").status == "interrupted"
