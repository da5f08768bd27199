# ruff: noqa: E501
"""The sandbox: right programs pass, and no hostile one does, under each isolation."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from data_builders.errors import UserError
from evals.sandbox import (
    Isolation,
    Limits,
    Program,
    Verdict,
    find_isolation,
    require_permission,
    run_alone,
    run_programs,
)
from tests.programs.attacking import TESTS, without_success
from tests.programs.hostile import ENDLESS, OPEN_WITH_LIMITS_ALONE, OWN_TESTS, PROGRAMS, TOO_HARMFUL

ROOT = Path(__file__).resolve().parents[1]
STRONGEST, WHY_NOT = find_isolation()
WEAKER = Isolation(seccomp=STRONGEST.seccomp, landlock=STRONGEST.landlock or bool(STRONGEST.bubblewrap))
LIMITS_ALONE = Isolation()
ISOLATIONS = ["bubblewrap", "weaker", "limits alone"]
FILE_SIZE = 16 * 2**20 + os.getpid()  # By which the processes of these tests are known.
SHORT, LIMITS, LONG = (Limits(timeout, file_size=FILE_SIZE) for timeout in (0.25, 1.0, 10.0))
WORKERS = 3  # Some of the hostile programs only wait.
RIGHT = "def f(x): return x + 1"


@pytest.fixture(
    scope="module", params=[ISOLATIONS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in ISOLATIONS[1:])]
)
def isolation(request: pytest.FixtureRequest) -> Isolation:
    if request.param == "limits alone":
        return LIMITS_ALONE
    if request.param == "weaker":
        if not WEAKER.seccomp or not WEAKER.landlock:
            pytest.skip("this kernel has no seccomp or no Landlock: only resource limits are left")
        return WEAKER
    if not STRONGEST.bubblewrap:
        pytest.skip(f"no strong isolation here: {WHY_NOT}")
    return STRONGEST


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = set(os.listdir("/tmp"))
    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        yield
    assert not os.listdir(folder)
    assert not [name for name in set(os.listdir("/tmp")) - before if name.startswith(("bomb", "large"))]
    assert not judges()


def judges() -> list[int]:
    """Return the processes of the sandbox that these tests started and that are still there."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if b"evals.sandbox.judge" in command and f'"file_size": {FILE_SIZE}'.encode() in command:
            found.append(int(path.parent.name))
    return found


def judge(code: str, tests: str, isolation: Isolation, names: tuple[str, ...] = ("f",)) -> Verdict:
    return run_alone(Program(code, tests, names=names), LIMITS, isolation)


