"""Run the tests in the judge, with names that resolve to objects of the program."""

import ast
import builtins
import importlib
import sys
from typing import Any

from evals.sandbox.evidence import Evidence
from evals.sandbox.peer import Gone, Peer
from evals.sandbox.remote import Module
from evals.sandbox.specials import OPERATIONS
from evals.sandbox.values import known_name

# Functions and streams that tests may replace, for the program too.
_REPLACED = {
    "sys": ("stdin", "stdout", "stderr"),
    "builtins": ("input", "print", "open"),
    "time": ("sleep", "time", "monotonic", "perf_counter"),
    "random": ("random", "randint", "randrange", "choice", "choices", "sample", "shuffle", "uniform"),
    "os": ("getcwd", "listdir", "getenv"),
}
_SETTLE, _SETTLED, _ORIGINAL = "__settle__", "__settled__", "__original__"
_MANY_TESTS = 2**20
_ALIASES = {"np": "numpy", "pd": "pandas", "sp": "sympy", "dt": "datetime", "plt": "matplotlib.pyplot"}
# What the program may access of the tests' objects: not the frames and globals of the tests' functions.
_IS_MADE = 1 << 9  # flag of classes made by a class statement or a call of `type`
_NAMES_OF_FUNCTIONS = ("__name__", "__qualname__", "__doc__")
_OPEN_MODULES = ("_io", "io", "unittest.mock")


class Tests:
    """One run of the tests of a program."""

    def __init__(self, job: dict[str, Any], reading: int, writing: int) -> None:
        self.job = job
        operations = {
            **OPERATIONS,
            "getattr": self._get_attribute,
            "setattr": self._set_attribute,
            "resume": lambda generator, value: generator.send(value),
            "throw": lambda generator, error: generator.throw(error),
            "close": lambda generator: generator.close(),
        }
        self.peer = Peer(reading, writing, True, operations, lambda peer: Evidence(peer).ways())
        self.namespace: dict[str, Any] = {}
        self.names = _Names(self.peer, frozenset(job["names"]))

    def run(self) -> tuple[str, str]:
        """Run program and tests and return status and detail."""
        stage = "program"
        try:
            exec(self.job["setup"], self.namespace)
            self.peer.ask("run", self.job["code"])
            stage = "tests"
            for name, statement in self.job["modules"]:
                if self.peer.ask("find", name):
                    exec(statement, self.namespace)
            for name in self.job["names"]:
                self.namespace.pop(name, None)
            self.namespace["__builtins__"] = self.names
            tests = self._compiled(self.job["tests"])
            self.peer.prepare = _Surroundings(self.peer, "random" in self.job["tests"]).tell
            exec(tests, self.namespace)
        except Gone as error:
            return "crashed", str(error)
        except BaseException as error:
            return "failed", f"{stage}: {_described(error)}".rstrip(": ")[:300]
        return ("crashed", "the program ended its process") if self.peer.is_broken else ("passed", "")

    def _compiled(self, tests: str) -> Any:
        """Compile tests so that the program's changes to their objects apply before the next statement or condition.

        Not sooner: a program that empties its argument must not empty what its result is compared with.
        """
        if len(tests) > _MANY_TESTS:  # their syntax tree would take too much memory
            self.peer.held = None
            return compile(tests, "<tests>", "exec")
        if (held := self.peer.held) is None:
            raise ValueError("tests are compiled once")
        self.namespace |= {_SETTLE: held.settle, _SETTLED: held.settled, _ORIGINAL: held.original}
        tree = ast.parse(tests, "<tests>")
        for node in list(ast.walk(tree)):
            if isinstance(node, ast.BoolOp):
                node.values[1:] = [ast.BoolOp(ast.Or(), [_settle(each), each]) for each in node.values[1:]]
            elif isinstance(node, ast.Compare) and all(isinstance(each, ast.Is | ast.IsNot) for each in node.ops):
                node.left = _call(_ORIGINAL, node.left)
                node.comparators = [_call(_ORIGINAL, each) for each in node.comparators]
            elif isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call | ast.Tuple):
                node.value = _call(_SETTLED, node.value)
            for field in ("body", "orelse", "finalbody"):
                if isinstance(statements := getattr(node, field, None), list) and statements:
                    setattr(node, field, _settling(statements))
        return compile(ast.fix_missing_locations(tree), "<tests>", "exec")

    def _get_attribute(self, value: Any, name: str) -> Any:
        self._require_open(value, name)
        return getattr(value, name)

    def _set_attribute(self, value: Any, name: str, item: Any) -> None:
        self._require_open(value, name)
        setattr(value, name, item)

    def _require_open(self, value: Any, name: str) -> None:
        """Raise AttributeError unless the program may access this attribute of an object of the tests.

        Allowed are public attributes of the tests' own classes, of streams and of mocks, and `_NAMES_OF_FUNCTIONS`.
        """
        kind = value if isinstance(value, type) else type(value)
        is_own = kind.__module__ in ("builtins", "__main__") and known_name(kind) is None and kind.__flags__ & _IS_MADE
        if name in _NAMES_OF_FUNCTIONS:
            return
        if name.startswith("_") or not (is_own or kind.__module__ in _OPEN_MODULES):
            raise AttributeError(name)


