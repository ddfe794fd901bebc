"""The import contracts say what the table of rooms says, and break when they should."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from house import PACKAGES, ROOT

MAY_IMPORT = {
    "api": set(),
    "store": {"api"},
    "routing": {"api"},
    "evaluation": {"api", "store", "routing"},
    "compression": {"api", "store"},
    "serving": {"api", "routing", "store"},
    "operator": {"api"},
    "cli": set(PACKAGES) - {"cli"},
}
ENGINES = {
    "api": {"torch", "ray", "vllm", "kopf"},
    "store": {"torch", "ray", "vllm", "kopf"},
    "routing": {"torch", "ray", "vllm", "kopf"},
    "evaluation": {"torch", "ray", "vllm", "kopf"},
    "compression": {"ray", "vllm", "kopf"},
    "serving": {"kopf"},
    "operator": {"torch", "ray", "vllm"},
    "cli": {"torch", "ray", "vllm", "kopf"},
}


def contracts() -> dict[str, dict]:
    """The contracts by room."""
    text = (ROOT / "pyproject.toml").read_text()
    return {contract["id"]: contract for contract in tomllib.loads(text)["tool"]["importlinter"]["contracts"]}


def run_linter(folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs import-linter with our contracts over packages in a folder."""
    command = [
        str(Path(sys.executable).with_name("lint-imports")),
        "--config",
        "pyproject.toml",
        "--no-cache",
    ]
    path = os.pathsep.join(str(folder / room) for room in PACKAGES)
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def rooms(tmp_path) -> Path:
    """Empty rooms under our contracts, where a test can write a forbidden import."""
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    for room, package in PACKAGES.items():
        (tmp_path / room / package.name).mkdir(parents=True)
        (tmp_path / room / package.name / "__init__.py").write_text("")
    return tmp_path


def test_there_is_a_contract_for_each_room():
    assert set(contracts()) == set(PACKAGES)
    for room, contract in contracts().items():
        assert contract["source_modules"] == [f"leanmodel_{room}"]


@pytest.mark.parametrize("room", PACKAGES)
def test_contract_forbids_all_other_rooms_and_engines(room):
    forbidden = set(contracts()[room]["forbidden_modules"])
    others = {f"leanmodel_{other}" for other in set(PACKAGES) - MAY_IMPORT[room] - {room}}
    assert {name for name in forbidden if name.startswith("leanmodel_")} == others
    assert forbidden >= ENGINES[room]


def test_empty_rooms_keep_the_contracts(rooms):
    result = run_linter(rooms)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("module", "code", "contract"),
    [
        ("evaluation/leanmodel_evaluation/ask.py", "def f():\n    import torch\n", "evaluation"),
        ("routing/leanmodel_routing/x.py", "from leanmodel_store import y\n", "routing"),
        ("operator/leanmodel_operator/x.py", "import leanmodel_serving\n", "operator"),
        ("cli/leanmodel_cli/x.py", "import ray.serve\n", "cli"),
        ("api/leanmodel_api/x.py", "import leanmodel_store\n", "api"),
    ],
)
def test_a_forbidden_import_breaks_its_contract(rooms, module, code, contract):
    (rooms / module).write_text(code)
    result = run_linter(rooms)
    assert result.returncode != 0
    assert f"{contracts()[contract]['name']} BROKEN" in " ".join(result.stdout.split())


def test_a_chain_of_imports_breaks_a_contract_too(rooms):
    (rooms / "store/leanmodel_store/x.py").write_text("import vllm\n")
    (rooms / "evaluation/leanmodel_evaluation/y.py").write_text("import leanmodel_store.x\n")
    text = " ".join(run_linter(rooms).stdout.split())
    assert f"{contracts()['evaluation']['name']} BROKEN" in text
    assert f"{contracts()['cli']['name']} KEPT" in text
