"""What stands where: modules, what they import, and circles; `python -m tests.structure` prints it."""

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("calmctl", "data_builders", "evals")


def modules() -> dict[str, Path]:
    """Return the file of every module by its name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(path: Path, when_loaded: bool = False) -> Iterator[str]:
    """Yield every module that a file imports, in functions and for type checkers too, or names in a string.

    Args:
        when_loaded: only what is imported when the file itself is.
    """
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if when_loaded and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if when_loaded and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            pending += node.orelse
            continue
        pending += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            assert node.module is not None
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in MODULES else node.module
        elif not when_loaded and isinstance(node, ast.Constant) and node.value in MODULES and "." in node.value:
            yield node.value


def graph() -> dict[str, set[str]]:
    """Return which of our modules every module of ours imports."""
    return {module: {*imports(path)} & MODULES.keys() - {module} for module, path in MODULES.items()}


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that all need one another."""
    reached = {module: _reached(module, edges) for module in edges}
    groups = {
        frozenset(other for other in reached[module] if module in reached[other])
        for module in edges
        if module in reached[module]
    }
    return sorted(sorted(group) for group in groups)


def _reached(module: str, edges: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    pending = [*edges[module]]
    while pending:
        if (name := pending.pop()) not in found:
            found.add(name)
            pending += edges[name]
    return found


def main() -> None:
    """Print files and lines of every folder, and the circles."""
    files: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    for path in MODULES.values():
        relative = path.relative_to(ROOT)
        for folder in (str(relative.parent), f"{relative.parts[0]} in all"):
            files[folder] += 1
            lines[folder] += len(path.read_text().splitlines())
    for folder in sorted(files):
        print(f"{folder:32} {files[folder]:4} files {lines[folder]:6,} lines")
    found = circles(graph())
    print(f"{'all':32} {len(MODULES):4} files {sum(lines[f'{package} in all'] for package in PACKAGES):6,} lines")
    print(f"circles: {len(found)}", *(" <-> ".join(group) for group in found), sep="\n  ")


if __name__ == "__main__":
    main()
