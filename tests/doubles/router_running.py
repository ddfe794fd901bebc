"""The real router in a process of its own before an engine double: what clients, Schemathesis and fuzzers ask."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine_double import engine
from ledger_run import START_S, free_port

from leanmodel_api.keys import SUFFIX, KeyLimits, issue
from leanmodel_api.router import Backend, RouterSettings
from leanmodel_api.serving import Price

MODEL_NAME = "m"
PRICE = Price(input_usd_per_million_tokens="0.3", output_usd_per_million_tokens="1.2")


@dataclass
class Running:
    """A router that is up.

    Attributes:
        url: its address.
        key: an API key that it takes; empty where it asks for none.
        process: its process.
        log: what it has logged so far.
    """

    url: str
    key: str
    process: subprocess.Popen[bytes]
    log: Path

    def resident(self) -> int:
        """Return the bytes of its memory that are in RAM."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0]) * 1024


@contextmanager
def running(folder: Path, **changes: Any) -> Iterator[Running]:
    """A router with keys before two engines that answer alike; ``changes`` are further settings."""
    key, entry = issue("team-a", KeyLimits(), "2026-11-22T00:00:00+00:00")
    (folder / "keys").mkdir()
    (folder / "keys" / f"{entry.id}{SUFFIX}").write_text(entry.to_json())
    with engine() as address:
        large, lean = (Backend(revision=name, url=address, price=PRICE) for name in ("large", "lean"))
        settings = RouterSettings(
            model=MODEL_NAME, large=large, lean=lean, **{"access": "Keys", "strategy": "AllLarge", **changes}
        )
        (folder / "router.json").write_text(settings.to_json())
        with ran(folder) as router:
            yield replace(router, key=key)


@contextmanager
def ran(folder: Path) -> Iterator[Running]:
    """A router on a folder that has its settings."""
    port, log = free_port(), folder / "router.log"
    script = Path(__file__).with_name("router_process.py")
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, str(script), str(folder), str(port)], stdout=out, stderr=out
        )
    try:
        _up(f"http://127.0.0.1:{port}", process, log)
        yield Running(f"http://127.0.0.1:{port}", "", process, log)
    finally:
        process.terminate()
        process.wait(30)


def _up(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=5):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
