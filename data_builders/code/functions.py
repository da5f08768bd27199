"""Functions of Python source: their code without the docstring, the docstring, and where they begin, by `ast`."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class PythonFunction:
    """One function or method.

    Attributes:
        arguments: the names of its arguments, in order.
        original: the source, decorators and docstring included, moved to the left margin.
        code: the source without the docstring; empty where nothing else is in the body, the docstring shares a line, or
            another string follows it, which would become the docstring.
        body: the statements after the docstring, as they stand.
        docstring: without indentation; empty where there is none.
        line: of the file, from 1.
    """

    name: str
    arguments: tuple[str, ...]
    original: str
    code: str
    body: str
    docstring: str
    line: int


def parse(text: str) -> ast.Module:
    """Parse Python source; raises SyntaxError, whatever is wrong with it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (ValueError, RecursionError, MemoryError) as error:
        raise SyntaxError(str(error)) from None


def find_functions(tree: ast.Module, text: str) -> Iterator[PythonFunction]:
    """Yield the functions of a parsed text whose lines end in line feeds, methods and inner functions included."""
    lines = text.split("\n")
    return (_function(node, lines) for node in _definitions(tree) if isinstance(node, FunctionNode))


def find_docstrings(tree: ast.Module) -> Iterator[str]:
    """Yield the docstrings of a module, its classes and its functions."""
    return filter(None, map(ast.get_docstring, _definitions(tree)))


def _definitions(tree: ast.Module) -> Iterator[ast.Module | ast.ClassDef | FunctionNode]:
    """Yield a module, then what it defines, from top to bottom; expressions, which define nothing, are not visited."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Module | ast.ClassDef | FunctionNode):
            yield node
        blocks = (getattr(node, name, ()) for name in ("body", "handlers", "cases", "orelse", "finalbody"))
        waiting += reversed([child for block in blocks for child in block])


def _function(node: FunctionNode, lines: list[str]) -> PythonFunction:
    first = min([node.lineno, *(each.lineno for each in node.decorator_list)]) - 1
    last = node.end_lineno or node.lineno
    docstring = ast.get_docstring(node)
    statements = node.body if docstring is None else node.body[1:]
    body = "\n".join(lines[_first_line(statements[0]) - 1 : last]) if statements else ""
    arguments = node.args
    names = [*arguments.posonlyargs, *arguments.args, arguments.vararg, *arguments.kwonlyargs, arguments.kwarg]
    original = "\n".join(lines[first:last])
    code = original
    if docstring is not None:
        usable = statements and not _is_string(statements[0])
        code = _without(node.body[0], lines, first, last) if usable else ""
    return PythonFunction(
        node.name,
        tuple(each.arg for each in names if each is not None),
        _to_margin(original, node.col_offset),
        _to_margin(code, node.col_offset),
        body,
        docstring or "",
        first + 1,
    )


def _is_string(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _first_line(statement: ast.stmt) -> int:
    decorators = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(each.lineno for each in decorators)])


def _without(docstring: ast.stmt, lines: list[str], first: int, last: int) -> str:
    """Return lines `first` to `last` without the docstring's; empty where it shares a line with something."""
    start, end = docstring.lineno - 1, docstring.end_lineno or docstring.lineno
    before = lines[start].encode()[: docstring.col_offset]
    after = lines[end - 1].encode()[docstring.end_col_offset :]
    if before.strip() or after.strip():
        return ""
    return "\n".join([*lines[first:start], *lines[end:last]])


def _to_margin(text: str, width: int) -> str:
    """Take `width` characters of white space from the lines that begin with it: text in strings may not."""
    return "\n".join(line if line[:width].strip() else line[width:] for line in text.split("\n"))
