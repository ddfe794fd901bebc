"""Set-up: it does nothing twice, begins anew when it must, and says what is wrong before it fetches."""

import importlib.util
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from house import ROOT

FINDER = ROOT / "tools" / "find_python.sh"


@pytest.fixture
def setup(tmp_path, monkeypatch) -> ModuleType:
    """tools/setup.py over a checkout of its own."""
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "requirements", checkout / "requirements")
    shutil.copytree(ROOT / "tools", checkout / "tools")
    shutil.copy(ROOT / "pyproject.toml", checkout)
    spec = importlib.util.spec_from_file_location("leanmodel_setup", checkout / "tools" / "setup.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "leanmodel_setup", module)
    spec.loader.exec_module(module)
    monkeypatch.setenv("LEANMODEL_CACHE", str(tmp_path / "cache"))
    return module


def finish(setup: ModuleType, environment) -> None:
    """Leaves an environment as a finished set-up does."""
    (environment.folder / "bin").mkdir(parents=True)
    (environment.folder / "bin" / "leanmodel").touch()
    (environment.folder / setup.STAMP).write_text(setup.fingerprint(environment))


def test_a_finished_set_up_is_current_until_its_inputs_change(setup):
    serving, compression = setup.ENVIRONMENTS
    assert not setup.is_current(serving)
    finish(setup, serving)
    finish(setup, compression)
    assert setup.is_current(serving) and setup.is_current(compression)
    with serving.lock.open("a") as lock:
        lock.write("# a change\n")
    assert not setup.is_current(serving)
    assert setup.is_current(compression)


def add_to(path: Path, old: str, new: str) -> None:
    """Puts `new` in front of the first `old` in a file."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new + old, 1))


@pytest.mark.parametrize(
    ("changed", "old", "new"),
    [
        ("pyproject.toml", '"pydantic>=', '"attrs", '),
        ("pyproject.toml", '"store", "routing"', '"more", '),
        ("requirements/installer.lock", "uv==", "# a change\n"),
        ("tools/setup.py", "import hashlib", "# a change\n"),
    ],
)
def test_what_belongs_to_both_makes_both_stale(setup, changed, old, new):
    for environment in setup.ENVIRONMENTS:
        finish(setup, environment)
    add_to(setup.ROOT / changed, old, new)
    assert not any(map(setup.is_current, setup.ENVIRONMENTS))


def test_a_lint_rule_makes_nothing_stale(setup):
    for environment in setup.ENVIRONMENTS:
        finish(setup, environment)
    add_to(setup.ROOT / "pyproject.toml", '"SIM"', '"RET", ')
    assert all(map(setup.is_current, setup.ENVIRONMENTS))


def test_a_moved_checkout_is_not_current(setup, tmp_path):
    serving = setup.ENVIRONMENTS[0]
    finish(setup, serving)
    moved = setup.Environment(tmp_path / "moved", serving.lock, "", "", "")
    shutil.move(serving.folder, moved.folder)
    assert not setup.is_current(moved)


def test_nothing_runs_when_all_is_current(setup, monkeypatch):
    for environment in setup.ENVIRONMENTS:
        finish(setup, environment)
    monkeypatch.setattr(setup, "set_up", lambda stale: pytest.fail(f"set up {stale}"))
    monkeypatch.setattr(sys, "argv", ["setup.py"])
    setup.main()


def record_commands(setup: ModuleType, monkeypatch) -> list[str]:
    """Lets `build` run no command; returns the list that its commands are put on."""
    commands: list[str] = []

    def run(command, failure, variables=None):
        commands.append(" ".join(command))
        if "venv" in command:
            (Path(command[-1]) / "bin").mkdir(parents=True)
            (Path(command[-1]) / "bin" / "python").symlink_to(setup.base_python())

    monkeypatch.setattr(setup, "run", run)
    return commands


def test_an_interrupted_environment_is_made_anew(setup, monkeypatch, tmp_path):
    commands = record_commands(setup, monkeypatch)
    environment = setup.ENVIRONMENTS[0]
    (tmp_path / "cache").mkdir()
    setup.build(environment, Path("uv"), tmp_path / "cache")
    (environment.folder / "half-written").touch()
    assert (environment.folder / setup.UNFINISHED).exists()
    setup.build(environment, Path("uv"), tmp_path / "cache")
    assert not (environment.folder / "half-written").exists()
    assert sum(" venv " in command for command in commands) == 2


def test_a_finished_environment_is_kept_and_only_synced(setup, monkeypatch, tmp_path):
    commands = record_commands(setup, monkeypatch)
    environment = setup.ENVIRONMENTS[0]
    (tmp_path / "cache").mkdir()
    setup.build(environment, Path("uv"), tmp_path / "cache")
    (environment.folder / setup.UNFINISHED).unlink()
    (environment.folder / "kept").touch()
    setup.build(environment, Path("uv"), tmp_path / "cache")
    assert (environment.folder / "kept").exists()
    assert sum(" venv " in command for command in commands) == 1
    assert sum(" pip sync " in command and "--require-hashes" in command for command in commands) == 2


def test_an_environment_that_does_not_import_gets_no_stamp(setup, capsys):
    environment = setup.ENVIRONMENTS[0]
    (environment.folder / "bin").mkdir(parents=True)
    (environment.folder / "bin" / "python").symlink_to(sys.executable)
    (environment.folder / setup.UNFINISHED).touch()
    broken = setup.Environment(environment.folder, environment.lock, "", "import no_such_module", "")
    with pytest.raises(SystemExit):
        setup.prove(broken)
    assert "no_such_module" in capsys.readouterr().err
    assert not (environment.folder / setup.STAMP).exists()
    assert (environment.folder / setup.UNFINISHED).exists()


def test_missing_libnuma_is_told_with_its_remedy(setup, monkeypatch, capsys):
    monkeypatch.setattr(setup, "has_numa", lambda: False)
    monkeypatch.setattr(setup.os, "geteuid", lambda: 1000)
    with pytest.raises(SystemExit) as ended:
        setup.check_numa()
    assert ended.value.code == 1
    message = capsys.readouterr().err
    assert "libnuma.so.1" in message and "apt-get install libnuma1" in message


def test_a_full_disk_is_told_before_anything_is_fetched(setup, monkeypatch, capsys):
    usage = shutil.disk_usage(setup.ROOT)
    monkeypatch.setattr(setup.shutil, "disk_usage", lambda path: usage._replace(free=2**30))
    monkeypatch.setattr(setup, "bootstrap_uv", lambda cache: pytest.fail("fetched"))
    with pytest.raises(SystemExit):
        setup.set_up(list(setup.ENVIRONMENTS))
    assert "1.0 GiB are free" in capsys.readouterr().err


def test_the_cache_follows_the_users_wish(setup, monkeypatch, tmp_path):
    assert setup.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("LEANMODEL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert setup.cache_folder() == tmp_path / "xdg" / "leanmodel"


def test_other_environments_do_not_lead_it_astray(setup, monkeypatch, tmp_path):
    for name in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME"):
        monkeypatch.setenv(name, "elsewhere")
    monkeypatch.setenv("PIP_CERT", "trusted.pem")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    settings = setup.uv_settings(tmp_path)
    assert not {"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME"} & set(settings)
    assert settings["SSL_CERT_FILE"] == "trusted.pem"
    assert settings["UV_CACHE_DIR"] == str(tmp_path / "uv")


# --------------------------------------------------------------------------------- which Python


def find(path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs the finder with nothing but the programs in a folder and the shell's own."""
    environment = {"PATH": str(path), "HOME": str(path), **variables}
    command = [shutil.which("sh"), str(FINDER)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def program(folder: Path, name: str, body: str) -> None:
    """Writes a shell script that stands for a program."""
    path = folder / name
    path.write_text(f"#!{shutil.which('sh')}\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def programs(tmp_path) -> Path:
    """A folder of programs with a `uname` of the right platform."""
    program(tmp_path, "uname", "case $1 in -s) echo Linux;; -m) echo x86_64;; esac")
    return tmp_path


def test_a_broken_shim_is_passed_over(programs):
    program(programs, "python3.11", "echo 'pyenv: python3.11: command not found' >&2; exit 127")
    program(programs, "python3", f'exec {sys.executable} "$@"')
    result = find(programs)
    assert result.returncode == 0, result.stderr
    assert os.path.realpath(result.stdout.strip()) == os.path.realpath(sys.executable)


def test_a_python_of_another_version_is_told(programs):
    program(programs, "python3.13", 'case "$2" in *sys.exit*) exit 1;; *) echo CPython 3.13.1;; esac')
    result = find(programs, PYTHON="python3.13")
    assert result.returncode == 1
    assert "python3.13: CPython 3.13.1" in result.stderr
    assert "make setup PYTHON=" in result.stderr


@pytest.mark.parametrize("name", ["Darwin/arm64", "Linux/aarch64"])
def test_another_platform_is_told(programs, name):
    system, machine = name.split("/")
    program(programs, "uname", f"case $1 in -s) echo {system};; -m) echo {machine};; esac")
    result = find(programs)
    assert result.returncode == 1
    assert f"Linux x86_64; this is {name}" in result.stderr
