# ruff: noqa: E501
"""Programs that try to pass without solving their task, to outlive their limit, or to do harm.

All but the last few define `f` wrongly, so that a pass means that the attack worked; what checks whether something is
possible (`attempt`) makes `f` right only if it is.
"""

from textwrap import dedent, indent

SECRET = "sesame" + "-" + "open"
TESTS = f"assert f(1) == 2 and f(20) == 21  # {SECRET}"
WRONG = "def f(x): return 0\n"


def attempt(code: str) -> str:
    """Return a program whose `f` is right if `code`, the body of a function, returns without an error."""
    body = indent(dedent(code).strip(), "    ")
    return (
        f"def attack():\n{body}\ntry:\n    attack()\n    possible = True\nexcept BaseException:\n"
        "    possible = False\ndef f(x): return x + 1 if possible else 0\n"
    )


# Searching for what the tests say, spelt so that the program itself does not hold it.
NEEDLE = "needle = '-'.join(['sesame', 'open'])\n"

# Says to the judge what the wire never would.
ANSWERING = (
    "import os, sys\ndef answer(body):\n  pipe = sys._getframe(3).f_locals['writing']\n"
    "  view = memoryview(len(body).to_bytes(8, 'little') + body)\n"
    "  while view: view = view[os.write(pipe, view):]\n"
)