class _Surroundings:
    """State that tests and program would share in one process: replaced functions and streams, and `random`."""

    def __init__(self, peer: Peer, with_random: bool) -> None:
        self.peer = peer
        # Imported before the tests can change it, and only if they mention it: the import is slow.
        self.random = importlib.import_module("random") if with_random else None
        self.chance = self.random and self.random.getstate()
        self.originals = {
            (module, name): getattr(sys.modules[module], name)
            for module, names in _REPLACED.items()
            if module != "random" or with_random
            for name in names
        }
        self.current = dict(self.originals)

    def tell(self) -> None:
        """Send the program the functions and streams that the tests have replaced, and the state of `random`."""
        for place, original in self.originals.items():
            module, name = place
            if (found := getattr(sys.modules[module], name, None)) is not self.current[place]:
                self.current[place] = found
                self.peer.ask("replace", module, name, None if found is original else [found])
        if self.random and (chance := self.random.getstate()) != self.chance:
            self.chance = chance
            self.peer.ask("chance", chance)


class _Names(dict[str, Any]):
    """The tests' `__builtins__`: names that they do not define are looked up in the builtins, then in the program.

    Names in `wanted` are looked up in the program first.
    """

    def __init__(self, peer: Peer, wanted: frozenset[str]) -> None:
        super().__init__(vars(builtins))
        self.peer, self.wanted = peer, wanted

    def __getitem__(self, name: str) -> Any:
        if name not in self.wanted and name in self:
            return super().__getitem__(name)
        if not (bound := self.peer.ask("find", name)):
            return super().__getitem__(name)
        found = bound[0]
        if isinstance(found, Module):
            module = found.__name__
            if module not in (name, _ALIASES.get(name)):
                raise KeyError(name)
            return importlib.import_module(module)
        return found


def _settle(place: ast.AST) -> ast.Call:
    return ast.copy_location(ast.Call(ast.Name(_SETTLE, ast.Load()), [], []), place)  # returns None, falsy for `or`


def _call(name: str, argument: ast.expr) -> ast.Call:
    return ast.copy_location(ast.Call(ast.Name(name, ast.Load()), [argument], []), argument)


def _settling(statements: list[ast.stmt]) -> list[ast.stmt]:
    found: list[ast.stmt] = []
    for number, statement in enumerate(statements):
        is_text = number == 0 and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        if not is_text and not (isinstance(statement, ast.ImportFrom) and statement.module == "__future__"):
            found.append(ast.copy_location(ast.Expr(_settle(statement)), statement))
        found.append(statement)
    return found


def _described(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except BaseException:
        return type(error).__name__
