# ruff: noqa: E501
"""Programs that reach for the judge: for what it expects, its answers, its time and its memory."""

from tests.programs.attacking import ANSWERING, NEEDLE, WRONG, attempt

PROGRAMS = {
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
}  # fmt: skip
