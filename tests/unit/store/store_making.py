"""Small but genuine files for the store's tests: weights with true headers, wheels with true RECORDs."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import struct
import sys
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path


def safetensors_bytes(values: Iterable[float] = (1.0, 2.0, 3.0), name: str = "model.weight") -> bytes:
    data = b"".join(struct.pack("<f", value) for value in values)
    header = {name: {"dtype": "F32", "shape": [len(data) // 4], "data_offsets": [0, len(data)]}}
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def gguf_bytes(payload: bytes = b"\x01" * 64) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + payload


def write_model(folder: Path, values: Iterable[float] = (1.0, 2.0, 3.0)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(safetensors_bytes(values))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    return folder


def record_row(name: str, data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(data)}\n"


def write_wheel(folder: Path, name: str, version: str, files: dict[str, bytes]) -> Path:
    """Build a wheel that pip accepts; ``files`` may replace any of the metadata, RECORD included."""
    info = f"{name}-{version}.dist-info"
    members = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **files,
    }
    record = f"{info}/RECORD"
    if record not in members:
        rows = "".join(record_row(member, data) for member, data in members.items())
        members[record] = f"{rows}{record},,\n".encode()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    return path


def forked(work: Callable[[], None], kill_at_event: int | None = None) -> int:
    """Run ``work`` in a child process; return its wait status.

    With ``kill_at_event`` the child sends itself SIGKILL just before its n-th file operation (as Python's audit
    events count them), so that a test can go through all of them.
    """
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    try:
        if kill_at_event is not None:
            seen = 0

            def hook(event: str, _: tuple[object, ...]) -> None:
                nonlocal seen
                if event == "open" or event.startswith(("os.", "shutil.", "fcntl.")):
                    seen += 1
                    if seen == kill_at_event:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(hook)
        work()
    except BaseException:
        os._exit(1)
    os._exit(0)
