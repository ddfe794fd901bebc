"""The operator as a process: ``python -m leanmodel_operator`` with flags, started again when it ends."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from cluster.servers import Server
from forked_operator import ForkedServer
from kube_client import until


def write_kubeconfig(path: Path, url: str, token: str = "") -> Path:
    """Writes a kubeconfig for a plain address; without a token the one who listens there knows who asks."""
    user = {"token": token} if token else {}
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1", "kind": "Config", "current-context": "x",
                "clusters": [{"name": "x", "cluster": {"server": url}}],
                "users": [{"name": "x", "user": user}],
                "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
            }
        ),
        encoding="utf-8",
    )  # fmt: skip
    return path


class Operator:
    """One replica."""

    def __init__(
        self, folder: Path, config: Path, *flags: str, identity: str = "one", forked: bool = False
    ) -> None:
        """Takes how to start it; ``folder`` gets its log. ``forked``: see forked_operator.py."""
        flags = ("--identity", identity, "--http-host", "127.0.0.1", "--http-port", "0", *flags)
        plain = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
        plain = {key: value for key, value in plain.items() if not key.startswith("LEANMODEL_")}
        self.log = folder / f"operator-{identity}.log"
        variables = {**plain, "KUBECONFIG": str(config)}
        command = [sys.executable, "-m", "leanmodel_operator", *flags]
        self._server: Server | ForkedServer = (
            ForkedServer(flags, self.log, variables)
            if forked
            else Server("operator", command, self.log, variables=variables)
        )
        self._lines = 0
        self.starts = 0

    def start(self) -> Operator:
        """Starts it; returns at once."""
        self._lines = len(self.lines())
        self._server.start()
        self.starts += 1
        return self

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._server.process is not None
        return self._server.process.pid

    def stop(self) -> int:
        """Asks it to end; its exit code."""
        self._server.stop()
        return self._code()

    def kill(self) -> None:
        """Ends it as a crash does."""
        self._server.kill()

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        assert self._server.process is not None
        self._server.process.send_signal(number)

    def wait(self, seconds: float) -> int:
        """Waits until it has ended; its exit code."""
        assert self._server.process is not None
        return self._server.process.wait(seconds)

    def ended(self) -> bool:
        """Says whether it runs no longer."""
        return self._server.process is None or self._server.process.poll() is not None

    def lines(self) -> list[dict[str, Any]]:
        """Returns what it has logged so far, all starts together."""
        if not self.log.exists():
            return []
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                found.append({"level": "ERROR", "message": line})
        return found

    def port(self) -> int:
        """Returns where it listens, once it does."""

        def said() -> int:
            for line in self.lines()[self._lines :]:
                if line["message"].startswith("listening on port"):
                    return int(line["message"].rsplit(" ", 1)[1])
            return 0

        return int(until(said, f"the operator listens; its log is {self.log}", 60))

    def metrics(self) -> dict[str, float]:
        """Returns its metrics."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port()}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return {k: float(v) for k, v in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}

    def leads(self) -> bool:
        """Says whether it leads."""
        try:
            return self.metrics().get("leanmodel_operator_leader") == 1
        except (urllib.error.URLError, OSError):
            return False

    def _code(self) -> int:
        assert self._server.process is not None
        code = self._server.process.returncode
        assert code is not None
        return code


class Keeper:
    """Starts an operator again whenever it ends, as the kubelet does, until it is closed."""

    def __init__(self, operator: Operator) -> None:
        """Starts it for the first time."""
        self.operator = operator.start()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        while not self._stop.wait(0.05):
            if self.operator.ended():
                self.operator.start()

    def close(self) -> None:
        """Lets it end for good."""
        self._stop.set()
        self._thread.join()
        self.operator.kill()


def errors(lines: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the lines of a log that a person should look at."""
    return [
        str(line.get("error") or line["message"]) for line in lines if line["level"] in ("ERROR", "CRITICAL")
    ]
