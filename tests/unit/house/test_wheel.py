"""A built wheel holds all of our packages with their data, and nothing else."""

import configparser
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from house import PACKAGES, ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """The wheel, built from this checkout without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (path,) = folder.glob("leanmodel-*.whl")
    with zipfile.ZipFile(path) as opened:
        yield opened


def in_the_checkout() -> set[str]:
    """Every file of every package, code and data, as the wheel should name it."""
    return {
        str(path.relative_to(package.parent))
        for package in PACKAGES.values()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_all_files_of_all_packages_are_in_it(wheel):
    assert in_the_checkout() - set(wheel.namelist()) == set()


def test_nothing_but_the_packages_is_in_it(wheel):
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        path.name for path in PACKAGES.values()
    }


def test_it_carries_the_command_and_the_licence(wheel):
    (entry,) = [name for name in wheel.namelist() if name.endswith("/entry_points.txt")]
    parser = configparser.ConfigParser()
    parser.read_string(wheel.read(entry).decode())
    assert dict(parser["console_scripts"]) == {"leanmodel": "leanmodel_cli.main:main"}
    assert any(name.endswith("/licenses/LICENSE") for name in wheel.namelist())


def test_the_unpacked_wheel_imports(wheel, tmp_path):
    wheel.extractall(tmp_path)
    script = "import sys; sys.path.insert(0, sys.argv[1]); import leanmodel_api as m; print(m.__file__)"
    result = subprocess.run(
        [sys.executable, "-I", "-c", script, str(tmp_path)], check=True, capture_output=True, text=True
    )
    assert Path(result.stdout.strip()) == tmp_path / "leanmodel_api" / "__init__.py"