@pytest.fixture(scope="module")
def places(isolation: Isolation, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What the words in capitals of the hostile programs stand for."""
    folder = tmp_path_factory.mktemp("places")
    (folder / "problems.jsonl").write_text("def")
    return {
        "OUTSIDE": folder / "outside",
        "DATA_SET": folder / "problems.jsonl",
        "CHECKOUT": ROOT,
        "HOME": Path.home(),
    }


@pytest.fixture(scope="module")
def verdicts(isolation: Isolation, places: dict[str, Path]) -> dict[str, Verdict]:
    """Judge the hostile programs side by side, with right ones in between."""
    programs: dict[str, Program] = {}
    for number, (name, code) in enumerate(PROGRAMS.items()):
        if isolation == LIMITS_ALONE and name in TOO_HARMFUL:
            continue
        if isolation == LIMITS_ALONE and name in OPEN_WITH_LIMITS_ALONE:
            code = without_success(code)
        for word, place in places.items():
            code = code.replace(word, str(place))
        programs[name] = Program(code, OWN_TESTS.get(name, TESTS), names=("f",))
        if number % 8 == 0:
            programs[f"right {number}"] = Program(RIGHT, TESTS, names=("f",))
    with ThreadPoolExecutor(WORKERS) as pool:
        judged = {
            name: pool.submit(run_alone, program, SHORT if name in ENDLESS else LIMITS, isolation)
            for name, program in programs.items()
        }
    return {name: future.result() for name, future in judged.items()}


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_hostile_program_passes_or_outlives_its_limit(name: str, verdicts: dict[str, Verdict]) -> None:
    if name not in verdicts:
        pytest.skip("resource limits alone leave this open, and it would reach this machine")
    verdict = verdicts[name]
    assert verdict.status in ("failed", "timeout", "crashed"), verdict
    assert "SyntaxError" not in verdict.detail and "IndentationError" not in verdict.detail, "the attack never ran"
    assert verdict.seconds < 20


def test_no_hostile_program_disturbs_the_next_or_touches_a_file(
    verdicts: dict[str, Verdict], isolation: Isolation, places: dict[str, Path]
) -> None:
    assert {verdict.status for name, verdict in verdicts.items() if name.startswith("right")} == {"passed"}
    if isolation != LIMITS_ALONE:
        data = places["DATA_SET"]
        assert (data.read_text(), data.stat().st_mode & 0o777) == ("def", 0o644)
        assert not places["OUTSIDE"].exists()


def test_the_suite_is_as_large_as_it_says() -> None:
    assert f"{len(PROGRAMS)} hostile programs" in (ROOT / "docs" / "code-execution.md").read_text()
    assert PROGRAMS.keys() >= OPEN_WITH_LIMITS_ALONE | TOO_HARMFUL | OWN_TESTS.keys()


def test_a_module_left_behind_is_not_imported_by_the_next_program(isolation: Isolation) -> None:
    leave = (
        "import os\nfor name in ('json', 'heapq', 'typing'):\n"
        "  try: open(f'{name}.py', 'w').write('raise SystemExit')\n  except OSError: pass\n"
    )
    judge(leave, "", isolation)
    verdict = judge(
        "import heapq, json, os\ndef f(x): return heapq.__file__ and os.listdir()",
        "assert not {'json.py', 'heapq.py'} & set(f(1))",
        isolation,
    )
    assert verdict.passed or "PermissionError" in verdict.detail, verdict


@pytest.mark.parametrize(
    ("code", "tests"),
    [
        ("def f(x): return [(x, {x: {x}}), None, 1.5, 'ä\\udc80', 2 ** 70, b'\\xff', 1j, float('inf')]",
         "assert f(1) == [(1, {1: {1}}), None, 1.5, 'ä\\udc80', 2 ** 70, b'\\xff', 1j, float('inf')]"),
        ("def f(n):\n  for i in range(n): yield (i, i)", "assert list(f(3)) == [(0, 0), (1, 1), (2, 2)] and f(1)"),
        ("import re\ndef f(s): return re.match('a', s)", "assert f('ab') and not f('b') and f('a').group() == 'a'"),
        ("from collections import Counter, namedtuple\nP = namedtuple('P', 'x y')\ndef f(s): return P(Counter(s), 1)",
         "assert f('aab') == ({'a': 2, 'b': 1}, 1)"),
        ("from decimal import Decimal\nimport datetime\ndef f(x): return Decimal(x), datetime.date(2024, 2, x)",
         "import datetime, decimal\nassert f(3) == (decimal.Decimal(3), datetime.date(2024, 2, 3))"),
        ("def f(x): return {1: x}.keys(), {1: x}.items()", "assert f(2) == ({1}, {(1, 2)}) and list(f(2)[0]) == [1]"),
        ("def f(*x): return list(x)", "assert f('', 'a') == ['', 'a'] and f('|', 'b') == ['|', 'b'] and f('') == ['']"),
        ("import json\ndef f(x): return json.loads(x)", "try:\n  f('{')\n  assert False\nexcept ValueError as error:\n  assert 'line 1' in str(error)"),
        ("class E(KeyError): pass\ndef f(x): raise E", "try:\n  f(1)\n  assert False\nexcept LookupError: pass"),
        ("def f(x): return x.decode('utf-8')", "try:\n  f(b'\\xff')\n  assert False\nexcept UnicodeError: pass"),
        ("def f(n): return n and 1 + f(n - 1)", "assert f(900) == 900"),
        ("def f(x): return 'x' * 2**22", "assert len(f(1)) == 2**22"),
        ("class f:\n  def __init__(self, x): self.x = x\n  def get(self): return self.x", "assert f(3).get() == f(3).x == 3"),
        ("def f(x): raise IndexError('no')", "try:\n  f(1)\n  assert False\nexcept IndexError as error:\n  assert str(error) == 'no'"),
        ("import numpy as np\ndef f(x): return np.int64(x) + 1, np.float32(0.5), np.bool_(True)",
         "assert f(1) == (2, 0.5, True)"),
        ("def f(x, kind): return isinstance(x, kind)", "assert f(1, int) and not f(1, str)"),
        ("import threading\ndef f(x):\n  out = []\n  t = threading.Thread(target=out.append, args=(x,))\n  t.start(); t.join()\n  return out",
         "assert f(1) == [1]"),
        ("import asyncio\nasync def g(x): return x\ndef f(x): return asyncio.run(g(x))", "assert f(1) == 1"),
        ("if __name__ == '__main__':\n  raise SystemExit\ndef f(x): return x", "assert f(1) == 1"),
        ("import tempfile\nprint('hello')\ndef f(x): return x", "assert f(1) == 1"),
        ("def f(n): return [(i, str(i)) for i in range(n)]", "n = 2**16\nx = [(i, str(i)) for i in range(n)]\ny = f(n)\nassert y == x\n"
         "assert y != x[:-1] + [0] and y != tuple(x) and len(y) == n and y[-1] == x[-1] and y[:2] == x[:2]"),
        ("x = 5\ndef f(): return x", "assert f() == 5"),
    ],
)  # fmt: skip
def test_right_programs_pass_whatever_they_return(code: str, tests: str, isolation: Isolation) -> None:
    verdict = run_alone(Program(code, tests, names=("f",)), LONG, isolation)
    assert verdict.passed, verdict


def test_objects_of_the_program_can_be_built_and_changed_by_the_tests(isolation: Isolation) -> None:
    code = (
        "class Node:\n  def __init__(self, value): self.value, self.left = value, None\n"
        "def depth(node): return 0 if node is None else 1 + depth(node.left)"
    )
    tests = "root = Node(1)\nroot.left = Node(2)\nassert depth(root) == 2 and root.left.value == 2 and root == root"
    assert judge(code, tests, isolation, ("Node", "depth")).passed


def test_the_tests_see_real_modules_only_if_the_program_has_them(isolation: Isolation) -> None:
    program = Program(
        "import sys\ndef f(x): return x", "assert f(1) < sys.maxsize", names=("f",), modules=(("sys", "import sys"),)
    )
    assert run_alone(program, LIMITS, isolation).passed
    fake = Program("class sys: maxsize = 0\ndef f(x): return x", program.tests, names=("f",), modules=program.modules)
    assert run_alone(fake, LIMITS, isolation).passed, "maxsize is the real one"
    without = Program("def f(x): return x", program.tests, names=("f",), modules=program.modules)
    assert "NameError" in run_alone(without, LIMITS, isolation).detail


def test_a_private_folder_for_temporary_files_under_bubblewrap() -> None:
    if not STRONGEST.bubblewrap:
        pytest.skip(f"no strong isolation here: {WHY_NOT}")
    code = "import os, tempfile\ndef f(x):\n  with tempfile.TemporaryFile() as s: s.write(b'x')\n  return os.path.exists('/tmp')"
    assert judge(code, "assert f(1)", STRONGEST).passed


def test_a_slow_program_gets_a_second_chance_alone_and_order_is_kept(isolation: Isolation) -> None:
    slow = Program("import time\ndef f(x): time.sleep(60)", TESTS, names=("f",))
    programs = [Program(RIGHT, TESTS, names=("f",)), slow, Program("", TESTS), Program(RIGHT, TESTS, names=("f",))]
    seen: list[int] = []
    verdicts = run_programs(programs, SHORT, isolation, on_verdict=seen.append)
    assert [verdict.status for verdict in verdicts] == ["passed", "timeout", "failed", "passed"]
    assert seen == [1, 2, 3, 4]


def test_a_sandbox_that_cannot_start_refuses() -> None:
    verdict = judge(RIGHT, TESTS, Isolation(bubblewrap="/bin/false"))
    assert verdict.status == "refused"


def test_killing_the_one_who_asked_ends_everything(isolation: Isolation, tmp_path: Path) -> None:
    script = (
        "from evals.sandbox import *\n"
        f"print('start', flush=True); run_alone(Program('while True: pass', ''), {LONG!r}, {isolation!r})"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, env={"TMPDIR": str(tmp_path)}
    )
    assert process.stdout and process.stdout.readline() == b"start\n"
    wait_until(lambda: len(judges()) >= 2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    wait_until(lambda: not judges())


def wait_until(condition) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux says whose memory others may read")
def test_nobody_reads_the_memory_of_the_one_who_asks() -> None:
    def is_readable() -> bool:
        return bool(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))

    during: list[bool] = []
    before = is_readable()
    run_programs([Program("", "")], isolation=LIMITS_ALONE, on_verdict=lambda _: during.append(is_readable()))
    assert (before, during, is_readable()) == (True, [False], True)


def test_nothing_runs_without_permission() -> None:
    with pytest.raises(UserError, match="--allow-code-execution"):
        require_permission(False, "humaneval")
    require_permission(True, "humaneval")


def test_the_isolation_says_what_it_is() -> None:
    assert Isolation().name == "resource limits"
    assert Isolation("/usr/bin/bwrap", seccomp=True).name == "bubblewrap + seccomp + resource limits"
    assert (WHY_NOT == "") == bool(STRONGEST.bubblewrap and STRONGEST.seccomp)
