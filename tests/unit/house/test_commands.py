"""One way to do a thing: what the documents and the CI call exists, and failures come through."""

import importlib.util
import re
import subprocess
import sys

import pytest
from house import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
NAMED = set(re.findall(r"^([a-z0-9-]+):(?!=)", MAKEFILE, re.MULTILINE))
BENCHES = {"bench-" + path.stem.replace("_", "-") for path in (ROOT / "benchmarks").glob("*.py")}
TARGETS = NAMED | BENCHES
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / ".ci" / "run",
    *sorted((ROOT / "docs").rglob("*.md")),
]


@pytest.fixture(scope="module")
def checks():
    """tools/run_checks.py as a module."""
    spec = importlib.util.spec_from_file_location("run_checks", ROOT / "tools" / "run_checks.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["run_checks"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_targets_that_documents_name_exist(path):
    code = re.findall(r"`([^`\n]+)`|```\w*\n(.*?)```", path.read_text(), re.DOTALL)
    text = "\n".join(a or b for a, b in code) if path.suffix == ".md" else path.read_text()
    named = {
        word
        for line in re.findall(r"^(?:exec |\$ )?make ((?:[a-z0-9-]+[ \t]*)+)", text, re.MULTILINE)
        for word in line.split()
    }
    assert named <= TARGETS


def test_every_target_is_in_the_help_and_is_phony():
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {line.split()[0] for line in shown.splitlines() if line.startswith("  ")} == TARGETS
    assert set(re.findall(r"^\.PHONY: ([a-z0-9-]+)", MAKEFILE, re.MULTILINE)) == NAMED


def test_the_targets_of_the_checks_exist():
    (line,) = re.findall(r"run_checks\.py (.+)", MAKEFILE)
    assert set(line.split()) <= TARGETS


def run_in(folder, checks, monkeypatch, capsys, targets):
    """Runs the checks over a Makefile in a folder; returns the exit code and what was printed."""
    monkeypatch.chdir(folder)
    code = checks.main(targets)
    return code, capsys.readouterr().out


def test_checks_stop_at_the_first_failure_and_pass_its_code_on(tmp_path, checks, monkeypatch, capsys):
    (tmp_path / "Makefile").write_text(
        "good:\n\t@echo '== 3 passed, 1 skipped in 1.0s =='\n"
        "bad:\n\t@echo '== 2 failed, 5 passed in 2.0s =='; exit 7\n"
        "late:\n\t@touch ran\n"
    )
    code, printed = run_in(tmp_path, checks, monkeypatch, capsys, ["good", "bad", "late"])
    assert code != 0
    assert not (tmp_path / "ran").exists()
    assert printed.splitlines()[-1] == "8 passed, 2 failed, 1 skipped"
    assert re.search(r"^late +not run$", printed, re.MULTILINE)


@pytest.mark.parametrize(
    ("line", "code"), [("== 1 passed in 0.1s ==", 0), ("== no tests ran in 0.0s ==", 1), ("", 1)]
)
def test_checks_without_a_test_fail(tmp_path, checks, monkeypatch, capsys, line, code):
    (tmp_path / "Makefile").write_text(f"only:\n\t@echo '{line}'\n")
    assert run_in(tmp_path, checks, monkeypatch, capsys, ["only"])[0] == code


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ("======= 93 passed, 3 failed in 8.77s =======", {"passed": 93, "failed": 3}),
        ("=== 1 failed, 2 errors in 61.02s (0:01:01) ===", {"failed": 1, "error": 2}),
        ("12 passed, 1 xfailed in 0.50s", {"passed": 12, "xfailed": 1}),
    ],
)
def test_closing_lines_of_pytest_are_read(tmp_path, checks, monkeypatch, line, counts):
    (tmp_path / "Makefile").write_text(f"only:\n\t@echo '{line}'\n\t@echo 'a test passed in the middle'\n")
    monkeypatch.chdir(tmp_path)
    assert dict(checks.run_stage("only").counts) == counts