PROGRAMS = {
    # ending early
    "sys_exit": "import sys\nsys.exit(0)",
    "sys_exit_in_call": "import sys\ndef f(x): sys.exit(0)",
    "raise_system_exit": "raise SystemExit",
    "os_exit": "import os\nos._exit(0)",
    "os_exit_in_call": "import os\ndef f(x): os._exit(0)",
    "base_exception_in_call": "def f(x): raise KeyboardInterrupt",
    "stop_iteration_in_call": "def f(x): raise StopIteration(2)",
    "segmentation_fault": "import ctypes\ndef f(x): return ctypes.string_at(0)",
    "abort": "import os\ndef f(x): os.abort()",
    "nothing_defined": "",
    "exit_hook": "import atexit, os, sys\natexit.register(os._exit, 0)\nsys.exit(0)",
    # values that claim to be equal
    "equal_to_everything": "class A:\n  def __eq__(self, other): return True\ndef f(x): return A()",
    "int_equal_to_everything": "class A(int):\n  def __eq__(self, other): return True\ndef f(x): return A(0)",
    "metaclass_equal": (
        "class M(type):\n  def __eq__(cls, other): return True\n  __hash__ = None\n"
        "class A(metaclass=M): pass\ndef f(x): return A"
    ),
    "list_of_equals": "class A(str):\n  def __eq__(self, other): return True\ndef f(x): return A('a')",
    "false_class": "class A:\n  __class__ = int\n  def __eq__(self, other): return True\ndef f(x): return A()",
    "reflected_operators": "class A:\n  __eq__ = __req__ = lambda self, other: True\n  __ne__ = None\ndef f(x): return A()",
    "false_module": "class A:\n  def isoformat(self): return '1'\nA.__module__, A.__qualname__ = 'datetime', 'date'\ndef f(x): return A()",
    "numpy_look_alike": "class A:\n  shape = ()\n  def item(self): return self\nA.__module__ = 'numpy'\ndef f(x): return A()",
    # reaching for the checker
    "frame_walk": attempt("""
        import sys
        frame, found = sys._getframe().f_back, []
        while frame:
            for names in (frame.f_locals, frame.f_globals):
                found += [n for n in names if n in ('job', 'nonce', 'verdicts', 'tests', 'check', 'finish')]
                for value in list(names.values()):
                    if isinstance(value, list): value.append('passed')
            frame = frame.f_back
        assert found
    """),
    "exception_frames": attempt("""
        import sys, traceback
        sys.excepthook = sys.unraisablehook = lambda *a: None
        try: raise ValueError
        except ValueError as e: text = repr(list(traceback.walk_tb(e.__traceback__))) + repr(sys.exc_info())
        assert 'nonce' in text
    """),
    "gc_search": attempt(NEEDLE + """
import gc
assert any(needle in repr(x) for x in gc.get_objects() if isinstance(x, (str, dict, list, tuple, bytes)) and x is not needle and 'needle' not in repr(x))
"""),
    "own_memory": attempt(NEEDLE + """
import re
seen = 0
with open('/proc/self/maps') as maps, open('/proc/self/mem', 'rb', 0) as mem:
    for line in maps:
        start, end = (int(x, 16) for x in line.split()[0].split('-'))
        if 'rw' in line and end - start < 2**26:
            mem.seek(start)
            seen += mem.read(end - start).count(b'# ' + needle.encode())
assert seen
"""),
    "other_memory": attempt(NEEDLE + """
import os
found = 0
for pid in [p for p in os.listdir('/proc') if p.isdigit() and int(p) != os.getpid()]:
    for name in ('environ', 'cmdline'):
        try: found += needle in open(f'/proc/{pid}/{name}').read()
        except OSError: pass
    try: open(f'/proc/{pid}/mem', 'rb').close()
    except OSError: continue
    found += 1
assert found
"""),
    "parent_descriptors": attempt("import os\nassert open(f'/proc/{os.getppid()}/fd/0')"),
    "parent_environment": attempt("import os\nassert open(f'/proc/{os.getppid()}/environ').read() is not None"),
    "process_vm_readv": attempt("""
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        buffer = ctypes.create_string_buffer(8)
        local = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 8)
        remote = (ctypes.c_void_p * 2)(id(None), 8)
        assert libc.process_vm_readv(os.getppid(), local, 1, remote, 1, 0) == 8
    """),
    "ptrace": attempt("import ctypes, os\nassert ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0"),
    "environment": attempt("import os\nassert [name for name in os.environ if name not in ('LC_CTYPE', 'PWD')]"),
    "arguments": attempt(NEEDLE + "import sys\nassert needle in repr(sys.argv) + repr(sys.orig_argv) or 'nonce' in sys.argv"),
    "command_line": attempt("assert 'sesame' in open('/proc/self/cmdline').read()"),
    "standard_input": attempt("import sys\nassert sys.stdin.read()"),
    "more_descriptors": attempt("""
        import os
        count = 0
        for fd in range(3, 1024):
            try: os.fstat(fd); count += 1
            except OSError: pass
        assert count > 2
    """),
    "verdict_to_every_descriptor": WRONG + (
        "import os\nfor fd in range(64):\n  for text in (b'{\"status\": \"passed\", \"detail\": \"\"}', b'passed'):\n"
        "    try: os.write(fd, text)\n    except OSError: pass\n"
    ),
    "answers_by_itself": WRONG + (
        "import os, json, struct\nbody = json.dumps({'value': True}).encode()\n"
        "for fd in range(3, 64):\n  try: os.write(fd, (struct.pack('<Q', len(body)) + body) * 50)\n  except OSError: pass\n"
    ),
    "errors_by_itself": WRONG + (
        "import os, json, struct\nbody = json.dumps({'error': ['StopIteration', '']}).encode()\n"
        "for fd in range(3, 64):\n  try: os.write(fd, (struct.pack('<Q', len(body)) + body) * 50)\n  except OSError: pass\n"
    ),
    "patched_wire": WRONG + (
        "import sys\ncandidate = sys.modules['evals.sandbox.candidate']\n"
        "candidate.encode = lambda value, refer: {'ref': 0}\n"
    ),
    "unknown_tags": WRONG + (
        "import sys\ncandidate = sys.modules['evals.sandbox.candidate']\n"
        "candidate.encode = lambda value, refer: {'type': 'exit'} if value == 0 else value\n"
    ),
    "patched_judge": WRONG + (
        "import sys, os, json\njudge = sys.modules['evals.sandbox.judge']\n"
        "judge._judge = lambda *a: ('passed', '')\njudge._answer = lambda *a: os._exit(0)\n"
    ),
    "patched_builtins": WRONG + (
        "import builtins\nfor name in ('exec', 'compile', 'isinstance', 'all', 'len', 'AssertionError', 'bool'):\n"
        "    setattr(builtins, name, lambda *a, **k: True)\n"
    ),
    "patched_os": WRONG + "import os, sys\nos.write = os._exit = sys.exit = os.read = lambda *a: None\n",
    "trace_function": WRONG + "import sys, threading\nsys.settrace(lambda *a: None); sys.setprofile(lambda *a: os._exit(0))\n",
    "evil_message": "class E(Exception):\n  def __str__(self): raise SystemExit\ndef f(x): raise E",
    "no_end_but_an_error": "class E(BaseException): pass\ndef f(x): raise E",
    "end_of_a_loop": "def f(x): raise StopIteration",
    "end_of_a_loop_by_iterator": "class A:\n  def __iter__(self): raise StopIteration\ndef f(x): return A()",
    "generator_exit": "def f(x): raise GeneratorExit",
    "exception_group": "def f(x): raise ExceptionGroup('x', [ValueError()])",
    "not_a_number": "def f(x): return float('nan')",
    "infinity": "def f(x): return float('inf')",
    "reduces_to_code": "import os\nclass A:\n  def __reduce__(self): return os._exit, (0,)\ndef f(x): return A()",
    "numbers_by_method": (
        "class A(float):\n  __float__ = __abs__ = __sub__ = __rsub__ = __round__ = lambda self, *a: 0.0\n"
        "  __lt__ = __gt__ = __le__ = __ge__ = lambda self, other: True\ndef f(x): return A('nan')"
    ),
    "sizes_by_method": (
        "class A(list):\n  __len__ = __index__ = __hash__ = lambda self: 2\n  __contains__ = lambda self, x: True\n"
        "  def __iter__(self): return iter(range(100))\ndef f(x): return A()"
    ),
    "says_another_each_time": "import itertools\ncount = itertools.count()\ndef f(x): return next(count)",
    "function_equal_to_everything": "class F:\n  def __call__(self, x): return self\n  def __eq__(self, o): return True\nf = F()",
    "type_as_function": "f = type",
    "iterator_as_result": "def f(x):\n  while True: yield 2",
    "import_hook": WRONG + (
        "import sys\nclass Hook:\n  def find_spec(self, *a): raise SystemExit\n"
        "sys.meta_path.insert(0, Hook()); sys.path_hooks.clear(); sys.modules.clear()\n"
    ),
    "poisoned_modules": WRONG + "import sys\nfor name in list(sys.modules): sys.modules[name] = None\n",
    "patched_json": WRONG + "import json\njson.dumps = lambda *a, **k: '{\"value\": true}'\n",
    "finalizer": "import os\nclass A:\n  def __del__(self): os._exit(0)\na = A()\ndef f(x):\n  global a\n  del a",
    # answers that are none
    **{f"wire_{name}": ANSWERING + f"def f(x): answer({answer})\n" for name, answer in {
        "many_digits": "b'{\"value\":' + b'9' * 10**5 + b'}'",
        "deep": "b'[' * 10**5",
        "no_object": "b'\"many\"'",
        "many_of_a_negative_number": "b'{\"many\":[0,-1,\"list\"]}'",
        "many_of_many": "b'{\"many\":[0,4096,\"list\"]}'",
        "many_of_too_many": "b'{\"many\":[0,' + b'9' * 4000 + b',\"list\"]}'",
        "any_type": "b'{\"value\":{\"type\":\"__import__\"}}'",
        "loaded_type": "b'{\"value\":{\"os.system\":\"true\"}}'",
        "method_of_a_reference": "b'{\"value\":{\"bytes\":{\"ref\":0}}}'",
        "division_by_zero": "b'{\"value\":{\"fractions.Fraction\":[1,0]}}'",
        "texts_that_are_none": "b'{\"value\":{\"texts\":5}}'",
        "base_exception": "b'{\"error\":[[\"BaseException\"],\"\"]}'",
        "end_of_everything": "b'{\"error\":[[\"StopIteration\"],\"\"]}'",
        "unknown_error": "b'{\"error\":[[1,{}],[]]}'",
        "no_text": "bytes(range(256))",
        "truth": "b'{\"value\":true}'",
    }.items()},
    "message_without_end": WRONG + "import os\nfor fd in range(3, 64):\n  try: os.write(fd, (2**63).to_bytes(8, 'little'))\n  except OSError: pass\n",
    "half_a_message": WRONG + "import os, time\nfor fd in range(3, 64):\n  try: os.write(fd, (99).to_bytes(8, 'little'))\n  except OSError: pass\ntime.sleep(60)\n",
    # having the tests compute without end
    "memory_of_the_judge": ANSWERING + "def f(x): answer(b'[' + b'[],' * (83 * 2**20) + b'[]]')\n",
    "time_of_the_judge": "def f(x): return 1 << 2 * 10**8",
    # outliving the limit
    "busy": "def f(x):\n  while True: pass",
    "busy_at_import": "while True: pass",
    "swallowed_timeout": (
        "import signal\nfor n in range(1, 65):\n  try: signal.signal(n, signal.SIG_IGN)\n  except (OSError, ValueError): pass\n"
        "def f(x):\n  while True:\n    try:\n      while True: pass\n    except: pass"
    ),
    "cancelled_alarm": "import signal, time\nsignal.alarm(0); signal.setitimer(signal.ITIMER_REAL, 0)\ntime.sleep(60)",
    "sleep": "import time\ndef f(x): time.sleep(60)",
    "endless_output": "def f(x):\n  while True: print('x' * 10000, flush=True)",
    "endless_iterator": "class A:\n  def __iter__(self): return self\n  def __next__(self): return 0\ndef f(x): return A()",
    "long_arithmetic": "def f(x): return 3 ** (10 ** 9)",
    "thread_left_running": (
        "import threading\ndef spin():\n  while True: pass\n"
        "for _ in range(4): threading.Thread(target=spin).start()\ndef f(x): return 0"
    ),
    # new processes
    "fork_bomb": attempt("import os\nfor _ in range(100):\n    os.fork()"),
    "fork_without_libc": attempt("import ctypes\nassert ctypes.CDLL(None).syscall(57) > 0"),
    "daemon": attempt("""
        import os
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                while True: pass
            os._exit(0)
    """),
    "subprocess": attempt("import subprocess, sys\nsubprocess.run([sys.executable, '-c', ''], check=True)"),
    "shell": attempt("import os\nassert os.system('true') == 0"),
    "exec": "import os\nos.execv('/bin/true', ['true'])",
    "multiprocessing": attempt("import multiprocessing as m\np = m.get_context('fork').Process(target=print)\np.start()"),
    # taking everything
    "memory_bomb": attempt("x = []\nwhile True:\n    x.append(bytearray(2**28))\n    if len(x) > 16: return"),
    "memory_bomb_in_call": "def f(x): return [0] * 10**12",
    "large_value": "def f(x): return 'x' * (257 * 2**20)",
    "deep_value": "def f(x):\n  y = []\n  for _ in range(10**5): y = [y]\n  return y",
    "cyclic_value": "def f(x):\n  y = []\n  y.append(y)\n  return y",
    "large_range": "def f(x): return range(10**18)",
    "many_items_that_equal": "class A:\n  def __eq__(self, other): return True\ndef f(x): return [A()] * 2**17",
    "recursion": "def f(x): return f(x)",
    "disk_bomb": attempt("""
        for number in range(64):
            for folder in ('', '/tmp/', '/dev/shm/', '/var/tmp/'):
                try: stream = open(f'{folder}bomb{number}', 'wb')
                except OSError: continue
                break
            else: raise OSError
            with stream: stream.write(bytes(2**22))
    """),
    "large_file": attempt("with open('/tmp/large', 'wb') as stream:\n    stream.truncate(2**40)\n    stream.write(bytes(2**26))"),
    "higher_limits": attempt("import resource as r\nr.setrlimit(r.RLIMIT_AS, (2**40, 2**40))"),
    "shared_memory": attempt("import ctypes\nassert ctypes.CDLL(None).shmget(7, 4096, 0o1666) >= 0"),
    "shared_memory_of_others": attempt("import ctypes\nassert ctypes.CDLL(None).shmctl(0, 3, ctypes.create_string_buffer(256)) >= 0"),
    "semaphores_of_others": attempt("import ctypes\nassert ctypes.CDLL(None).semctl(0, 0, 3, ctypes.create_string_buffer(256)) >= 0"),
    "shared_memory_folder": attempt("import os\nopen('/dev/shm/calmctl-x', 'w').close()\nos.unlink('/dev/shm/calmctl-x')"),
    "memory_file": attempt("import os\nos.memfd_create('x')"),
    # outside
    "password_file": attempt("open('/etc/passwd').read()"),
    "home": attempt("import os\nassert len(os.listdir('HOME')) > 1"),
    "data_set": attempt("assert 'def' in open('DATA_SET').read()"),
    "own_package": attempt("import os\nassert any(os.path.exists(p + '/calmctl/__init__.py') for p in ('CHECKOUT',) )\nopen('CHECKOUT/pyproject.toml')"),
    "write_outside": attempt("open('OUTSIDE', 'w').write('x')"),
    "write_system": attempt("open('/usr/x', 'w').write('x')"),
    "append_to_itself": attempt("import os, encodings\nopen(encodings.__file__, 'a').close()"),
    "remove": attempt("import os\nos.unlink('DATA_SET')"),
    "change_mode": attempt("import os\nos.chmod('DATA_SET', 0o777)"),
    "make_folder": attempt("import os\nos.mkdir('OUTSIDE')"),
    "tcp": attempt("import socket\nsocket.create_server(('127.0.0.1', 0))"),
    "udp": attempt("import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))"),
    "unix_socket": attempt("import socket\nsocket.socket(socket.AF_UNIX).bind('\\0calmctl')"),
    "kill_parent": attempt("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)"),
    "kill_all": attempt("import os, signal\nos.kill(-1, signal.SIGKILL)"),
    "kill_group": attempt("import os, signal\nos.killpg(0, signal.SIGKILL)"),
    "signal_by_descriptor": attempt("""
        import fcntl, os, socket
        here, there = socket.socketpair()
        fcntl.fcntl(here, fcntl.F_SETOWN, os.getppid())
        fcntl.fcntl(here, 10, 9)
        fcntl.fcntl(here, fcntl.F_SETFL, os.O_ASYNC)
        there.send(b'x')
    """),
    "signal_by_control": attempt("""
        import fcntl, os, socket, struct
        fcntl.ioctl(socket.socketpair()[0], 0x8901, struct.pack('i', os.getppid()))
    """),
    "socket_by_pair": attempt("import socket\nsocket.socketpair(type=socket.SOCK_DGRAM)"),
    "newer_system_call": attempt("""
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.syscall(463, -1, b'', 0, b'user.x', None, 0) < 0 and ctypes.get_errno() != 38
    """),
    "limit_parent": attempt("import os, resource as r\nr.prlimit(os.getppid(), r.RLIMIT_CPU, (0, 0))"),
    "slow_parent": attempt("import os\nos.setpriority(os.PRIO_PROCESS, os.getppid(), 19)"),
    "terminal": attempt("open('/dev/tty', 'w')"),
    "mount": attempt("import ctypes\nassert ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, 0) == 0"),
    "namespace": attempt("import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0"),
}  # fmt: skip

