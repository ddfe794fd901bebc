"""A kubelet for KubeRay's pods, as kwok plays one, and who waits for its clusters: for ``benchmarks/scale.py``."""

from __future__ import annotations

import threading
import time

from kube_client import KubeClient, RefusedError
from simulator import RAY


def play_pods(api: KubeClient, stop: threading.Event) -> None:
    """Make KubeRay's pods Running and Ready, as a kubelet (or kwok) does."""
    selector = "ray.io/cluster"
    page = api.ask("GET", "/api/v1/pods", labelSelector=selector)
    for change, pod in api.watch("v1", "Pod", selector, page["metadata"]["resourceVersion"]):
        if stop.is_set():
            return
        if change != "ADDED":
            continue
        meta = pod["metadata"]
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        true = [
            {"type": kind, "status": "True", "lastTransitionTime": when}
            for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        ]
        running = [
            {
                "name": c["name"],
                "image": c["image"],
                "imageID": "x",
                "ready": True,
                "restartCount": 0,
                "state": {"running": {"startedAt": when}},
            }
            for c in pod["spec"]["containers"]
        ]
        status = {
            "phase": "Running",
            "podIP": "10.0.0.1",
            "podIPs": [{"ip": "10.0.0.1"}],
            "conditions": true,
            "containerStatuses": running,
        }
        try:
            api.merge(
                {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": meta["name"]}, "status": status},
                meta["namespace"],
                "status",
            )
        except RefusedError as error:
            if error.code not in (404, 409):
                raise


def follow_clusters(api: KubeClient, stop: threading.Event, ready: set[str]) -> None:
    """Note the names of the RayClusters that are ready."""
    page = api.ask("GET", api.path(RAY, "RayCluster"))
    for _, item in api.watch(RAY, "RayCluster", "", page["metadata"]["resourceVersion"]):
        if stop.is_set():
            return
        if item.get("status", {}).get("state") == "ready":
            ready.add(item["metadata"]["name"])
