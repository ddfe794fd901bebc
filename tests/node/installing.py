"""Puts the operator into a cluster with the two charts, as a person does, and takes it out again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping

import pytest
from node_support import ROOT, Kubectl, Object

NAMESPACE = "leanmodel-system"
RELEASE = "leanmodel"
DEFINITIONS = "leanmodel-crds"
NAME = f"{RELEASE}-operator"


def install(kubectl: Kubectl, images: Mapping[str, str], settings: Object, policy: str) -> None:
    """Install definitions and operator, and wait until it leads.

    Args:
        images: references of operator, compressor and server.
        settings: the operator's own, as the chart's values name them.
        policy: of pulling all images.
    """
    into = ("--namespace", NAMESPACE, "--create-namespace")
    helm(
        kubectl,
        "upgrade",
        "--install",
        DEFINITIONS,
        str(ROOT / "charts" / DEFINITIONS),
        *into,
        values={"keep": False},
    )
    given = values(images, settings, policy)
    helm(kubectl, "upgrade", "--install", RELEASE, str(ROOT / "charts" / RELEASE), *into, values=given)
    kubectl.run("rollout", "status", f"deployment/{NAME}", "-n", NAMESPACE, "--timeout=180s", timeout=200)


def remove(kubectl: Kubectl) -> None:
    """Take out the operator and the definitions, and with these all LeanModels; the chart leaves its PriorityClass."""
    for release in (RELEASE, DEFINITIONS):
        helm(kubectl, "uninstall", release, "--namespace", NAMESPACE, "--ignore-not-found", "--wait")
    labels = f"app.kubernetes.io/instance={RELEASE}"
    kubectl.run("delete", "priorityclass", "-l", labels, "--timeout=60s")
    kubectl.run("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s", timeout=150)


def turn(kubectl: Kubectl, **variables: str) -> None:
    """Change environment variables of the operator that runs, and wait until one with these leads."""
    where = (f"deployment/{NAME}", "-n", NAMESPACE)
    kubectl.run("set", "env", *where, *(f"{name}={value}" for name, value in variables.items()))
    kubectl.run("rollout", "status", *where, "--timeout=120s", timeout=150)


def values(images: Mapping[str, str], settings: Object, policy: str) -> Object:
    """Return the chart's values."""
    return {
        "image": {**image(images["operator"]), "pullPolicy": policy},
        "images": {
            "pullPolicy": policy,
            "compressor": image(images["compressor"]),
            "prover": image(images["server"]),
            "server": image(images["server"]),
        },
        "settings": dict(settings),
        # Two cores hold everything.
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
    }


def image(reference: str) -> Object:
    """Return an image's values: repository with its registry, and tag or digest."""
    name, _, digest = reference.partition("@")
    if digest:
        return {"repository": name, "digest": digest}
    repository, _, tag = name.rpartition(":")
    return {"repository": repository, "tag": tag} if "/" not in tag and repository else {"repository": name}


def helm(kubectl: Kubectl, *words: str, values: Object | None = None) -> None:
    """Run helm against the cluster; what it says when it fails is the test's failure."""
    program = shutil.which("helm")
    if program is None:
        pytest.exit("helm is not on the PATH: install it (3.17 or newer)", 2)
    command = [program, *words, "--kubeconfig", str(kubectl.kubeconfig)]
    command += ["--values", "-"] if values is not None else []
    variables = {name: value for name, value in os.environ.items() if not name.startswith("HELM_")}
    done = subprocess.run(
        command,
        input=json.dumps(values or {}),
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode != 0:
        pytest.fail(f"helm {' '.join(words)}: {done.stderr.strip()}")
