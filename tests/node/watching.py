"""A Prometheus that scrapes everything of ours for as long as the tests run, in whichever cluster they run.

It reaches pods through the API server (`kubectl proxy`), as a person without a route to the pods' network does. Which
pods there are changes all the time: they are listed every few seconds and handed over in a file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from installing import RELEASE
from node_support import ROOT, Kubectl, KubectlError, Object

sys.path.insert(0, str(ROOT / "tools"))

from chart_files import places  # noqa: E402
from cluster.prometheus import Prometheus, Sample  # noqa: E402
from cluster.servers import Server, free_ports  # noqa: E402

LIST_SECONDS = 5.0
STEP_SECONDS = 15
OPERATOR = f"app.kubernetes.io/instance={RELEASE}"
SERVING = "app.kubernetes.io/managed-by=leanmodel,app.kubernetes.io/component=serving"


class Watching:
    """The Prometheus, and what keeps its list of pods up to date."""

    def __init__(self, kubectl: Kubectl, folder: Path) -> None:
        """Write the configuration; start nothing yet."""
        self._kubectl, self._targets = kubectl, folder / "targets.json"
        (port,) = free_ports(1)
        self._address = f"127.0.0.1:{port}"
        self._proxy = Server(
            "kubectl proxy", kubectl.command("proxy", f"--port={port}"), folder / "kubectl-proxy.log"
        )
        self._targets.write_text("[]")
        job = {
            "job_name": "leanmodel",
            "file_sd_configs": [{"files": [str(self._targets)], "refresh_interval": "5s"}],
        }
        every = {"scrape_interval": "5s", "scrape_timeout": "5s", "evaluation_interval": "15s"}
        config = {"global": every, "scrape_configs": [job], "rule_files": [str(places.RULES)]}
        self.prometheus = Prometheus(folder, config)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self.began = time.time()

    def start(self) -> None:
        """Start both, and the following of pods."""
        self._proxy.start()
        self.prometheus.start()
        self._thread.start()

    def stop(self) -> None:
        """End all three."""
        self._stop.set()
        self._thread.join()
        self.prometheus.stop()
        self._proxy.stop()

    def over_the_run(self, text: str) -> list[Sample]:
        """Return what a query gave at any time of the run, numbers alone."""
        found = self.prometheus.over(text, self.began, time.time(), STEP_SECONDS)
        return [sample for sample in found if sample.is_number]

    def _follow(self) -> None:
        while not self._stop.wait(LIST_SECONDS):
            try:
                found = [self._target(pod, port) for pod, port in self._pods()]
            except (KubectlError, subprocess.TimeoutExpired):  # asked again soon; the old list stands
                continue
            fresh = self._targets.with_suffix(".new")
            fresh.write_text(json.dumps(found))
            os.replace(fresh, self._targets)

    def _pods(self) -> list[tuple[Object, int]]:
        found = []
        for selector in (OPERATOR, SERVING):
            text = self._kubectl.run("get", "pods", "-A", "-o", "json", "-l", selector)
            for pod in json.loads(text)["items"]:
                ports = [p for c in pod["spec"]["containers"] for p in c.get("ports", ())]
                found += [(pod, p["containerPort"]) for p in ports if p.get("name") == "metrics"]
        return [(pod, port) for pod, port in found if pod["status"].get("phase") == "Running"]

    def _target(self, pod: Object, port: int) -> Object:
        """Return a target with the labels that the chart's monitors give."""
        meta = pod["metadata"]
        labels = meta.get("labels", {})
        where = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}:{port}/proxy/metrics"
        named = {"namespace": meta["namespace"], "pod": meta["name"], "instance": f"{meta['name']}:{port}"}
        if "leanmodel.io/name" in labels:
            named |= {"leanmodel": labels["leanmodel.io/name"], "part": labels.get("leanmodel.io/part", "")}
        return {"targets": [self._address], "labels": named | {"__metrics_path__": where}}
