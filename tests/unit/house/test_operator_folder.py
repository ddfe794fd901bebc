"""The folder `operator/` must never stand in for the standard library's module of that name."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from house import PACKAGES, ROOT

STDLIB = Path(sysconfig.get_path("stdlib")).resolve()
# Started without what an interpreter has already imported by itself, so that the search really happens.
WHERE = "import sys; sys.modules.pop('operator', None); import operator; print(operator.__file__)"


def found_from(folder: Path) -> Path:
    """Where `import operator` leads when Python is started in a folder, the first place it then searches."""
    result = subprocess.run(
        [sys.executable, "-c", WHERE], cwd=folder, capture_output=True, text=True, check=True
    )
    return Path(result.stdout.strip()).resolve()


@pytest.mark.parametrize("folder", [ROOT, ROOT / "operator"], ids=["checkout", "operator"])
def test_the_standard_library_is_found(folder):
    assert found_from(folder) == STDLIB / "operator.py"


def test_an_init_file_there_would_shadow_it(tmp_path):
    (tmp_path / "operator").mkdir()
    assert found_from(tmp_path) == STDLIB / "operator.py"
    (tmp_path / "operator" / "__init__.py").write_text("from _operator import *\n")
    assert found_from(tmp_path) == tmp_path.resolve() / "operator" / "__init__.py"


def test_rooms_hold_their_package_and_nothing_else_to_import():
    """Each room's folder is on sys.path: a stray module there would be a top-level name for everybody."""
    stray = [
        str(path.relative_to(ROOT))
        for package in PACKAGES.values()
        for path in package.parent.iterdir()
        if path != package and (path.suffix == ".py" or (path.is_dir() and (path / "__init__.py").exists()))
    ]
    assert stray == []


def test_the_checkout_itself_is_not_on_the_path():
    script = "import sys, leanmodel_operator; print('\\n'.join(sys.path))"
    result = subprocess.run(
        [sys.executable, "-P", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert str(ROOT) not in result.stdout.splitlines()
    assert str(ROOT / "operator") in result.stdout.splitlines()
