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
    "import os, sys\ndef find():\n  frame = sys._getframe(1)\n"
    "  while not hasattr(frame.f_locals.get('self'), 'writing'): frame = frame.f_back\n"
    "  return frame.f_locals['self']\n"
    "def answer(body, pipe=None):\n  view = memoryview(len(body).to_bytes(8, 'little') + body)\n"
    "  while view: view = view[os.write(pipe or find().writing, view):]\n"
    "def say(kind, body): answer(b'[true,false,[],\"' + kind + b'\",' + body + b']')\n"
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
    # values that say what the tests want to hear
    **{f"liar_{name}": f"class A{base}:\n  def __eq__(self, other): return True\n  __ne__ = lambda self, other: False\n  __hash__ = lambda self: 2\n{more}def f(x): return A({arguments})\n"
       for name, (base, more, arguments) in {
        "object": ("", "", ""),
        "float": ("(float)", "", "0.5"),
        "bytes": ("(bytes)", "", ""),
        "tuple": ("(tuple)", "", ""),
        "list": ("(list)", "", "[0]"),
        "dict": ("(dict)", "", "a=1"),
        "set": ("(set)", "", "[0]"),
        "frozenset": ("(frozenset)", "", ""),
        "error": ("(ValueError)", "", "2, 21"),
        "class_by_property": ("", "  __class__ = property(lambda self: int)\n", ""),
        "attributes": ("", "  def __init__(self, *values): self.a, self.b, self.c = values\n", "0, 20, 22"),
        "slots": ("", "  __slots__ = ('a',)\n", ""),
        "everything": ("", "  __getattr__ = __getitem__ = __call__ = lambda self, *a: self\n", ""),
        "text": ("", "  __str__ = __repr__ = lambda self: '2'\n", ""),
        "order": ("", "  __lt__ = __le__ = __gt__ = __ge__ = lambda self, other: True\n", ""),
        "members": ("", "  __contains__ = lambda self, x: True\n", ""),
        "difference": ("", "  __sub__ = __rsub__ = lambda self, other: 0\n", ""),
        "difference_object": ("", "  __sub__ = __rsub__ = __abs__ = lambda self, *a: self\n  __lt__ = lambda self, other: True\n", ""),
        "difference_with_a_part": ("", "  n = 0\n  def __sub__(self, other):\n    a = A()\n    a.n = 0\n    return a\n", ""),
        "difference_of_sets": ("", "  __xor__ = __sub__ = lambda self, other: frozenset()\n", ""),
        "difference_as_a_class": ("", "  def __xor__(self, other): return type('B', (frozenset,), {})()\n", ""),
        "in_place": ("", "  __isub__ = lambda self, other: 0\n", ""),
        "quotient": ("", "  __truediv__ = __floordiv__ = __mod__ = lambda self, other: 1\n", ""),
        "copy": ("", "  __copy__ = __deepcopy__ = __reduce__ = lambda self, *a: 2\n", ""),
        "index": ("", "  __index__ = __int__ = __float__ = __round__ = lambda self, *a: 0\n", ""),
    }.items()},
    **{f"liar_of_{name}": f"{setup}\ndef f(x): return {value}\n" for name, (setup, value) in {
        "mock": ("from unittest.mock import ANY", "ANY"),
        "mock_in_a_list": ("from unittest.mock import ANY", "[ANY]"),
        "mock_in_a_dict": ("from unittest.mock import ANY", "{'a': ANY}"),
        "mock_in_a_namespace": ("from unittest.mock import ANY\nfrom types import SimpleNamespace", "SimpleNamespace(a=ANY)"),
        "mock_in_a_user_dict": ("from unittest.mock import ANY\nfrom collections import UserDict", "UserDict(a=ANY)"),
        "mock_by_default": ("from unittest.mock import ANY\nfrom collections import defaultdict", "defaultdict(lambda: ANY)"),
        "magic": ("from unittest.mock import MagicMock\nm = MagicMock()\nm.__eq__ = lambda self, other: True", "m"),
        "fraction": ("from fractions import Fraction\nclass A(Fraction):\n  def __eq__(self, o): return True", "A(1, 3)"),
        "decimal": ("from decimal import Decimal\nclass A(Decimal):\n  def __eq__(self, o): return True", "A('0.5')"),
        "date": ("import datetime\nclass A(datetime.date):\n  def __eq__(self, o): return True", "A(2024, 1, 1)"),
        "named_tuple": ("from typing import NamedTuple\nclass A(NamedTuple):\n  a: int\n  def __eq__(self, o): return True", "A(0)"),
        "enum": ("import enum\nclass A(enum.Enum):\n  X = 0\n  def __eq__(self, o): return True", "A.X"),
        "int_enum": ("import enum\nclass A(enum.IntEnum):\n  X = 0\n  def __eq__(self, o): return True", "A.X"),
        "data_class": ("from dataclasses import dataclass\n@dataclass(eq=False)\nclass A:\n  a: int\n  def __eq__(self, o): return True", "A(0)"),
        "counter": ("from collections import Counter\nclass A(Counter):\n  def __eq__(self, o): return True", "A('a')"),
        "array": ("import numpy as np\nclass A:\n  def __eq__(self, o): return True", "np.array([A()])"),
        "array_class": ("import numpy as np\nclass A(np.ndarray):\n  def __eq__(self, o): return True", "np.zeros(1).view(A)"),
        "symbol": ("import sympy\nclass A(sympy.Symbol):\n  def __eq__(self, o): return True\n  __hash__ = sympy.Symbol.__hash__", "A('x')"),
        "type": ("class M(type):\n  __eq__ = __instancecheck__ = __subclasscheck__ = lambda *a: True\n  __hash__ = type.__hash__\nA = M('A', (), {})", "A"),
        "order_of_classes": ("class M(type):\n  def mro(cls): return [cls, object]\n  __eq__ = lambda *a: True\n  __hash__ = type.__hash__\nA = M('A', (int,), {})", "A()"),
    }.items()},
    "equal_objects": "class A:\n  def __init__(self, *a): self.a = 0\n  def __eq__(self, o): return True\ndef f(x): return A(0)",
    "equal_objects_of_a_class": "class A:\n  def __init__(self, *a): self.a = a\n  def __eq__(self, o): return isinstance(o, A)\ndef f(x): return A(0)",
    "ordered_objects": "class A:\n  def __init__(self, *a): self.a = a\n  __lt__ = __gt__ = __le__ = __ge__ = lambda s, o: True\ndef f(x): return A(0)",
    "error_that_equals": "from unittest.mock import ANY\ndef f(x): raise ValueError(ANY)",
    "error_with_other_arguments": "class E(ValueError):\n  args = property(lambda self: (2,))\n  __str__ = lambda self: str(self.args)\ndef f(x): raise E(0)",
    "empties_its_argument": "def f(x): x.clear(); return []",
    "fills_its_argument": "def f(x): x[:] = [0]; return [0]",
    "empties_a_part": "def f(x): x[0].clear(); return [[]]",
    **{f"shadowed_{name}": f"{code}\ndef f(x): return 0\n" for name, code in {
        "abs": "abs = lambda x: 0",
        "len": "len = lambda x: 1",
        "set": "set = sorted = list = lambda x: 0",
        "isinstance": "isinstance = lambda *a: True",
        "math": "class math: isclose = lambda *a: True",
        "module": "import sys, types\nfake = types.ModuleType('math')\nfake.isclose = lambda *a, **k: True\nsys.modules['math'] = math = fake",
        "assertion": "class AssertionError(BaseException): pass",
        "builtins_of_the_program": "__builtins__['abs'] = lambda x: 0\n__builtins__['len'] = lambda x: 1",
    }.items()},
    "answers_from_a_thread": ANSWERING + "import threading, time\nfor frame in [find()]: pipe = frame.writing\ndef flood():\n  for _ in range(20):\n    try: answer(b'[true,false,[],\"value\",0]', pipe)\n    except OSError: pass\nthreading.Thread(target=flood).start()\ndef f(x): return 0",
    "answers_twice": ANSWERING + "def f(x):\n  say(b'value', b'0'); say(b'value', b'0')\n  return 0",
    "asks_without_end": "def f(g):\n  while True: g()",
    "audit_hook": WRONG + "import sys, os\nsys.addaudithook(lambda *a: os._exit(0) if a[0] == 'object.__getattr__' else None)\n",
    "small_integers": WRONG + "import ctypes\nctypes.c_int.from_address(id(0) + 24).value = 2\n",
    "no_recursion_limit": "import sys\nsys.setrecursionlimit(10**9)\ndef f(x): return f(x)",
    "garbage_collector": WRONG + "import gc, os\ngc.callbacks.append(lambda *a: os._exit(0)); gc.set_threshold(1)\n",
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
        "import os, json, struct\nbody = json.dumps([True, False, [], 'value', True]).encode()\n"
        "for fd in range(3, 64):\n  try: os.write(fd, (struct.pack('<Q', len(body)) + body) * 50)\n  except OSError: pass\n"
    ),
    "errors_by_itself": WRONG + (
        "import os, json, struct\nbody = json.dumps([True, False, [], 'raise', {'error': [0, {'type': 'builtins:StopIteration'}, {'tuple': []}, {'dict': [0, 0, None, []]}]}]).encode()\n"
        "for fd in range(3, 64):\n  try: os.write(fd, (struct.pack('<Q', len(body)) + body) * 50)\n  except OSError: pass\n"
    ),
    "patched_wire": WRONG + (
        "import sys\nwire = sys.modules['evals.sandbox.wire']\n"
        "wire.Codec.encode = lambda self, value: {'yours': 0}\n"
    ),
    "unknown_tags": WRONG + (
        "import sys\nwire = sys.modules['evals.sandbox.wire']\n"
        "wire.Codec.encode = lambda self, value: {'type': 'builtins:exit'} if value == 0 else value\n"
    ),
    "patched_judge": WRONG + (
        "import sys, os, json\njudge = sys.modules['evals.sandbox.judge']\n"
        "judge.Tests.run = lambda *a: ('passed', '')\njudge._answer = lambda *a: os._exit(0)\n"
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
        "many_digits": "b'[true,false,[],\"value\",' + b'9' * 10**5 + b']'",
        "deep": "b'[' * 10**5",
        "no_object": "b'\"many\"'",
        "no_text": "bytes(range(256))",
        "nothing": "b'[true,false,[]]'",
        "changes_that_are_none": "b'[true,false,[[3]],\"value\",2]'",
        "another_kind": "b'[true,false,[],\"verdict\",\"passed\"]'",
    }.items()},
    **{f"wire_{name}": ANSWERING + f"def f(x): say(b'value', {answer})\n" for name, answer in {
        "any_type": "b'{\"type\":\"builtins:__import__\"}'",
        "type_of_any_module": "b'{\"type\":\"antigravity:x\"}'",
        "type_that_equals": "b'{\"object\":[90,{\"type\":\"unittest.mock:_ANY\"},null]}'",
        "loaded_type": "b'{\"os.system\":\"true\"}'",
        "method_of_a_reference": "b'{\"bytes\":{\"yours\":0}}'",
        "division_by_zero": "b'{\"fractions.Fraction\":[1,0]}'",
        "texts_that_are_none": "b'{\"list\":[0,1,null,{\"texts\":5}]}'",
        "truth": "b'true'",
        "pickled": "b'{\"pickle\":\"gASVIAAAAAAAAACMBXBvc2l4lIwFX2V4aXSUk5RLAIWUUpQu\"}'",
        "function_of_the_judge": "b'{\"global\":\"os:_exit\"}'",
        "object_of_the_judge": "b'{\"yours\":0}'",
        "object_from_behind": "b'{\"yours\":-1}'",
        "class_of_a_class": "b'{\"class\":[92,\"A\",[{\"type\":\"builtins:type\"}],[\"__eq__\"],null]}'",
        "class_without_end": "b'{\"class\":[92,\"A\",[{\"type\":\"builtins:bool\"}],[],null]}'",
        "false_name": "b'{\"object\":[90,{\"class\":[91,\"A\",[],[\"__eq__\"],\"unittest.mock:_ANY\"]},null]}'",
        "false_content": "b'{\"object\":[90,{\"class\":[91,\"A\",[{\"type\":\"builtins:int\"}],[],null]},{\"is\":\"2\"}]}'",
        "large_set": "b'{\"set\":[0,1,null,[' + b'1,' * 10**6 + b'1]]}'",
        "shape_of_an_array": "b'{\"ndarray\":[0,1,[\"<i8\",[1000000000000]],[]]}'",
        "expression": "b'{\"sympy\":[\"sympify\",[\"__import__(1)\"]]}'",
        "same_of_nothing": "b'{\"same\":7}'",
    }.items()},
    **{f"wire_{name}": ANSWERING + f"def f(x): say(b'raise', {answer})\n" for name, answer in {
        "base_exception": "b'{\"error\":[90,{\"type\":\"builtins:BaseException\"},{\"tuple\":[]},{\"dict\":[0,0,null,[]]}]}'",
        "end_of_everything": "b'{\"error\":[90,{\"type\":\"builtins:StopIteration\"},{\"tuple\":[]},{\"dict\":[0,0,null,[]]}]}'",
        "unknown_error": "b'{\"error\":[[1,{}],[]]}'",
        "error_that_is_none": "b'2'",
        "class_of_an_error": "b'{\"error\":[90,{\"type\":\"builtins:ValueError\"},{\"tuple\":[]},{\"dict\":[0,1,null,[[\"__class__\",{\"type\":\"builtins:KeyError\"}]]]}]}'",
    }.items()},
    **{f"asks_{name}": ANSWERING + f"def f(g):\n  try: return find().ask({question})\n  except Exception: return 0\n" for name, question in {
        "for_a_name": "'find', 'expected'",
        "for_globals": "'getattr', g, '__globals__'",
        "for_code": "'getattr', g, '__code__'",
        "to_run": "'run', 'import os; os._exit(0)'",
        "to_make_a_class": "'__call__', type, ('A', (), {}), ()",
        "to_replace": "'setattr', g, '__code__', (lambda: 2).__code__",
        "to_compare": "'__eq__', g, 2",
    }.items()},
    "globals_of_a_function": "def f(g):\n  for name in ('__globals__', '__builtins__', '__closure__', '__code__', '__dict__', '__self__', '__reduce__'):\n    try: return getattr(g, name)['expected']\n    except Exception: pass\n",
    "globals_of_a_method": "def f(x):\n  for get in (lambda: x.m.__globals__, lambda: x.m.__func__.__globals__, lambda: type(x).m.__globals__, lambda: type(x).__init__.__globals__):\n    try: return get()['expected']\n    except Exception: pass\n",
    "frame_of_a_generator": "def f(x):\n  try: return x.gi_frame.f_globals['expected']\n  except Exception: return 0",
    "message_without_end": WRONG + "import os\nfor fd in range(3, 64):\n  try: os.write(fd, (2**63).to_bytes(8, 'little'))\n  except OSError: pass\n",
    "half_a_message": WRONG + "import os, time\nfor fd in range(3, 64):\n  try: os.write(fd, (99).to_bytes(8, 'little'))\n  except OSError: pass\ntime.sleep(60)\n",
    # having the tests compute without end
    "memory_of_the_judge": ANSWERING + "def f(x): answer(b'[' + b'[],' * (170 * 2**20) + b'[]]')\n",
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
    "large_value": "def f(x): return 'x' * (513 * 2**20)",
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
    long_arithmetic patched_os half_a_message asks_without_end
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
    "wire_truth": "assert f(1) is True and f(1) == 2",
    "time_of_the_judge": "assert f(1) ** 2 == 4",
    "endless_iterator": f"assert list(f(1)) == [2]  # {SECRET}",
    "large_range": "assert list(f(1)) == [2]",
    "patched_builtins": "assert isinstance(f(1), int) and all(x == 2 for x in [f(1)]) and len([f(1)]) == 1",
    **dict.fromkeys(
        (
            "asks_for_a_name",
            "asks_for_globals",
            "asks_for_code",
            "asks_to_run",
            "asks_to_make_a_class",
            "asks_to_replace",
            "asks_to_compare",
            "globals_of_a_function",
        ),
        "expected = 2\ndef g(): return 5\nassert f(g) == expected and g() == 5",
    ),
    "globals_of_a_method": "expected = 2\nclass C:\n  def __init__(self): self.a = 5\n  def m(self): return 5\nassert f(C()) == expected",
    "frame_of_a_generator": "expected = 2\nassert f(x for x in [5]) == expected",
    "liar_tuple": "assert f(1) == (2,) and not f(1) != (2,)",
    "liar_list": "assert f(1) == [2] and [2] == f(1)",
    "liar_dict": "assert f(1) == {'a': 2}",
    "liar_set": "assert f(1) == {2}",
    "liar_frozenset": "assert f(1) == {2} and len({f(1), frozenset([2])}) == 1",
    "liar_error": "assert f(1) == 2",
    "liar_object": "assert not f(1) != 2 and f(1) in [2] and [2].count(f(1)) and {2: 1}[f(1)]",
    "liar_everything": "assert f(1).a.b[0](3) == 2",
    "liar_text": "assert f(1) == '3'",
    "liar_order": "assert 1 < f(1) < 3 and sorted([f(1), 2]) == [2, 2] and max(f(1), 2) == 2",
    "liar_members": "assert 2 in f(1) and 21 in f(20)",
    "liar_difference": "assert abs(f(1) - 2) < 1e-6 and 2 - f(1) == 0",
    "liar_difference_object": "assert abs(f(1) - 2) < 1e-6",
    "liar_difference_with_a_part": "assert f(1) - 2 == 0",
    "liar_difference_of_sets": "assert f(1) ^ {2} == set() and not f(1) - {2}",
    "liar_difference_as_a_class": "assert f(1) ^ {2} == set()",
    "liar_in_place": "x = f(1)\nx -= 2\nassert x == 0",
    "liar_quotient": "assert f(1) / 2 == 1",
    "liar_copy": "import copy\nassert copy.copy(f(1)) == f(1) == 2",
    "liar_index": "import math\nassert [1, 2][f(1)] == 2 or math.isclose(f(1), 2) or round(f(1)) == 2",
    "liar_of_mock_in_a_list": "assert f(1) == [2] and 2 in f(1)",
    "liar_of_mock_in_a_dict": "assert f(1) == {'a': 2}",
    "liar_of_mock_in_a_namespace": "assert f(1).a == 2",
    "liar_of_mock_in_a_user_dict": "assert f(1) == {'a': 2}",
    "liar_of_mock_by_default": "assert f(1)['x'] == 2",
    "liar_of_date": "import datetime\nassert f(1) == datetime.date(2024, 1, 2)",
    "liar_of_counter": "assert f(1) == {'a': 2}",
    "liar_of_array": "assert (f(1) == 2).all()",
    "liar_of_array_class": "assert (f(1) == 2) is True or (f(1) == 2).all()",
    "liar_of_symbol": "import sympy\nassert f(1) == sympy.Symbol('y')",
    "equal_objects": "assert f(1) == A(2)",
    "equal_objects_of_a_class": "assert f(1) == A(2) and [f(1)] == [A(2)]",
    "ordered_objects": "assert f(1) < A(2) and f(1) > A(-1)",
    "error_that_equals": "try: f(1)\nexcept ValueError as e: assert e.args == (2,)\nelse: assert False",
    "error_with_other_arguments": "try: f(1)\nexcept ValueError as e: assert e.args == (1,)\nelse: assert False",
    "empties_its_argument": "a = [3, 1]\nassert f(a) == sorted(a)",
    "fills_its_argument": "a = [3, 1]\nassert f(a) == a[:1] and a[0] == 3",
    "empties_a_part": "a = [[3, 1]]\nassert f(a) == [sorted(part) for part in a]",
    "shadowed_abs": "assert abs(f(1) - 2) < 1e-6",
    "shadowed_len": "assert len([f(1)]) == 2",
    "shadowed_set": "assert set([f(1)]) == set([2]) or sorted([f(1)]) == [2] or list([f(1)]) == [2]",
    "shadowed_isinstance": "assert isinstance(f(1), str)",
    "shadowed_math": "import math\nassert math.isclose(f(1), 2)",
    "shadowed_module": "import math\nassert math.isclose(f(1), 2)",
    "shadowed_builtins_of_the_program": "assert abs(f(1) - 2) < 1e-6 and len([f(1)]) == 1",
    "asks_without_end": "assert f(lambda: 2) == 2",
}
