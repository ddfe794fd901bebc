"""Environments of programs that are measured or asked, but are no part of the product: in the cache, one per lock."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tools"))

import setup as tools  # noqa: E402


def environment(lock: Path, what: str) -> Path:
    """Return the Python of a lock file's environment; made once per content of the file.

    Args:
        lock: a lock file with hashes.
        what: its folder in the cache, and its name in messages.
    """
    cache = tools.cache_folder()
    folder: Path = cache / what / hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    python = folder / "bin" / "python"
    if (folder / tools.STAMP).exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    uv, settings = str(tools.bootstrap_uv(cache)), tools.uv_settings(cache)
    make = [uv, "venv", "--quiet", "--no-project", "--python", tools.base_python(), str(folder)]
    tools.run(make, f"the environment of the {what} could not be made", settings)
    sync = [uv, "pip", "sync", "--quiet", "--require-hashes", "--only-binary", ":all:"]
    sync += ["--python", str(python), str(lock)]
    tools.run(sync, f"the {what} could not be installed", settings)
    (folder / tools.STAMP).touch()
    return python


def version(python: Path, distribution: str) -> str:
    """Return which version an environment has."""
    ask = f"from importlib.metadata import version; print(version({distribution!r}))"
    return subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
