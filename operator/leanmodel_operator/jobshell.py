"""``python -m leanmodel_operator.jobshell``: runs a Job's command in its pod and says how it ended.

The command's output goes through unchanged. When it ends, the pod's termination message (at most 4,096 bytes; the
kubelet cuts longer ones) gets one JSON object: the result itself where it fits compressed, else its digest, and the
result follows as one line of the log. The operator reads both through the API server: it mounts no store.
Signals are passed on; the exit code is the command's.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import signal
import subprocess
import sys
import zlib
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leanmodel_api.progress import PREFIX, parse

MESSAGE_LIMIT = 4096
RESULT_PREFIX = "leanmodel-result "
_KEPT_LINES = 40
_WORDS_LIMIT = 1500


def success(result: str) -> tuple[dict[str, Any], str]:
    """Return the termination message of a command that ended well, and the log line that carries the result."""
    packed = base64.b64encode(zlib.compress(result.encode(), 9)).decode()
    message: dict[str, Any] = {
        "ok": True, "sha256": hashlib.sha256(result.encode()).hexdigest(), "bytes": len(result.encode()),
    }  # fmt: skip
    if len(json.dumps(message | {"packed": packed})) <= MESSAGE_LIMIT:
        message["packed"] = packed
    return message, RESULT_PREFIX + packed


def failure(code: int, lines: Sequence[str], step: str) -> dict[str, Any]:
    """Return the termination message of a command that failed.

    Args:
        code: its exit code; negative for a signal.
        lines: its last lines on standard error.
        step: the step of its last progress line.
    """
    words = last_words(lines) or f"ended with exit code {code}"
    return {"ok": False, "exit": code, "step": step, "error": words[-_WORDS_LIMIT:]}


def unpack(packed: str, sha256: str) -> str:
    """Return a packed result.

    Raises:
        ValueError: it is damaged or not the one that the digest is of.
    """
    try:
        text = zlib.decompress(base64.b64decode(packed, validate=True)).decode()
    except (ValueError, zlib.error) as error:
        raise ValueError(f"the Job's result cannot be unpacked: {error}") from error
    if hashlib.sha256(text.encode()).hexdigest() != sha256:
        raise ValueError("the Job's result is not the one that its termination message names")
    return text


def last_words(lines: Sequence[str]) -> str:
    """Return a program's own last error, or its last line: what a user should read of a failure."""
    said: list[str] = []
    for line in reversed([line.rstrip() for line in lines if line.strip()]):
        if line.startswith("error: "):
            return "\n".join([line.removeprefix("error: "), *said])
        if line.startswith((PREFIX, "Traceback")):
            break
        said = [line, *said]
    return said[-1] if said else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command after ``--`` and write the termination message."""
    parser = argparse.ArgumentParser(prog="python -m leanmodel_operator.jobshell", description=__doc__)
    parser.add_argument(
        "--result", type=Path, required=True, help="file in which the command leaves its result"
    )
    parser.add_argument(
        "--message", type=Path, default=Path("/dev/termination-log"), help="file of the termination message"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- and the command")
    options = parser.parse_args(argv)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    code, lines, step = _run(command)
    if code == 0:
        message, line = success(options.result.read_text(encoding="utf-8"))
        if "packed" not in message:
            print(line, flush=True)
    else:
        message = failure(code, lines, step)
    options.message.write_text(json.dumps(message), encoding="utf-8")
    return code if code >= 0 else 128 - code


def _run(command: Sequence[str]) -> tuple[int, list[str], str]:
    """Run a command; return its exit code, its last lines, and the step of its last progress line."""
    kept: deque[str] = deque(maxlen=_KEPT_LINES)
    step = ""
    # One pipe for both streams keeps their order, as a pod's log would.
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as child:
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = [signal.signal(number, lambda got, _: child.send_signal(got)) for number in numbers]
        assert child.stdout is not None
        for line in child.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            said = parse(line.rstrip("\n"))
            if said is not None:
                step = said.step
            else:
                kept.append(line)
        code = child.wait()
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        return code, list(kept), step


if __name__ == "__main__":
    sys.exit(main())
