"""Rules for our own source that no linter knows: no pickles, no stubs, no paths of somebody's machine."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from house import PACKAGES, ROOT, imported, sources

PICKLES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
LOADERS = {"torch.load", "torch.save", "pandas.read_pickle", "pd.read_pickle", "joblib.load"}
MACHINE_PATH = re.compile(r"(?<![\w.:/{}-])/(?:root|home|work|Users|mnt|tmp/env)(?:/|\b)")
DANGEROUS_KEYWORDS = {"allow_pickle=True", "trust_remote_code=True", "weights_only=False"}


def violations(path: Path, text: str) -> Iterator[str]:
    """What in one module breaks the rules, each with its line."""
    tree = ast.parse(text, str(path))
    for line, name in imported(tree):
        if name.partition(".")[0] in PICKLES:
            yield f"{path}:{line}: imports {name}; weights are safetensors or GGUF, the rest is JSON"
    for node in ast.walk(tree):
        where = f"{path}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Raise) and "NotImplementedError" in ast.unparse(node):
            yield f"{where}: NotImplementedError; refuse it when the manifest is read, or build it"
        if isinstance(node, ast.Attribute) and ast.unparse(node) in LOADERS:
            yield f"{where}: {ast.unparse(node)}; weights are safetensors or GGUF"
        if isinstance(node, ast.keyword) and ast.unparse(node) in DANGEROUS_KEYWORDS:
            yield f"{where}: {ast.unparse(node)} runs code that came with the data"
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and MACHINE_PATH.search(node.value):
            yield f"{where}: a path of one machine: {node.value[:60]!r}"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and is_stub(node, tree):
            yield f"{where}: {node.name} does nothing"


def is_stub(function: ast.FunctionDef | ast.AsyncFunctionDef, tree: ast.Module) -> bool:
    """Says whether a function's body is empty though it is no protocol's, overload's or abstract method."""
    body = function.body
    if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant) and len(body) > 1:
        body = body[1:]
    empty = all(
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and statement.value.value is ...
        for statement in body
    )
    if not empty:
        return False
    if any("overload" in ast.unparse(d) or "abstract" in ast.unparse(d) for d in function.decorator_list):
        return False
    return not any(
        isinstance(node, ast.ClassDef)
        and function in node.body
        and any("Protocol" in ast.unparse(base) for base in node.bases)
        for node in ast.walk(tree)
    )


@pytest.mark.parametrize("room", PACKAGES)
def test_the_room_keeps_the_rules(room):
    found = [
        fault
        for path in sources(PACKAGES[room])
        for fault in violations(path.relative_to(ROOT), path.read_text())
    ]
    assert found == []


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("import pickle", "imports pickle"),
        ("from joblib import load", "imports joblib"),
        ("def f():\n    import cloudpickle.x", "imports cloudpickle.x"),
        ("import torch\ntorch.load('x')", "torch.load"),
        ("load(x, allow_pickle=True)", "allow_pickle"),
        ("load(x, trust_remote_code=True)", "trust_remote_code"),
        ("def f():\n    raise NotImplementedError('x')", "NotImplementedError"),
        ("def f():\n    raise NotImplementedError", "NotImplementedError"),
        ("def f():\n    'says what.'\n    ...", "does nothing"),
        ("x = '/work/main/store'", "a path of one machine"),
        ("x = f'/home/me/{y}'", "a path of one machine"),
    ],
)
def test_the_rules_see(code, word):
    assert any(word in fault for fault in violations(Path("x.py"), code))


@pytest.mark.parametrize(
    "code",
    [
        "from typing import Protocol\nclass P(Protocol):\n    def f(self) -> int: ...",
        "try:\n    f()\nexcept NotImplementedError:\n    pass",
        "x = 'a/work/queue'",
        "x = '/workers/{name}'",
        "load(x, allow_pickle=False)",
        "def f():\n    'Says what.'\n    return None",
    ],
)
def test_the_rules_let_pass(code):
    assert list(violations(Path("x.py"), code)) == []


@pytest.mark.parametrize("room", PACKAGES)
def test_the_package_is_typed(room):
    assert (PACKAGES[room] / "py.typed").exists()


def test_names_of_test_files_are_unique():
    """pytest imports test files by their bare name; two of one name would hide each other."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py")
    assert [name for name, count in names.items() if count > 1 and name != "__init__.py"] == []
