"""pip as a child process: it knows the user's index, proxy and certificates already."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

_CREDENTIALS = re.compile(r"(\w+://)[^/\s@]+@")
_RAW_BAR = (24, 1)

# The child ends with its parent, also when that is killed: PR_SET_PDEATHSIG (prctl 1) with SIGTERM (15).
_CHILD = """
import os, runpy, sys
parent, extra = int(sys.argv[1]), sys.argv[2]
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, 15)
    if os.getppid() != parent:
        sys.exit(143)
if extra:
    sys.path.insert(0, extra)
sys.argv = ["pip", *sys.argv[3:]]
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""


class PipError(Exception):
    """pip did not do it; the message is the end of what it said, without credentials."""


def bundled() -> Path | None:
    """Return the wheel of pip that comes with Python, for environments without pip; None if stripped."""
    spec = importlib.util.find_spec("ensurepip")
    if spec is None or spec.origin is None:
        return None
    wheels = sorted(Path(spec.origin).parent.glob("_bundled/pip-*.whl"))
    return wheels[-1] if wheels else None


def _version(wheel: Path | None) -> tuple[int, ...]:
    text = wheel.name.split("-")[1] if wheel is not None else importlib.metadata.version("pip")
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])


def download(requirement: str, folder: Path, on_progress: Callable[[int, int], None]) -> Path:
    """Download the wheel of ``NAME==VERSION`` alone, without its requirements.

    Args:
        requirement: already checked to be no option and no address.
        folder: an empty folder for it.
        on_progress: told (bytes done, bytes in all) where pip says so.

    Returns:
        The wheel.

    Raises:
        PipError: pip is not there, or failed.
    """
    wheel = None if importlib.util.find_spec("pip") is not None else bundled()
    if wheel is None and importlib.util.find_spec("pip") is None:
        raise PipError("pip is not installed, and Python's own copy (ensurepip) was left out")
    arguments = ["download", "--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
    if _version(wheel) >= _RAW_BAR:
        arguments.append("--progress-bar=raw")
    arguments += ["--dest", os.fspath(folder), "--", requirement]
    # What pip needs on the way lands beside the wheel: the usual place for it may be a small disk.
    _run(arguments, os.fspath(wheel) if wheel is not None else "", folder, on_progress)
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise PipError(f"pip brought {len(wheels)} wheels instead of one")
    return wheels[0]


def _run(arguments: Sequence[str], extra: str, room: Path, on_progress: Callable[[int, int], None]) -> None:
    command = [sys.executable, "-P", "-c", _CHILD, str(os.getpid()), extra, *arguments]
    said: list[str] = []
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", env={**os.environ, "TMPDIR": os.fspath(room)},
    ) as child:  # fmt: skip
        try:
            assert child.stdout is not None
            for line in child.stdout:
                if match := re.match(r"Progress (\d+) of (\d+)", line):
                    on_progress(int(match[1]), int(match[2]))
                else:
                    said = [*said[-19:], line.rstrip()]
        except BaseException:
            child.terminate()
            raise
    if child.returncode != 0:
        raise PipError(explain(said) or f"pip ended with {child.returncode}")


def explain(said: Sequence[str]) -> str:
    """Return the lines of pip's output that tell what went wrong, credentials taken out."""
    errors = [line for line in said if line.startswith("ERROR:")] or list(said[-3:])
    return _CREDENTIALS.sub(r"\1****@", " ".join(line.removeprefix("ERROR: ") for line in errors))
