# ruff: noqa: E501
"""Programs that do their task, or fail to, in all the ways that Python has; the plain reference harness is their judge.

A text has programs separated by `===`; in each, `---` separates the program from its tests.
"""

PLAIN = r"""
def f(x): return x + 1
---
assert f(1) == 2 and f(-1) == 0
===
def f(x): return x + 2
---
assert f(1) == 2
===
def f(a, b=3, *c, d=4, **e): return a, b, c, d, e
---
assert f(1) == (1, 3, (), 4, {}) and f(1, 2, 5, d=6, k=7) == (1, 2, (5,), 6, {"k": 7})
===
def f(n): return n if n < 2 else f(n - 1) + f(n - 2)
---
assert [f(i) for i in range(10)] == [0, 1, 1, 2, 3, 5, 8, 13, 21, 34]
===
def f(x): return [(x, {x: {x}}), None, 1.5, 'ä\udc80', 2 ** 70, b'\xff', 1j, float('inf')]
---
assert f(1) == [(1, {1: {1}}), None, 1.5, 'ä\udc80', 2 ** 70, b'\xff', 1j, float('inf')]
===
def f(x): return float('nan')
---
import math
assert math.isnan(f(1)) and f(1) != f(1)
===
def f(x): return x / 3
---
assert abs(f(1) - 0.333) < 1e-3 and round(f(2), 2) == 0.67 and f(6) == 2
===
import math
def f(x): return math.sqrt(x)
---
assert math.isclose(f(2) ** 2, 2)
===
def f(x): return True if x else 1
---
assert f(1) is True and f(0) is not True and f(0) == True
===
def f(x): return
---
assert f(1) is None and not f(1)
===
def f(x): return range(x)
---
assert f(3) == range(3) and list(f(3)) == [0, 1, 2] and 2 in f(3) and f(9)[1:3] == range(1, 3)
===
def f(x): return frozenset(x)
---
assert f([1, 2]) == {1, 2} and {f([1]): 1}[frozenset([1])] == 1 and type(f([])) is frozenset
===
def f(x): return bytearray(x), bytes(x), memoryview(bytes(x))
---
a, b, c = f([1, 2])
assert a == b == c and c[0] == 1 and bytes(c) == b'\x01\x02' and isinstance(c, memoryview) and c.tolist() == [1, 2]
a.append(3)
assert a == b'\x01\x02\x03'
===
def f(x): return complex(x, 1) * 1j
---
assert f(2) == -1 + 2j and f(2).real == -1.0 and abs(complex(3, 4)) == 5
===
def f(s): return {c: s.count(c) for c in s}
---
assert f('aab') == {'a': 2, 'b': 1} and list(f('ba')) == ['b', 'a'] and f('x')['x'] == 1
===
def f(x): return {1: x}.keys(), {1: x}.items(), {1: x}.values()
---
k, i, v = f(2)
assert k == {1} and i == {(1, 2)} and list(v) == [2] and 2 in v and len(i) == 1
===
def f(x): return slice(1, x), ..., NotImplemented
---
assert f(3) == (slice(1, 3), Ellipsis, NotImplemented)
===
def f(x): return int, str, ValueError, type(x)
---
assert f([]) == (int, str, ValueError, list) and f(1)[1](5) == '5'
===
def f(x, kind): return isinstance(x, kind)
---
assert f(1, int) and not f(1, str) and f(True, (bool, str)) and f(ValueError(), Exception)
===
def f(x): return type(x).__name__
---
assert [f(each) for each in (1, 'a', [], (), {}, set(), 1.0, None, b'', range(3))] == 'int str list tuple dict set float NoneType bytes range'.split()
===
def f(n): return list(range(n))
---
assert f(10 ** 5) == list(range(10 ** 5)) and sum(f(10 ** 5)) == 4999950000 and f(10 ** 5)[-1] == 99999
===
def f(n): return {i: str(i) for i in range(n)}
---
d = f(70000)
assert len(d) == 70000 and d[69999] == '69999' and isinstance(d, dict) and d == {i: str(i) for i in range(70000)}
===
def f(n): return [(i, str(i)) for i in range(n)]
---
y = f(70000)
assert isinstance(y, list) and sorted(y) == y and y[:2] == [(0, '0'), (1, '1')] and y != y[:-1] and max(y)[0] == 69999 and type(y[5]) is tuple
===
def f(n): return set(range(n))
---
assert f(70000) == set(range(70000)) and f(3) | {9} == {0, 1, 2, 9} and f(70000) - {1} != f(70000)
===
def f(n): return 'x' * n
---
assert len(f(2 ** 22)) == 2 ** 22 and f(3) == 'xxx'
===
def f(n): return 7 ** n
---
assert f(20000) == 7 ** 20000 and f(20000) % 10 == 1
===
def f(n): return [[i * j for j in range(n)] for i in range(n)]
---
assert f(200)[199][199] == 199 * 199 and [row[1] for row in f(3)] == [0, 1, 2] and list(zip(*f(3)))[2] == (0, 2, 4)
===
def f(*x): return list(x)
---
assert f('', 'a') == ['', 'a'] and f('|', 'b') == ['|', 'b'] and f('') == [''] and f() == []
===
def f(x):
    y = [x]
    y.append(y)
    return y
---
y = f(1)
assert y[1] is y and y[1][1][0] == 1
===
def f(x): return [x] * 2
---
a = f([1])
assert a[0] is a[1]
a[0].append(2)
assert a == [[1, 2], [1, 2]]
===
def f(x): return x
---
a = [1]
assert f(a) is a and f((a,))[0] is a and f({'k': a})['k'] is a
===
def f(x): return list(x)
---
a = [1]
assert f(a) is not a and f(a) == a
===
def f(s): return tuple(s)
---
for s in ({3, 1, 2}, {'b', 'a', 'c', 'd', 'e'}, {(1, 2), (0, 5), (7, 7)}, {8, 0, 16, 24, 1}, frozenset('hello world'), set(range(0, 400, 8))):
    assert f(s) == tuple(s)
===
def f(x): return set(x)
---
words = 'the quick brown fox jumps over lazy dogs and cats'.split()
assert tuple(f(words)) == tuple(set(words)) and list(f([16, 8, 0])) == list(set([16, 8, 0])) and f(words).pop() == set(words).pop()
===
def f(x): return '\x1b[31m' + x + '\r\n\0'
---
assert f('a') == '\x1b[31ma\r\n\0'
===
def f(x): return min(x), max(x), sum(x), sorted(x, reverse=True), any(x), all(x)
---
assert f([1, 0, 2]) == (0, 2, 3, [2, 1, 0], True, False)
===
def f(x): return -0.0 if x else 0.0
---
assert str(f(1)) == '-0.0' and f(1) == 0 and str(f(0)) == '0.0'
===
def f(x): return 1 if x > 5 else 0.1 + 0.2
---
assert f(1) == 0.30000000000000004 and f(1) != 0.3 and f(6) == 1
===
def f(x): return "a" if x else 'b'
---
assert f(1) in ('a', 'c') and f(0) not in ['a'] and f(0) in 'abc'
===
def f(x): return x[::-1]
---
assert f('abc') == 'cba' and f([1, 2]) == [2, 1] and f((1, 2)) == (2, 1) and f(b'ab') == b'ba'
===
def f(x): return tuple(x)
---
assert f([1]) == [1]
===
def f(x): return [1, 2]
---
assert f(1) == (1, 2)
===
def f(x): return 5
---
assert f(1)[0] == 5
===
def g(x): return 5
---
assert f(1) == 5
===
def f(x) return 5
---
assert f(1) == 5
===
def f(x): return undefined
---
assert f(1) == 5
===
assert False
---
pass
===
x = 1
---
assert x == 2
"""

