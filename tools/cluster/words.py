"""What the package says to people, and the one error that ends a command."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


class ClusterError(Exception):
    """Something that a person has to put right: what was found, and what to do about it."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(f"{found}\n  {remedy}")
        self.found = found
        self.remedy = remedy


class DiskError(ClusterError):
    """There is too little room on a disk."""


def say(message: str) -> None:
    """Prints one line for people, on standard error: standard output belongs to answers."""
    print(f"cluster: {message}", file=sys.stderr, flush=True)


def run(
    command: Sequence[str | Path],
    *,
    remedy: str,
    variables: Mapping[str, str] | None = None,
    folder: Path | None = None,
    given: str | None = None,
) -> str:
    """Runs a command to its end and returns what it wrote to standard output.

    Raises ClusterError with the last lines of its standard error when it fails, or is not there at all.
    """
    words = [str(word) for word in command]
    try:
        result = subprocess.run(
            words,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            env=None if variables is None else dict(variables),
            cwd=folder,
            input=given or "",
        )
    except FileNotFoundError as error:
        raise ClusterError(f"{words[0]} is not on this machine ({error.strerror})", remedy) from None
    if result.returncode != 0:
        tail = "\n".join(result.stderr.strip().splitlines()[-15:])
        raise ClusterError(f"`{shlex.join(words)[:300]}` ended with {result.returncode}:\n{tail}", remedy)
    return result.stdout
