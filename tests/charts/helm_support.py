"""helm for tests: with folders of its own, and its answers as objects."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
NAMESPACE = "leanmodel-system"
RELEASE = "leanmodel"
EVERYTHING: Object = {
    "replicas": 2,
    "commonLabels": {"team": "ml"},
    "podDisruptionBudget": {"enabled": True},
    "networkPolicy": {"enabled": True},
    "jobs": {"pullSecrets": ["jobs"]},
    "serving": {"pullSecrets": ["gpu"], "priorityClass": {"create": True}},
    "metrics": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}, "interval": "15s"},
        "podMonitor": {"enabled": True, "scrapeTimeout": "5s"},
        "prometheusRule": {"enabled": True, "alertLabels": {"team": "ml"}},
    },
    "dashboard": {"enabled": True, "annotations": {"grafana_folder": "Models"}},
}
"""Values that switch everything on."""


class HelmError(Exception):
    """helm said no; the text is its standard error."""


@dataclass(frozen=True)
class Helm:
    """The program, the chart that is meant where none is named, a folder for helm's own files, and a cluster."""

    program: Path
    chart: Path
    folder: Path
    kubeconfig: Path | None = None

    def on(self, kubeconfig: Path) -> Helm:
        """Return the same helm for a cluster."""
        return replace(self, kubeconfig=kubeconfig)

    def run(self, *words: str | Path, values: Object | None = None) -> str:
        """Run helm and return what it printed; the values go in as a file.

        Raises:
            HelmError: it failed.
        """
        variables = {
            name: value for name, value in os.environ.items() if not name.startswith(("HELM_", "KUBE"))
        }
        for part in ("CACHE", "CONFIG", "DATA"):
            variables[f"HELM_{part}_HOME"] = str(self.folder / part.lower())
        if self.kubeconfig is not None:
            variables["KUBECONFIG"] = str(self.kubeconfig)
        command = [str(self.program), *map(str, words)]
        given = None
        if values is not None:
            command += ["--values", "-"]
            given = json.dumps(values)
        done = subprocess.run(
            command, input=given or "", env=variables, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise HelmError(done.stderr)
        return done.stdout

    def template(self, values: Object | None = None, *words: str, chart: Path | None = None) -> list[Object]:
        """Return the objects that a release would have."""
        where = ("--namespace", NAMESPACE, *words)
        text = self.run("template", RELEASE, chart or self.chart, *where, values=values or {})
        return [found for found in yaml.safe_load_all(text) if found]


def one(objects: list[Object], kind: str, name: str | None = None) -> Object:
    """Return the one object of a kind, or of a kind and a name."""
    found = [o for o in objects if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    assert len(found) == 1, [(o["kind"], o["metadata"]["name"]) for o in objects]
    return found[0]


def container(objects: list[Object]) -> Object:
    """Return the operator's container."""
    (found,) = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    result: Object = found
    return result


def environment(objects: list[Object], pod: str = "leanmodel-operator-0") -> dict[str, str]:
    """Return the environment that the operator would find in a pod of that name."""
    fields = {"metadata.name": pod, "metadata.namespace": NAMESPACE}
    return {
        entry["name"]: entry["value"]
        if "value" in entry
        else fields[entry["valueFrom"]["fieldRef"]["fieldPath"]]
        for entry in container(objects)["env"]
    }