LIBRARY = r"""
from collections import UserDict
def f(x): return UserDict({'a': x})
---
assert f(1) == {'a': 1} and f(1) == UserDict(a=1) and f(1)['a'] == 1 and 'a' in f(1) and f(1) != {'a': 2}
===
from collections import UserList, UserString
def f(x): return UserList([x]), UserString('ab')
---
a, b = f(1)
assert a == [1] and b == 'ab' and a + [2] == [1, 2] and b.upper() == 'AB' and len(b) == 2 and 1 in a
===
from collections import ChainMap
def f(a, b): return ChainMap(a, b)
---
assert f({'a': 1}, {'a': 2, 'b': 3}) == {'a': 1, 'b': 3} and f({}, {'z': 0})['z'] == 0 and f({}, {}).maps == [{}, {}]
===
from collections import namedtuple
P = namedtuple('P', 'x y')
def f(x): return P(x, y=2)
---
p = f(1)
assert p == (1, 2) and p.x == 1 and p.y == 2 and p._asdict() == {'x': 1, 'y': 2} and p._replace(x=5) == (5, 2)
assert p == P(1, 2) and p._fields == ('x', 'y') and isinstance(p, tuple) and isinstance(p, P) and repr(p) == 'P(x=1, y=2)'
x, y = p
assert x + y == 3 and {p: 1}[(1, 2)] == 1 and p < (1, 3) and type(p).__name__ == 'P'
===
from typing import NamedTuple
class Q(NamedTuple):
    name: str
    size: int = 3
    def twice(self): return self.size * 2
def f(x): return Q(x)
---
assert f('a') == ('a', 3) and f('a').name == 'a' and f('a').twice() == 6 and max(f('a'), f('b')).name == 'b'
===
from collections import defaultdict
def f(words):
    d = defaultdict(list)
    for w in words: d[len(w)].append(w)
    return d
---
d = f(['a', 'bb', 'c'])
assert d == {1: ['a', 'c'], 2: ['bb']} and d[9] == [] and 9 in d and isinstance(d, dict) and d.default_factory is list
===
from collections import defaultdict
def f(): return defaultdict(lambda: 7, a=1)
---
d = f()
assert d['a'] == 1 and d['b'] == 7 and d == {'a': 1, 'b': 7} and dict(d) == {'a': 1, 'b': 7}
===
from collections import Counter
def f(s): return Counter(s)
---
c = f('aab')
assert c == {'a': 2, 'b': 1} and c == Counter('aab') and c.most_common(1) == [('a', 2)] and c['z'] == 0 and c + c == Counter('aabaab')
assert sum(c.values()) == 3 and type(c).__name__ == 'Counter'
===
from collections import OrderedDict, deque
def f(x): return OrderedDict([(1, x), (0, x)]), deque([1, 2, 3], maxlen=3)
---
o, d = f(5)
assert list(o) == [1, 0] and o == {0: 5, 1: 5} and d == deque([1, 2, 3]) and d.maxlen == 3 and d[0] == 1
d.append(4)
o.move_to_end(1)
assert list(d) == [2, 3, 4] and list(o) == [0, 1]
===
from decimal import Decimal
def f(x): return Decimal(x) / 3
---
from decimal import Decimal as D
assert round(f('1'), 3) == D('0.333') and f('3') == 1 and isinstance(f('3'), D) and float(f('1.5')) == 0.5 and str(f('6')) == '2'
===
from fractions import Fraction
def f(a, b): return Fraction(a, b)
---
assert f(2, 4) == Fraction(1, 2) == 0.5 and f(1, 3).denominator == 3 and f(1, 2) + f(1, 3) == Fraction(5, 6) and f(1, 3) < 0.34
===
import datetime
def f(y, m, d): return datetime.date(y, m, d) + datetime.timedelta(days=1)
---
assert f(2024, 2, 28) == datetime.date(2024, 2, 29) and f(2024, 2, 29).month == 3 and f(2023, 1, 1).isoformat() == '2023-01-02' and f(2024, 2, 28).strftime('%d') == '29'
===
from datetime import datetime, timedelta, timezone
def f(s): return datetime.fromisoformat(s), timedelta(hours=1, microseconds=5), datetime(2024, 1, 1, tzinfo=timezone.utc)
---
a, b, c = f('2024-05-06T07:08:09')
assert (a.hour, a.second) == (7, 9) and b.total_seconds() == 3600.000005 and c.tzinfo == timezone.utc and c.utcoffset() == timedelta(0) and a < datetime(2025, 1, 1)
===
import re
def f(s): return re.match(r'(?P<first>\w)(\d+)', s)
---
m = f('a12 b')
assert m and m.group() == 'a12' and m['first'] == 'a' and m.groups() == ('a', '12') and m.span(2) == (1, 3) and m[2] == '12' and f(' ') is None
===
import re
def f(p): return re.compile(p)
---
assert f('a+').findall('aa b a') == ['aa', 'a'] and f('a').pattern == 'a' and isinstance(f('a'), re.Pattern) and f('a').sub('b', 'aca') == 'bcb'
===
import array, uuid, pathlib, ipaddress
def f(): return array.array('i', [1, 2]), uuid.UUID(int=5), pathlib.PurePosixPath('/a/b.txt'), ipaddress.ip_address('10.0.0.1')
---
a, u, p, i = f()
assert a == array.array('i', [1, 2]) and list(a) == [1, 2] and u.int == 5 and p.name == 'b.txt' and str(p) == '/a/b.txt' and p == pathlib.PurePosixPath('/a/b.txt') and i + 1 == ipaddress.ip_address('10.0.0.2')
===
import types
def f(**k): return types.SimpleNamespace(**k)
---
assert f(a=1).a == 1 and f(a=1) == types.SimpleNamespace(a=1) and vars(f(b=2)) == {'b': 2}
===
import enum
class Color(enum.Enum):
    RED = 1
    BLUE = 2
def f(x): return Color(x)
---
assert f(1) == Color.RED and f(1) is Color.RED and f(1) != Color.BLUE and f(2).name == 'BLUE' and f(2).value == 2 and [c.name for c in Color] == ['RED', 'BLUE']
assert Color['RED'] is f(1) and isinstance(f(1), Color) and len(Color) == 2 and {Color.RED: 5}[f(1)] == 5
===
import enum
class Level(enum.IntEnum):
    LOW = 1
    HIGH = 3
class Word(str, enum.Enum):
    A = 'a'
def f(x): return Level(x)
---
assert f(1) == 1 and f(3) > f(1) and f(3) + 1 == 4 and f(1).name == 'LOW' and max(Level).value == 3 and Word.A == 'a' and Word.A.name == 'A'
===
from dataclasses import dataclass, field
@dataclass
class P:
    x: int
    y: int = 2
    tags: list = field(default_factory=list)
    def size(self): return self.x * self.y
def f(x): return P(x)
---
p = f(1)
assert p == P(1) and p != P(2) and p.x == 1 and p.size() == 2 and p.tags == [] and repr(p) == 'P(x=1, y=2, tags=[])'
p.x = 5
p.tags.append(1)
assert p.size() == 10 and p == P(5, 2, [1])
===
from dataclasses import dataclass
@dataclass(frozen=True, order=True)
class V:
    major: int
    minor: int
def f(s): return V(*map(int, s.split('.')))
---
assert f('1.2') < f('1.10') < V(2, 0) and f('1.2') == V(1, 2) and sorted([f('2.0'), f('1.5')])[0].minor == 5 and len({f('1.1'), f('1.1')}) == 1
assert max(f('3.0'), f('2.9')) == V(3, 0) and f('1.0') <= f('1.0')
try:
    f('1.1').major = 3
    assert False
except AttributeError: pass
===
import numpy as np
def f(x): return np.array(x) * 2
---
import numpy as np
a = f([1, 2])
assert (a == np.array([2, 4])).all() and a.tolist() == [2, 4] and a.shape == (2,) and np.allclose(a, [2, 4]) and a.dtype.kind == 'i' and a.sum() == 6 and list(a) == [2, 4]
assert isinstance(f([1.5])[0], np.floating) and np.array_equal(f([[1], [2]]), [[2], [4]]) and f([[1, 2], [3, 4]])[1, 0] == 6
===
import numpy as np
def f(x): return np.int64(x) + 1, np.float32(0.5), np.bool_(True)
---
assert f(1) == (2, 0.5, True) and f(1)[0].item() == 2 and f(1)[2] is not True and isinstance(f(1)[0], np.integer)
===
import numpy as np
def f(x): x += 1; x.sort()
---
a = np.array([3, 1, 2])
f(a)
assert a.tolist() == [2, 3, 4]
===
import pandas as pd
def f(d): return pd.DataFrame(d).groupby('k', as_index=False)['v'].sum()
---
import pandas as pd
r = f({'k': ['a', 'b', 'a'], 'v': [1, 2, 3]})
assert r['v'].tolist() == [4, 2] and r.shape == (2, 2) and r.equals(pd.DataFrame({'k': ['a', 'b'], 'v': [4, 2]})) and list(r.columns) == ['k', 'v']
===
import sympy
def f(n): return sympy.Integer(n), sympy.Rational(1, n), sympy.sqrt(n), sympy.pi
---
a, b, c, d = f(8)
assert a == 8 and b == sympy.Rational(1, 8) and b == 0.125 and c == 2 * sympy.sqrt(2) and abs(float(d) - 3.14159) < 1e-4 and a + 1 == 9 and int(a) == 8
===
import sympy
def f(): x = sympy.Symbol('x'); return sympy.expand((x + 1) ** 2)
---
from sympy import Symbol, diff
x = Symbol('x')
assert f() == x ** 2 + 2 * x + 1 and f().subs(x, 2) == 9 and diff(f(), x) == 2 * x + 2
===
import io
def f(s): return io.StringIO(s)
---
with f('a\nb\n') as s:
    assert s.read() == 'a\nb\n'
assert f('a\nb').readlines() == ['a\n', 'b'] and [line.strip() for line in f('a\nb')] == ['a', 'b'] and f('x').getvalue() == 'x'
===
import string, itertools, functools, heapq, operator
def f(n): return list(itertools.permutations(range(n))), functools.reduce(operator.mul, range(1, n + 1)), heapq.nsmallest(2, [3, 1, 2]), string.ascii_lowercase[:n]
---
assert f(3)[1:] == (6, [1, 2], 'abc') and len(f(3)[0]) == 6
===
import json
def f(x): return json.loads(x)
---
assert f('{"a": [1, null, true]}') == {'a': [1, None, True]}
try:
    f('{')
    assert False
except json.JSONDecodeError as error:
    assert error.lineno == 1 and error.pos == 1 and 'line 1' in str(error)
===
import random
def f(n): random.seed(n); return [random.random() for _ in range(3)]
---
import random
random.seed(5)
assert f(5) == [random.random() for _ in range(3)]
===
import time, os, hashlib, base64, textwrap
def f(s): return hashlib.md5(s.encode()).hexdigest(), base64.b64encode(s.encode()), textwrap.wrap(s, 3)
---
assert f('abc def') == ('20e5f3e0d6a0b1e5a8f9c9ab', b'YWJjIGRlZg==', ['abc', 'def']) or f('abc def')[1:] == (b'YWJjIGRlZg==', ['abc', 'def'])
===
import statistics, bisect, cmath
def f(x): return statistics.mean(x), statistics.median(x), bisect.bisect(x, 2), cmath.sqrt(-1)
---
assert f([1, 2, 3]) == (2, 2, 2, 1j)
===
from functools import partial, lru_cache
@lru_cache(maxsize=None)
def f(x): return x * 2
g = partial(f, 4)
---
assert f(3) == 6 and f(3) == 6 and f.cache_info().hits == 1 and g() == 8
f.cache_clear()
assert f.cache_info().hits == 0
===
import struct, zlib
def f(x): return zlib.decompress(zlib.compress(x)), struct.pack('<I', 7), struct.unpack('<I', b'\x07\0\0\0')
---
assert f(b'abc') == (b'abc', b'\x07\0\0\0', (7,))
===
import time
def f(): return time.gmtime(0)
---
t = f()
assert t.tm_year == 1970 and t[0] == 1970 and tuple(t)[:3] == (1970, 1, 1)
===
import tempfile, os
def f(text):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'x.txt')
        with open(path, 'w') as s: s.write(text)
        with open(path) as s: return s.read()
---
assert f('abc') == 'abc'
===
def f(path): return open(path).read().split()
---
import os, tempfile
with tempfile.NamedTemporaryFile('w', suffix='.txt', delete=False) as s: s.write('a b')
assert f(s.name) == ['a', 'b']
os.unlink(s.name)
===
def f(path, rows):
    with open(path, 'w') as s:
        for row in rows: s.write(row + '\n')
---
import os, tempfile
folder = tempfile.mkdtemp()
path = os.path.join(folder, 'out.txt')
f(path, ['a', 'b'])
assert open(path).read() == 'a\nb\n' and os.listdir(folder) == ['out.txt']
"""

