"""What each isolation lets a program do: docs/code-execution.md says it, and every line of it is tried."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import pytest

import evals.sandbox.isolation as isolation_module
from evals.sandbox import Isolation, Limits, Program, Verdict, find_isolation, run_alone
from evals.sandbox.scratch import is_too_full, scratch_folder
from tests import probes

ROOT = Path(__file__).resolve().parents[1]
STRONGEST, _ = find_isolation()
BUBBLEWRAP = shutil.which("bwrap") or ""
COLUMNS = {
    "limits alone": Isolation(),
    "seccomp": Isolation(seccomp=True),
    "seccomp + Landlock": Isolation(seccomp=True, landlock=True),
    "bubblewrap": STRONGEST if STRONGEST.bubblewrap else Isolation(BUBBLEWRAP, seccomp=True),
}
FLOODED = "make more than 1,024 files in its folder"
NUM_THREADS = 20  # instead of 1,024, that this machine has little to do
LIMITS = Limits(10.0, processes=NUM_THREADS)
# Runs programs as another user, given and answered as JSON.
RUN = """
import json, sys
from evals.sandbox import *
isolation, limits, programs = json.load(sys.stdin)
for program in programs:
    verdict = run_alone(Program(**program), Limits(**limits), Isolation(**isolation))
    print(json.dumps([verdict.status, verdict.detail]))
"""


def table() -> dict[str, dict[str, str]]:
    """Return the cells of the table, by line and isolation."""
    text = (ROOT / "docs" / "code-execution.md").read_text()
    rows = [
        line.strip("| ").split(" | ")
        for line in re.findall(r"^\| a program can .*(?:\n\|.*)+", text, re.M)[0].splitlines()
    ]
    return {cells[0]: dict(zip(rows[0][1:], cells[1:], strict=True)) for cells in rows[2:]}


@pytest.fixture(params=[*(pytest.param(name, marks=pytest.mark.slow) for name in list(COLUMNS)[:3]), "bubblewrap"])
def column(request: pytest.FixtureRequest) -> str:
    isolation = COLUMNS[request.param]
    if run_alone(Program("", ""), LIMITS, isolation).status == "refused" or (
        isolation.bubblewrap is not None and not BUBBLEWRAP
    ):
        pytest.skip(f"{request.param} does not work here")
    return str(request.param)


def judge(programs: list[Program], isolation: Isolation, user: int) -> list[tuple[str, str]]:
    """Judge programs by a process of a user; skip where that user cannot run Python."""
    if user == os.geteuid():
        verdicts = [run_alone(program, LIMITS, isolation) for program in programs]
        return [(verdict.status, verdict.detail) for verdict in verdicts]
    python = next(
        (each for each in (os.path.realpath(sys.executable), "/usr/bin/python3") if _works_for(user, each)), None
    )
    if python is None:
        pytest.skip("no other user can run a Python of this version")
    given = json.dumps([asdict(isolation) | {"own_user": False}, asdict(LIMITS), [asdict(each) for each in programs]])
    done = subprocess.run([python, "-c", RUN], input=given, text=True, capture_output=True, check=True, **_as(user))
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def _works_for(user: int, python: str) -> bool:
    test = f"import sys, evals.sandbox\nassert sys.version_info[:2] == {sys.version_info[:2]}"
    try:
        return subprocess.run([python, "-c", test], capture_output=True, **_as(user)).returncode == 0
    except OSError:
        return False


def _as(user: int) -> dict[str, object]:
    site = [path for path in sys.path if path.endswith("-packages")]
    environment = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *site]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": os.environ["PATH"],
    }
    return {"user": user, "group": user, "extra_groups": [], "env": environment, "cwd": "/"}


@pytest.mark.parametrize("user", [os.geteuid(), pytest.param(65534, marks=pytest.mark.slow)])
def test_the_table_of_the_documentation_is_true(column: str, user: int, tmp_path: Path) -> None:
    if user != os.geteuid() and os.geteuid() != 0:
        pytest.skip("only root can be another user")
    isolation = COLUMNS[column]
    folder = Path("/var/tmp") / f"calmctl-{os.getpid()}-{user}"
    folder.mkdir()
    who = {} if user == os.geteuid() else _as(user)
    victim = subprocess.Popen(["sleep", "60"], **who | {"env": {"SECRET": "x"}})
    try:
        (folder / "secret").write_text("sesame")
        for path in (folder, folder / "secret"):
            os.chown(path, user, -1)
        words = {"SECRET": folder / "secret", "FOLDER": folder, "VICTIM": victim.pid}
        words["NUM_THREADS"] = NUM_THREADS if isolation.seccomp else 64
        tests = "raise Exception('+'.join(str(number) for number, found in enumerate(outcomes.values()) if found))"
        attempts = Program(probes.program(**words), tests, names=("outcomes",))
        (_, detail), (flood, _) = judge([attempts, Program(probes.FLOOD, "assert f()", names=("f",))], isolation, user)
    finally:
        victim.kill()
        victim.wait()
        shutil.rmtree(folder)
    assert (said := re.fullmatch(r"tests: Exception:? ?((?:\d+\+?)*)", detail)), detail
    possible = {list(probes.ATTEMPTS)[int(number)] for number in said[1].split("+") if number}
    cells = {line: row[column] for line, row in table().items()}
    assert cells.keys() == probes.ATTEMPTS.keys() | {FLOODED}
    assert flood == ("crashed" if cells.pop(FLOODED) == "for 0.05 s" else "failed")
    meaning = {"yes": True, "no": False, "as that user": user != 0}
    expected = {line: meaning[cell] for line, cell in cells.items() if cell != "as the machine allows"}
    assert {line: line in possible for line in expected} == expected


def outcome(code: str, tests: str, isolation: Isolation = STRONGEST) -> Verdict:
    return run_alone(Program(code, tests, names=("f",)), Limits(10.0), isolation)


def test_what_programs_find_does_not_depend_on_the_machine(column: str) -> None:
    """Cores, time zone and the shell's limits are those of any machine."""
    code = (
        "import ctypes, os, resource, time\nlibc = ctypes.CDLL(None)\nlibc.getenv.restype = ctypes.c_char_p\n"
        "def f(): return [libc.getenv(name) for name in (b'OPENBLAS_NUM_THREADS', b'OMP_NUM_THREADS')],"
        " dict(os.environ), time.localtime(0).tm_hour, resource.getrlimit(resource.RLIMIT_STACK)\n"
    )
    tests = (
        "threads, environment, hour, stack = f()\nassert threads == [b'1', b'1'], threads\n"
        "assert not environment.keys() - {'LC_CTYPE', 'PWD'} and hour == 0 and stack == (2**23, 2**23)\n"
    )
    verdict = outcome(code, tests, COLUMNS[column])
    assert verdict.passed, verdict


