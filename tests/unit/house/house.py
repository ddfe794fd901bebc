"""What the tests of the house share: where things lie and how to read them."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

PACKAGES = {
    name: ROOT / name / f"leanmodel_{name}"
    for name in ("api", "store", "routing", "evaluation", "compression", "serving", "operator", "cli")
}
"""The rooms: folder to import package."""


def sources(folder: Path) -> Iterator[Path]:
    """The Python files below a folder, in order."""
    return (path for path in sorted(folder.rglob("*.py")) if "__pycache__" not in path.parts)


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Each absolute import in a module, wherever it stands: its line and the dotted name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module


def foreign_imports(folder: Path) -> dict[str, list[str]]:
    """Third-party top-level modules that a package imports: name to the places of its imports."""
    found: dict[str, list[str]] = {}
    for path in sources(folder):
        for line, name in imported(ast.parse(path.read_text(), str(path))):
            top = name.partition(".")[0]
            if top not in sys.stdlib_module_names and not top.startswith("leanmodel_"):
                found.setdefault(top, []).append(f"{path}:{line}")
    return found