OBJECTS = r"""
class Stack:
    def __init__(self): self.items = []
    def push(self, x): self.items.append(x); return self
    def pop(self): return self.items.pop()
    def __len__(self): return len(self.items)
    def __bool__(self): return bool(self.items)
    def __iter__(self): return iter(self.items)
    def __contains__(self, x): return x in self.items
    def __getitem__(self, i): return self.items[i]
    def __setitem__(self, i, x): self.items[i] = x
    def __delitem__(self, i): del self.items[i]
---
s = Stack()
assert not s and len(s) == 0
s.push(1).push(2)
assert s and len(s) == 2 and 2 in s and 5 not in s and list(s) == [1, 2] and s[0] == 1 and s[-1] == 2 and s[:1] == [1]
s[0] = 9
del s[1]
assert s.items == [9] and s.pop() == 9 and [*s] == []
try:
    s.pop()
    assert False
except IndexError as e: assert 'empty' in str(e)
===
class Vec:
    def __init__(self, x, y): self.x, self.y = x, y
    def __add__(self, o): return Vec(self.x + o.x, self.y + o.y)
    def __mul__(self, k): return Vec(self.x * k, self.y * k) if isinstance(k, (int, float)) else self.x * k.x + self.y * k.y
    __rmul__ = __mul__
    def __neg__(self): return Vec(-self.x, -self.y)
    def __eq__(self, o): return isinstance(o, Vec) and (self.x, self.y) == (o.x, o.y)
    def __abs__(self): return (self.x ** 2 + self.y ** 2) ** 0.5
    def __repr__(self): return f'Vec({self.x}, {self.y})'
---
a, b = Vec(1, 2), Vec(3, 4)
assert a + b == Vec(4, 6) and a * 2 == Vec(2, 4) == 2 * a and a * b == 11 and -a == Vec(-1, -2) and abs(b) == 5 and repr(a) == 'Vec(1, 2)'
assert a != b and a != (1, 2) and not a == b and [a, b] == [Vec(1, 2), Vec(3, 4)] and f'{a}' == 'Vec(1, 2)' and b in [a, b] and (a * 2).x == 2
===
class Frac:
    def __init__(self, p, q): self.p, self.q = p, q
    def __eq__(self, o): return self.p * o.q == self.q * o.p
    def __lt__(self, o): return self.p * o.q < self.q * o.p
def f(p, q): return Frac(p, q)
---
assert f(1, 2) == Frac(2, 4) and f(1, 2) != Frac(1, 3) and f(1, 3) < Frac(1, 2) and min(f(1, 2), f(1, 4)).q == 4
===
class Result:
    def __init__(self, value): self.value = value
    def __eq__(self, other): return self.value == (other.value if isinstance(other, Result) else other)
    def __hash__(self): return hash(self.value)
def f(x): return Result(x * 2)
---
assert f(2) == 4 and 4 == f(2) and f(2) != 5 and f(3) == Result(6) and f(2) in [4] and {f(2): 1}[4] == 1 and not f(2) == 5
===
class Money:
    def __init__(self, n): self.n = n
    def __eq__(self, o): return self.n == getattr(o, 'n', o)
    def __lt__(self, o): return self.n < getattr(o, 'n', o)
    def __add__(self, o): return Money(self.n + getattr(o, 'n', o))
    __radd__ = __add__
    def __float__(self): return float(self.n)
    def __int__(self): return int(self.n)
    def __str__(self): return f'${self.n}'
---
assert Money(5) + Money(3) == 8 and Money(5) + 1 == 6 and sum([Money(1), Money(2)]) == 3 and Money(1) < 2 and str(Money(5)) == '$5' and float(Money(2)) == 2.0 and sorted([Money(3), Money(1)])[0] == 1
===
class Text(str):
    def shout(self): return self.upper() + '!'
class Num(int):
    @property
    def half(self): return self // 2
class Items(list):
    def first(self): return self[0]
class Table(dict):
    def __getattr__(self, name): return self[name]
def f(): return Text('ab'), Num(8), Items([3, 4]), Table(a=1)
---
t, n, i, d = f()
assert t == 'ab' and t.shout() == 'AB!' and t + 'c' == 'abc' and n == 8 and n.half == 4 and n + 1 == 9 and isinstance(n, int)
assert i == [3, 4] and i.first() == 3 and len(i) == 2 and isinstance(i, list) and i[1] == 4 and i + [5] == [3, 4, 5]
assert d == {'a': 1} and d.a == 1 and d['a'] == 1 and isinstance(d, dict) and list(d) == ['a'] and d.get('z', 0) == 0 and dict(d) == {'a': 1}
i.append(5)
d['b'] = 2
assert i == [3, 4, 5] and i[-1] == 5 and d.b == 2 and sorted(i, reverse=True) == [5, 4, 3] and {**d} == {'a': 1, 'b': 2}
===
class Lower(dict):
    def __setitem__(self, k, v): super().__setitem__(k.lower(), v)
    def __getitem__(self, k): return super().__getitem__(k.lower())
    def __contains__(self, k): return super().__contains__(k.lower())
---
d = Lower()
d['ABC'] = 1
assert d['abc'] == 1 and 'aBc' in d and 'x' not in d and d == {'abc': 1} and list(d.items()) == [('abc', 1)]
===
class Interval:
    def __init__(self, a, b): self.a, self.b = a, b
    def __contains__(self, x): return self.a <= x <= self.b
---
assert 3 in Interval(1, 5) and 9 not in Interval(1, 5) and 5 in Interval(1, 5)
===
class Node:
    def __init__(self, value, next=None): self.value, self.next = value, next
def f(head):
    previous = None
    while head: head.next, previous, head = previous, head, head.next
    return previous
---
head = f(Node(1, Node(2, Node(3))))
seen = []
while head is not None:
    seen.append(head.value)
    head = head.next
assert seen == [3, 2, 1]
===
class Node:
    def __init__(self, value): self.value, self.left, self.right = value, None, None
def depth(node): return 0 if node is None else 1 + max(depth(node.left), depth(node.right))
---
root = Node(1)
root.left = Node(2)
root.left.right = Node(3)
assert depth(root) == 3 and root.left.right.value == 3 and root == root and root is not root.left and root.right is None
===
def f(node): return 0 if node is None else node.value + f(node.left) + f(node.right)
---
class Node:
    def __init__(self, value, left=None, right=None): self.value, self.left, self.right = value, left, right
assert f(Node(1, Node(2), Node(3, Node(4)))) == 10
===
def f(node, x):
    node.items.append(x)
    node.count = node.count + 1
    return node
---
class Box:
    def __init__(self): self.items, self.count = [], 0
b = Box()
assert f(b, 5) is b and b.items == [5] and b.count == 1
===
class Account:
    rate = 0.1
    count = 0
    def __init__(self, n): self._n = n; Account.count += 1
    @property
    def n(self): return self._n
    @n.setter
    def n(self, x):
        if x < 0: raise ValueError('negative')
        self._n = x
    @classmethod
    def of(cls, s): return cls(int(s))
    @staticmethod
    def ok(x): return x > 0
---
a = Account.of('5')
assert a.n == 5 and Account.ok(1) and Account.count == 1 and Account.rate == 0.1 and a.rate == 0.1
a.n = 7
assert a.n == 7
try:
    a.n = -1
    assert False
except ValueError as e: assert str(e) == 'negative'
Account.rate = 0.2
assert a.rate == 0.2 and hasattr(a, 'n') and not hasattr(a, 'z') and getattr(a, 'z', 3) == 3
del a._n
assert not hasattr(a, '_n')
===
from abc import ABC, abstractmethod
class Shape(ABC):
    @abstractmethod
    def area(self): ...
class Square(Shape):
    def __init__(self, a): self.a = a
    def area(self): return self.a ** 2
def f(a): return Square(a)
---
assert f(2).area() == 4 and isinstance(f(2), Shape) and issubclass(Square, Shape) and isinstance(f(2), Square) and type(f(2)) is Square and type(f(2)).__name__ == 'Square'
try:
    Shape()
    assert False
except TypeError: pass
===
class Timer:
    def __init__(self): self.log = []
    def __enter__(self): self.log.append('in'); return self
    def __exit__(self, kind, error, trace): self.log.append(kind.__name__ if kind else None); return kind is KeyError
---
t = Timer()
with t as inner:
    assert inner is t
with t:
    raise KeyError('x')
assert t.log == ['in', None, 'in', 'KeyError']
try:
    with t: raise ValueError('y')
    assert False
except ValueError as e: assert str(e) == 'y'
===
from contextlib import contextmanager
@contextmanager
def f(log):
    log.append('in')
    try: yield len(log)
    finally: log.append('out')
---
log = []
with f(log) as n:
    assert n == 1 and log == ['in']
assert log == ['in', 'out']
===
class Count:
    def __init__(self, n): self.n = n
    def __iter__(self): return self
    def __next__(self):
        if self.n == 0: raise StopIteration
        self.n -= 1
        return self.n
---
c = Count(3)
assert next(c) == 2 and list(c) == [1, 0] and list(c) == [] and next(c, 'end') == 'end' and sum(Count(4)) == 6
try:
    next(c)
    assert False
except StopIteration: pass
===
class Poly:
    def __init__(self, *c): self.c = c
    def __call__(self, x): return sum(k * x ** i for i, k in enumerate(self.c))
    def __str__(self): return ' + '.join(f'{k}x^{i}' for i, k in enumerate(self.c))
    def __format__(self, spec): return f'<{spec}>'
    def __matmul__(self, o): return Poly(*self.c, *o.c)
    def __iadd__(self, k): self.c = (*self.c, k); return self
    def __round__(self, n=None): return n
    def __index__(self): return 2
    def __reversed__(self): return iter(self.c[::-1])
---
p = Poly(1, 2)
assert p(3) == 7 and str(p) == '1x^0 + 2x^1' and f'{p:abc}' == '<abc>' and (p @ p).c == (1, 2, 1, 2) and round(p, 3) == 3 and [5, 6, 7][p] == 7 and list(reversed(p)) == [2, 1]
p += 5
assert p.c == (1, 2, 5) and callable(p)
===
class Singleton:
    _one = None
    def __new__(cls): cls._one = cls._one or super().__new__(cls); return cls._one
---
assert Singleton() is Singleton()
===
class Meta(type):
    def __len__(cls): return 3
class A(metaclass=Meta):
    __slots__ = ('x',)
    def __init__(self): self.x = 1
---
assert len(A) == 3 and A().x == 1
a = A()
a.x = 4
assert a.x == 4
try:
    a.y = 1
    assert False
except AttributeError: pass
===
A = type('A', (), {'x': 5, 'get': lambda self: self.x})
B = type('B', (A,), {'__eq__': lambda self, o: isinstance(o, B) and o.y == self.y, '__init__': lambda self, y: setattr(self, 'y', y)})
def f(y): return B(y)
---
assert f(1).get() == 5 and A().x == 5 and f(1) == f(1) and f(1) != f(2) and isinstance(f(1), A) and A.__name__ == 'A'
===
class A:
    def __init__(self, x): self.x = x
def f(x): return A(x)
---
assert f(1) == f(1)
===
class A:
    def __getattr__(self, name): return name.upper()
---
assert A().abc == 'ABC'
===
class Matrix:
    def __init__(self, rows): self.rows = rows
    def __getitem__(self, key): return self.rows[key[0]][key[1]] if isinstance(key, tuple) else self.rows[key]
    def __setitem__(self, key, x): self.rows[key[0]][key[1]] = x
    def __matmul__(self, o): return Matrix([[sum(a * b for a, b in zip(r, c)) for c in zip(*o.rows)] for r in self.rows])
    def __eq__(self, o): return self.rows == o.rows
    @property
    def T(self): return Matrix([list(r) for r in zip(*self.rows)])
---
m = Matrix([[1, 2], [3, 4]])
m[0, 0] = 5
assert m[0, 0] == 5 and m[1] == [3, 4] and m.T.rows == [[5, 3], [2, 4]] and m @ Matrix([[1, 0], [0, 1]]) == m and m.T.T == m and m.T != m
===
class LRU:
    def __init__(self, n): self.n, self.d = n, {}
    def get(self, k):
        if k not in self.d: return -1
        self.d[k] = self.d.pop(k)
        return self.d[k]
    def put(self, k, v):
        self.d.pop(k, None)
        self.d[k] = v
        if len(self.d) > self.n: del self.d[next(iter(self.d))]
---
c = LRU(2)
c.put(1, 1); c.put(2, 2)
assert c.get(1) == 1
c.put(3, 3)
assert c.get(2) == -1 and c.get(3) == 3 and c.d == {1: 1, 3: 3}
===
class A:
    def __init__(self): self.items = []
---
a = A()
a.items.append(1)
b = a.items
b.append(2)
assert a.items == [1, 2]
a.items = [7]
assert a.items == [7] and b == [1, 2]
===
import copy
class A:
    def __init__(self, x): self.x = x
---
a = A([1])
b, c = copy.copy(a), copy.deepcopy(a)
a.x.append(2)
assert b.x == [1, 2] and c.x == [1] and b is not a
===
class Temp:
    def __init__(self, d): self.d = d
    def __lt__(self, o): return self.d < (o.d if isinstance(o, Temp) else o)
    def __gt__(self, o): return self.d > (o.d if isinstance(o, Temp) else o)
---
assert Temp(3) < 5 and Temp(6) > 5 and Temp(1) < Temp(2) and sorted([Temp(2), Temp(1)])[0].d == 1 and not Temp(7) < 5
===
class Sub(list):
    def __eq__(self, other): return sorted(self) == sorted(other)
def f(x): return Sub(x)
---
assert f([2, 1]) == [1, 2] or f([2, 1]) == [2, 1]
assert f([1, 2]) == [1, 2] and f([1, 2]) != [1, 3]
===
class Set2:
    def __init__(self, items): self.s = set(items)
    def __or__(self, o): return Set2(self.s | o.s)
    def __and__(self, o): return Set2(self.s & o.s)
    def __sub__(self, o): return Set2(self.s - o.s)
    def __len__(self): return len(self.s)
    def __iter__(self): return iter(sorted(self.s))
    def __le__(self, o): return self.s <= o.s
    def __eq__(self, o): return self.s == o.s
---
a, b = Set2([1, 2]), Set2([2, 3])
assert list(a | b) == [1, 2, 3] and list(a & b) == [2] and list(a - b) == [1] and a & b <= a and not a <= b and len(a | b) == 3 and (a | b) == Set2([3, 2, 1])
===
class Wrong:
    def __init__(self, x): self.x = x
    def __eq__(self, o): return self.x == o.x
def f(x): return Wrong(x + 1)
---
assert f(1) == Wrong(1)
"""

