"""Debian's Prometheus as a server of a test: what it scrapes is real, and so is what its queries return."""

from __future__ import annotations

import json
import math
import shutil
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import machine
from .servers import Server, free_ports
from .words import ClusterError

PACKAGES = {"prometheus": "prometheus", "promtool": "prometheus"}
READY_SECONDS = 30.0


@dataclass(frozen=True)
class Sample:
    """One series of an answer, with its value now."""

    labels: dict[str, str]
    value: float

    @property
    def is_number(self) -> bool:
        """Whether there is a value: a quantile of nothing, or nothing divided by nothing, is none."""
        return not math.isnan(self.value)


def program(name: str) -> Path:
    """Returns `prometheus` or `promtool`; installs the package where that may be done unasked.

    Raises ClusterError, with the package's name, when there is none.
    """
    machine.need_packages(PACKAGES)
    found = shutil.which(name, path=machine.SYSTEM_PATH)
    if found is None:
        raise ClusterError(f"there is no {name}", "install Debian's package prometheus")
    return Path(found)


class Prometheus:
    """A Prometheus that ends with this process, with a folder and a port of its own."""

    def __init__(self, folder: Path, config: Any) -> None:
        """Writes the configuration (as prometheus.yml has it); starts nothing yet."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "prometheus.yml").write_text(json.dumps(config, indent=1))
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self.server = Server(
            "prometheus",
            [
                program("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
            ],
            folder / "prometheus.log",
        )
        # Proxies of the environment are for the world outside.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def start(self) -> None:
        """Starts it, and returns when it answers."""
        self.server.start()
        self.server.wait_until(self._is_ready, READY_SECONDS)

    def stop(self) -> None:
        """Ends it."""
        self.server.stop()

    def query(self, text: str) -> list[Sample]:
        """Returns what a query gives now; raises ClusterError when Prometheus refuses it."""
        found = self._ask("/api/v1/query", query=text)
        if found["resultType"] == "scalar":
            return [Sample({}, float(found["result"][1]))]
        return [Sample(entry["metric"], float(entry["value"][1])) for entry in found["result"]]

    def over(self, text: str, start: float, end: float, step: int) -> list[Sample]:
        """Returns what a query gave at each step of a time (seconds since the epoch), as a panel shows it."""
        found = self._ask("/api/v1/query_range", query=text, start=str(start), end=str(end), step=str(step))
        return [
            Sample(entry["metric"], float(value)) for entry in found["result"] for _, value in entry["values"]
        ]

    def targets(self) -> list[dict[str, Any]]:
        """Returns the targets that are scraped now, as Prometheus describes them."""
        active: list[dict[str, Any]] = self._ask("/api/v1/targets", state="active")["activeTargets"]
        return active

    def rules(self) -> list[dict[str, Any]]:
        """Returns the rules that are loaded, as Prometheus describes them."""
        groups = self._ask("/api/v1/rules")["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def _is_ready(self) -> bool:
        try:
            with self._opener.open(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _ask(self, path: str, **options: str) -> Any:
        address = f"{self.url}{path}?{urllib.parse.urlencode(options)}"
        try:
            with self._opener.open(address, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            told = error.read().decode(errors="replace")[:1000]
            raise ClusterError(f"Prometheus refuses {options}: {told}", "see above") from None