def test_temporary_files_work_where_the_table_says_so(column: str) -> None:
    code = (
        "import os, tempfile\ndef f():\n"
        "  with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile() as file:\n"
        "    open(folder + '/x', 'w').write('y')\n    open('z', 'w').write(str(os.path.exists(file.name)))\n"
        "    return open(folder + '/x').read() + open('z').read()\n"
    )
    verdict = outcome(code, "assert f() == 'yTrue'", COLUMNS[column])
    assert verdict.passed == (table()["write files in its folder"][column] == "yes"), verdict


def test_packages_are_found_wherever_the_environment_is(column: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also below `/tmp`, in whose place a program has a folder of its own."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        packages = Path(folder) / "environment" / "site-packages"
        packages.mkdir(parents=True)
        (packages / "package_of_a_user.py").write_text("def f(x): return x + 1\n")
        os.chmod(folder, 0o755)
        (Path(folder) / "link").symlink_to("environment")
        caches = isolation_module._site_packages, isolation_module._readable_paths
        with monkeypatch.context() as patch:
            patch.setattr(sys, "path", [*sys.path, str(packages), f"{folder}/link/site-packages"])
            for each in caches:
                each.cache_clear()
            found = outcome("from package_of_a_user import f", "assert f(1) == 2", COLUMNS[column])
            changed = outcome(f"open({str(packages / 'more.py')!r}, 'w')", "", COLUMNS[column])
        for each in caches:
            each.cache_clear()
        assert found.passed, found
        assert column == "limits alone" or not changed.passed


def test_linear_algebra_has_one_thread_however_many_cores_there_are() -> None:
    pytest.importorskip("numpy")
    code = "import os, numpy\nnumpy.ones((99, 99)) @ numpy.ones((99, 9))\ndef f(): return os.listdir('/proc/self/task')"
    verdict = outcome(code, "assert len(f()) == 1", Isolation())
    assert verdict.passed, verdict


def test_a_machine_that_allows_less_is_refused_not_scored() -> None:
    script = (
        "import resource\nresource.setrlimit(resource.RLIMIT_STACK, (2**20, 2**20))\nfrom evals.sandbox import *\n"
        "print(run_alone(Program('', ''), Limits(), Isolation()))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "refused" in done.stdout and "ulimit -H" in done.stdout


def test_the_tests_of_a_data_set_are_confined_too(column: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("sesame")
    attempts = {
        "use the network and the sockets of the machine": "__import__('socket').create_server(('127.0.0.1', 0))",
        "read files that calmctl may read, the tests among them": f"open({str(tmp_path / 'secret')!r})",
        "start processes, and leave some behind if it kills its judge": "__import__('os').system('true') == 0 or 1 / 0",
    }
    for line, attempt in attempts.items():
        verdict = outcome("", attempt, COLUMNS[column])
        assert verdict.passed == (table()[line][column] == "yes"), (line, verdict)


def test_a_folder_is_removed_however_deep_and_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch_folder() as folder:
        assert not is_too_full(folder, LIMITS)
        (Path(folder) / "link").symlink_to(tmp_path)
        before = os.open(".", os.O_RDONLY)
        os.chdir(folder)
        for _ in range(300):  # whose path is longer than a path can be
            os.mkdir("x" * 20)
            Path("file").touch()
            os.chdir("x" * 20)
        os.chmod(".", 0o300)
        os.fchdir(before)
        os.close(before)
        assert is_too_full(folder, LIMITS)
    assert not os.listdir(tmp_path)