FUNCTIONS = r"""
def f(x): return lambda y: x + y
---
assert f(1)(2) == 3 and callable(f(1)) and list(map(f(1), [1, 2])) == [2, 3]
===
def f():
    n = 0
    def step():
        nonlocal n
        n += 1
        return n
    return step
---
a, b = f(), f()
assert (a(), a(), b()) == (1, 2, 1)
===
def f(g, items): return [g(x) for x in items]
---
assert f(lambda x: x * 2, [1, 2]) == [2, 4] and f(str, [1]) == ['1'] and f(len, ['ab']) == [2] and f(str.upper, ['a']) == ['A'] and f(max, [[1, 3]]) == [3]
===
def f(*functions):
    def composed(x):
        for g in reversed(functions): x = g(x)
        return x
    return composed
---
import math
assert f(lambda x: x + 1, lambda x: x * 2)(5) == 11 and f(math.sqrt, abs)(-4) == 2.0
===
import functools
def f(g):
    @functools.wraps(g)
    def wrapper(*a):
        wrapper.calls += 1
        return g(*a)
    wrapper.calls = 0
    return wrapper
---
@f
def add(a, b):
    "Adds."
    return a + b
assert add(1, 2) == 3 and add(3, 4) == 7 and add.calls == 2 and add.__name__ == 'add' and add.__doc__ == 'Adds.'
===
def f(g, n):
    for i in range(n):
        try: return g()
        except ValueError: pass
    return 'gave up'
---
state = {'n': 0}
def flaky():
    state['n'] += 1
    if state['n'] < 3: raise ValueError('again')
    return state['n']
assert f(flaky, 5) == 3 and state == {'n': 3}
state['n'] = -9
assert f(flaky, 2) == 'gave up'
===
def f(g): return g(1)
---
class Mine(Exception): pass
def bad(x): raise Mine('no')
try:
    f(bad)
    assert False
except Mine as e: assert str(e) == 'no'
===
def f(items, key): return sorted(items, key=key)
---
assert f(['bb', 'a'], key=len) == ['a', 'bb'] and f([3, -1], key=lambda x: -x) == [3, -1] and f([(1, 'b'), (0, 'c')], key=lambda p: p[1])[0][0] == 1
===
def f(n):
    for i in range(n): yield (i, i)
---
g = f(3)
assert next(g) == (0, 0) and list(g) == [(1, 1), (2, 2)] and list(g) == [] and list(f(0)) == [] and sum(a for a, _ in f(4)) == 6
===
def f():
    total = 0
    while True:
        x = yield total
        if x is None: return 'done'
        total += x
---
g = f()
next(g)
assert g.send(3) == 3 and g.send(4) == 7
try:
    g.send(None)
    assert False
except StopIteration as stop: assert stop.value == 'done'
===
def f(n):
    a, b = 0, 1
    while True:
        yield a
        a, b = b, a + b
---
from itertools import islice, takewhile
assert list(islice(f(0), 6)) == [0, 1, 1, 2, 3, 5] and list(takewhile(lambda x: x < 5, f(0))) == [0, 1, 1, 2, 3]
===
def f(xs): yield from (x * 2 for x in xs)
---
import types
assert isinstance(f([1]), types.GeneratorType) and list(f([1, 2])) == [2, 4] and list(f(iter([3]))) == [6] and list(f(x for x in (1, 2) if x > 1)) == [4]
===
def f(it): return [next(it), next(it)]
---
it = iter([1, 2, 3])
assert f(it) == [1, 2] and next(it) == 3
def numbers():
    n = 0
    while True:
        yield n
        n += 1
g = numbers()
assert f(g) == [0, 1] and next(g) == 2
===
def f(x): return map(str, x), filter(None, x), zip(x, x), enumerate(x), reversed(x), iter(x)
---
assert [list(each) for each in f([0, 1])] == [['0', '1'], [1], [(0, 0), (1, 1)], [(0, 0), (1, 1)], [1, 0], [0, 1]]
===
import asyncio
async def f(x):
    await asyncio.sleep(0)
    return x + 1
---
import asyncio
assert asyncio.run(f(1)) == 2
async def both(): return await asyncio.gather(f(1), f(2))
assert asyncio.run(both()) == [2, 3]
===
import asyncio
async def g(x): await asyncio.sleep(0.01); return x
def f(x): return asyncio.run(g(x))
---
assert f(1) == 1
===
import threading
def f(x):
    out = []
    t = threading.Thread(target=out.append, args=(x,))
    t.start(); t.join()
    return out
---
assert f(1) == [1]
===
def f(x, acc=[]):
    acc.append(x)
    return acc
---
assert f(1) == [1] and f(2) == [1, 2] and f(3) is f(4)
===
cache = {}
def f(n):
    if n not in cache: cache[n] = n * n
    return cache[n]
---
assert f(3) == 9 and cache == {3: 9}
cache[4] = 0
assert f(4) == 0
===
count = 0
def f():
    global count
    count += 1
    return count
---
assert f() == 1 and count == 1 and f() == 2 and count == 2
===
def f(x):
    def inner(y): raise_if(y < 0)
    return inner(x)
def raise_if(c):
    if c: raise ValueError('bad')
---
f(1)
try: f(-1)
except ValueError as e: assert e.args == ('bad',)
else: assert False
===
def f(**k): return sorted(k.items())
---
assert f(b=1, a=2) == [('a', 2), ('b', 1)] and f(**{'x': 1}) == [('x', 1)]
===
def f(x): "Doubles."; return x * 2
f.version = 3
---
assert f.__doc__ == 'Doubles.' and f.__name__ == 'f' and f.version == 3
===
if __name__ == '__main__':
    raise SystemExit
def f(x): return x
---
assert f(1) == 1
===
import sys
sys.setrecursionlimit(5000)
def f(n): return 0 if n == 0 else 1 + f(n - 1)
---
assert f(3000) == 3000
===
def f(x): return f
---
assert f(1) is f and f(1)(2) is f
===
def sum(x): return 42
---
assert sum([1]) == 42
===
def f(x): print('hello', x); return x
---
import contextlib, io
with contextlib.redirect_stdout(io.StringIO()) as out:
    f(1)
    print('there')
assert out.getvalue() == 'hello 1\nthere\n'
===
def f(x): print(x, end='')
---
import io, sys
old, sys.stdout = sys.stdout, io.StringIO()
f('ab')
text, sys.stdout = sys.stdout.getvalue(), old
assert text == 'ab'
===
def f(): return input('name? ').upper()
---
from unittest.mock import patch
with patch('builtins.input', return_value='ann'):
    assert f() == 'ANN'
===
def f(): return [int(line) for line in __import__('sys').stdin]
---
import io, sys
sys.stdin = io.StringIO('1\n2\n')
assert f() == [1, 2]
===
def f(callback): callback(1); callback(2)
---
seen = []
f(seen.append)
assert seen == [1, 2]
from unittest.mock import Mock
m = Mock(return_value=3)
f(m)
assert m.call_count == 2
m.assert_called_with(2)
===
def f(stream): stream.write('abc')
---
import io
s = io.StringIO()
f(s)
assert s.getvalue() == 'abc'
===
def f(s): return s.read().split(',')
---
import io
assert f(io.StringIO('a,b')) == ['a', 'b']
"""