# What resource limits alone do not prevent (docs/code-execution.md): there, `f` is wrong whether it is possible or not.
OPEN_WITH_LIMITS_ALONE = frozenset(
    """
    subprocess shell multiprocessing memory_file shared_memory_of_others semaphores_of_others shared_memory_folder
    password_file home data_set own_package write_outside append_to_itself remove change_mode make_folder
    tcp udp unix_socket kill_parent kill_group signal_by_descriptor signal_by_control socket_by_pair
    newer_system_call limit_parent slow_parent namespace other_memory
""".split()
)
# Besides, what a test cannot undo: it would reach this machine.
TOO_HARMFUL = frozenset("""
    fork_bomb fork_without_libc daemon disk_bomb shared_memory large_file write_system kill_all
""".split())  # fmt: skip
# Programs that would run for ever, so that little time shows that they are ended.
ENDLESS = frozenset(
    """
    busy busy_at_import swallowed_timeout cancelled_alarm sleep endless_output endless_iterator iterator_as_result
    long_arithmetic patched_os half_a_message
""".split()
)


def without_success(program: str) -> str:
    """Return a program of `attempt` that is wrong even if what it attempts is possible."""
    return program.replace("return x + 1 if possible else 0", "return 0")


# Tests other than `TESTS`, which ask for what an attacker could learn from how a value is used.
OWN_TESTS = {
    "many_items_that_equal": "assert f(1) == [2] * 2**17",
    "reflected_operators": "assert abs(f(1) - 2) < 1e-6 and f(1) <= 2 and 2 == f(1)",
    "end_of_a_loop": "for x in map(f, (1, 20)): assert x == 2",
    "end_of_a_loop_by_iterator": "for y in (z for x in (1, 20) for z in f(x)): assert y == 2\nassert list(f(1)) == [2]",
    "wire_end_of_everything": "for x in map(f, (1, 20)): assert x == 2",
    "numbers_by_method": "assert abs(f(1) - 2) < 1e-6 and round(f(1)) == 2",
    "iterator_as_result": "assert list(f(1)) == [2]",
    "says_another_each_time": "assert f(1) == 2 or f(1) == 2",
    "sizes_by_method": "assert len(f(1)) == 2 and 7 in f(1)",
    "reduces_to_code": "import copy\nassert copy.deepcopy(f(1)) == 2",
    "wire_many_of_many": "assert f(1) == [2] * 4096",
    "wire_truth": "assert f(1) is True and f(1) == 2",
    "time_of_the_judge": "assert f(1) ** 2 == 4",
    "endless_iterator": f"assert list(f(1)) == [2]  # {SECRET}",
    "large_range": "assert list(f(1)) == [2]",
    "patched_builtins": "assert isinstance(f(1), int) and all(x == 2 for x in [f(1)]) and len([f(1)]) == 1",
}
