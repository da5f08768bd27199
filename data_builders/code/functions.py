"""Python functions found with `ast`, and pairs of a function with the first paragraph of its docstring.

Pairs are selected as in CodeSearchNet.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from data_builders.benchmarks.codexglue import leaks, question

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
_TOKEN = re.compile(r"\w+|[^\w\s]")
_FIELD = (
    r":(param|type|arg|key|kw|var|ivar|return|rtype|yield|raise)|@(param|return)|Args:|Parameters\b|Returns?:|Raises:"
)
_SUMMARY_END = re.compile(rf"\n\s*\n|\n\s*(?={_FIELD}|>>>|\.\. )")
_MARKUP = re.compile(r"<img|https?:", re.IGNORECASE)
_MIN_LINES = 3
_MIN_TOKENS = 3


@dataclass(frozen=True)
class PythonFunction:
    """One function or method.

    Attributes:
        arguments: the names of its arguments, in order.
        original: the source with decorators and docstring, dedented.
        code: `original` without the docstring; empty if the body has nothing else, if the docstring shares a line with
            code, or if another string follows it, which would become the docstring.
        body: the statements after the docstring, not dedented.
        docstring: dedented; empty if there is none.
        line: line number in the file, from 1.
    """

    name: str
    arguments: tuple[str, ...]
    original: str
    code: str
    body: str
    docstring: str
    line: int


@dataclass(frozen=True)
class Pair:
    """A function to summarise, as a prompt of `calmctl eval codexglue`, and its summary."""

    prompt: str
    summary_tokens: tuple[str, ...]

    @property
    def completion(self) -> str:
        """Return a space, then the summary's tokens joined by spaces, as in the benchmark."""
        return f" {' '.join(self.summary_tokens)}"


def parse(text: str) -> ast.Module:
    """Parse Python source; every failure is a SyntaxError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (ValueError, RecursionError, MemoryError) as error:
        raise SyntaxError(str(error)) from None


def find_functions(tree: ast.Module, text: str) -> Iterator[PythonFunction]:
    """Yield the functions of a parsed text, methods and inner functions included; its lines must end with LF."""
    lines = text.split("\n")
    return (_function(node, lines) for node in _definitions(tree) if isinstance(node, FunctionNode))


def find_docstrings(tree: ast.Module) -> Iterator[str]:
    """Yield the docstrings of a module, its classes and its functions."""
    return filter(None, map(ast.get_docstring, _definitions(tree)))


def make_pair(function: PythonFunction, max_bytes: int, max_tokens: int) -> Pair | str:
    """Return the pair of a function with a docstring, or the reason why the function is not used.

    Args:
        max_bytes: maximum size of the code without its docstring.
        max_tokens: maximum length of the summary.
    """
    tokens = summary_tokens(function.docstring)
    summary = " ".join(tokens)
    if "test" in function.name.lower() or (function.name.startswith("__") and function.name.endswith("__")):
        return "test_or_special_method"
    if not function.code.strip():
        return "no_code_beside_docstring"
    if len([line for line in function.code.split("\n") if line.strip()]) < _MIN_LINES:
        return "short_function"
    if len(function.code.encode()) > max_bytes:
        return "long_function"
    if len(tokens) < _MIN_TOKENS:
        return "short_summary"
    if len(tokens) > max_tokens:
        return "long_summary"
    if not summary.isascii():
        return "not_ascii"
    if _MARKUP.search(summary.replace(" ", "")):
        return "markup"
    if leaks(function.code, summary) or leaks(function.code, function.docstring):
        return "code_holds_summary"
    return Pair(question("python", function.code), tokens)


def summary_tokens(docstring: str) -> tuple[str, ...]:
    """Return the words and punctuation of a docstring's first paragraph, which also ends before fields and examples."""
    text = docstring.strip()
    end = _SUMMARY_END.search(text)
    return tuple(_TOKEN.findall(text[: end.start()] if end else text))


def _definitions(tree: ast.Module) -> Iterator[ast.Module | ast.ClassDef | FunctionNode]:
    """Yield a module and the classes and functions in it, from top to bottom, without visiting expressions."""
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
    """Return lines `first` to `last` without the docstring; empty if the docstring shares a line with code."""
    start, end = docstring.lineno - 1, docstring.end_lineno or docstring.lineno
    before = lines[start].encode()[: docstring.col_offset]
    after = lines[end - 1].encode()[docstring.end_col_offset :]
    if before.strip() or after.strip():
        return ""
    return "\n".join([*lines[first:start], *lines[end:last]])


def _to_margin(text: str, width: int) -> str:
    """Remove `width` characters of indentation from every line that has them; lines of strings may have less."""
    return "\n".join(line if line[:width].strip() else line[width:] for line in text.split("\n"))