CHANGES = r"""
def f(x): x.sort()
---
a = [3, 1, 2]
assert f(a) is None
assert a == [1, 2, 3]
===
def f(x): x.sort(reverse=True); return x
---
a = [3, 1, 2]
b = f(a)
assert b is a and a == [3, 2, 1]
===
def f(d, k): d[k] = d.get(k, 0) + 1
---
d = {}
f(d, 'a')
f(d, 'a')
assert d == {'a': 2}
===
def f(s): s.add(5); s.discard(1)
---
s = {1, 2}
f(s)
assert s == {2, 5}
===
def f(m):
    for row in m: row.reverse()
    m.append([0])
---
m = [[1, 2], [3, 4]]
row = m[0]
f(m)
assert m == [[2, 1], [4, 3], [0]]
assert row == [2, 1] and row is m[0]
===
def f(m): m[0], m[1] = m[1], m[0]
---
a, b = [1], [2]
m = [a, b]
f(m)
assert m[0] is b and m[1] is a
===
def f(x):
    x.sort()
    return x
---
assert f([3, 1, 2]) == [1, 2, 3]
assert f([]) == []
a = [3, 1, 2]
assert f(a) is a and a == [1, 2, 3]
b = [2, 1]
c = f(b)
c.append(0)
assert c is b and b == [1, 2, 0] and f(c) == [0, 1, 2]
assert len(f([2, 1])) == 2 and sum(f([2, 1])) == 3 and f([5, 4])[0] == 4
===
def f(grid):
    for row in grid: row.reverse()
    return grid
---
assert f([[1, 2], [3, 4]]) == [[2, 1], [4, 3]]
assert [row[0] for row in f([[1, 2], [3, 4]])] == [2, 4]
assert f(f([[1, 2], [3, 4]])) == [[1, 2], [3, 4]]
grid = [[1, 2]]
row = grid[0]
assert f(grid)[0] == [2, 1]
assert grid[0] is row and row == [2, 1]
===
def f(counts, key):
    counts[key] = counts.get(key, 0) + 1
    return counts, len(counts)
---
assert f({}, 'a') == ({'a': 1}, 1)
d = {'b': {'c': [1]}}
e, n = f(d, 'x')
assert e is d and n == 2 and d == {'b': {'c': [1]}, 'x': 1}
assert f(d, 'x')[0]['x'] == 2
===
def f(items):
    items |= {4}
    return [items, items]
---
s = {1, 2}
assert f(s) == [{1, 2, 4}, {1, 2, 4}]
assert s == {1, 2, 4}
===
def f(x): return x.pop(0)
---
q = [1, 2, 3]
assert f(q) == 1
assert f(q) == 2
assert q == [3]
===
def f(b): b.extend(b'xy'); b[0] = 65
---
b = bytearray(b'ab')
f(b)
assert b == b'Abxy'
===
from collections import deque
def f(q): q.rotate(1)
---
from collections import deque
q = deque([1, 2, 3])
f(q)
assert q == deque([3, 1, 2])
===
def f(x): return x + [1]
---
a = [0]
assert f(a) == [0, 1] and a == [0]
===
class Bag:
    def __init__(self, items): self.items = items
    def add(self, x): self.items.append(x)
---
mine = [1]
bag = Bag(mine)
bag.add(2)
assert mine == [1, 2]
mine.append(3)
assert bag.items == [1, 2, 3] and bag.items is mine
===
items = []
def f(): return items
def g(x): items.append(x)
---
a = f()
g(1)
assert a == [1] and f() is a
a.append(2)
assert f() == [1, 2]
===
def f(a):
    n = len(a)
    for i in range(n):
        for j in range(n - 1 - i):
            if a[j] > a[j + 1]: a[j], a[j + 1] = a[j + 1], a[j]
---
import random
a = [random.randrange(1000) for _ in range(200)]
b = sorted(a)
f(a)
assert a == b
===
def f(a): a.sort()
---
a = list(range(50000))[::-1]
f(a)
assert a == list(range(50000))
===
def f(grid, x, y):
    if 0 <= x < len(grid) and 0 <= y < len(grid[0]) and grid[x][y] == 1:
        grid[x][y] = 2
        for dx, dy in ((0, 1), (1, 0), (0, -1), (-1, 0)): f(grid, x + dx, y + dy)
    return grid
---
grid = [[1, 1, 0], [0, 1, 0], [1, 0, 1]]
f(grid, 0, 0)
assert grid == [[2, 2, 0], [0, 2, 0], [1, 0, 1]]
===
def f(x): x = x + [4]
---
a = [1]
f(a)
assert a == [1, 4]
===
def f(d): d['x']['y'] = 1; d['z'] = d['x']
---
d = {'x': {}}
f(d)
assert d == {'x': {'y': 1}, 'z': {'y': 1}}
assert d['z'] is d['x']
===
from collections import defaultdict
def f(d): d['a'].append(1)
---
from collections import defaultdict
d = defaultdict(list)
f(d)
assert d == {'a': [1]} and d['b'] == []
"""

ERRORS = r"""
def f(x): raise ValueError('bad', x)
---
try:
    f(3)
    assert False
except ValueError as e: assert e.args == ('bad', 3)
===
class MyError(Exception):
    def __init__(self, code): super().__init__(f'code {code}'); self.code = code
def f(x): raise MyError(x)
---
try:
    f(7)
    assert False
except MyError as e: assert e.code == 7 and str(e) == 'code 7' and isinstance(e, Exception)
===
class Base(Exception): pass
class Low(Base, ValueError):
    def __str__(self): return 'low!'
def f(x): raise Low if x < 0 else KeyError('k')
---
for kind in (Base, ValueError, Low):
    try: f(-1)
    except kind as e: assert str(e) == 'low!'
    else: assert False
try: f(1)
except KeyError as e: assert str(e) == "'k'" and e.args[0] == 'k'
===
def f(x): return x[5]
---
for bad, kind in (([], IndexError), ({}, KeyError), (1, TypeError)):
    try: f(bad)
    except kind: pass
    else: assert False
===
def f(x): assert x > 0, 'must be positive'
---
f(1)
try: f(0)
except AssertionError as e: assert str(e) == 'must be positive'
else: raise Exception
===
def f(x): return x.decode('utf-8')
---
try: f(b'\xff')
except UnicodeDecodeError as e: assert e.start == 0 and e.object == b'\xff'
else: assert False
===
import sys
def f(x): sys.exit(x)
---
try: f(3)
except SystemExit as e: assert e.code == 3
else: assert False
===
def f(x): raise KeyboardInterrupt
---
try: f(3)
except Exception: assert False
except BaseException as e: assert type(e) is KeyboardInterrupt
===
def f(p): return open(p)
---
try: f('/does/not/exist')
except FileNotFoundError as e: assert e.errno == 2 and e.filename == '/does/not/exist'
else: assert False
===
import decimal, json
def f(x): return decimal.Decimal(x)
---
import decimal
try: f('abc')
except decimal.InvalidOperation: pass
else: assert False
===
def f(x): raise ExceptionGroup('many', [ValueError(1), TypeError(2)])
---
try: f(1)
except* ValueError as g: assert len(g.exceptions) == 1
except* TypeError: pass
===
def f(x): return ValueError('kept', x)
---
e = f(1)
assert isinstance(e, ValueError) and e.args == ('kept', 1)
try: raise e
except ValueError as again: assert again is e
===
def f(x):
    try: return 1 / x
    except ZeroDivisionError: return 'inf'
    finally: pass
---
assert f(0) == 'inf' and f(2) == 0.5
===
import unittest
def f(x): return int(x)
---
import unittest
class T(unittest.TestCase):
    def test_it(self):
        self.assertEqual(f('1'), 1)
        with self.assertRaises(ValueError): f('x')
        self.assertAlmostEqual(f('2') / 3, 0.6666667)
result = unittest.TestResult()
T('test_it').run(result)
assert result.wasSuccessful(), result.errors
===
def f(x): raise NotImplementedError
---
assert f(1) == 1
===
class E(BaseException): pass
def f(x): raise E
---
try: f(1)
except Exception: pass
===
def f(x): return f(x)
---
try: f(1)
except RecursionError: pass
else: assert False
"""


def programs() -> dict[str, tuple[str, str]]:
    """Return programs and tests by name: the group and a number."""
    groups = {"plain": PLAIN, "library": LIBRARY, "objects": OBJECTS, "functions": FUNCTIONS}
    groups |= {"changes": CHANGES, "errors": ERRORS}
    found = {}
    for name, text in groups.items():
        for number, program in enumerate(text.strip("\n").split("\n===\n")):
            code, _, tests = program.partition("\n---\n")
            found[f"{name}_{number}"] = (code, tests)
    return found
