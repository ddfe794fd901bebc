"""What is edited while people ask: recipes that come, go back and fail in every way. Every request is answered."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import installing
import pytest
from asking import asking, pods
from conftest import Place
from node_support import Object, conditions, is_true

pytestmark = [pytest.mark.node, pytest.mark.timeout(3600)]
NAME = "life"
READY_SECONDS = 900.0


@pytest.fixture(scope="module")
def life(place: Place, manifest: Callable[..., Object]) -> Iterator[Object]:
    """A LeanModel that is fully out; what a test leaves is the next one's beginning."""
    place.apply(manifest(NAME))
    place.wait(lambda: is_true(place.get(NAME), "Ready"), f"{NAME} is Ready", READY_SECONDS)
    found = place.get(NAME)
    assert found is not None
    yield found
    place.kubectl.run("delete", "lm", NAME, "-n", place.namespace, "--timeout=60s", timeout=90)


def shorter(layers: int, **fields: Any) -> Callable[[Object], None]:
    """Return the edit that cuts the lean model to so many layers first, and sets these parts of the spec."""

    def edit(spec: Object) -> None:
        prune = {"type": "Prune", "method": "Depth", "keepLayers": layers, "selection": "First"}
        spec["lean"]["steps"] = [prune, *spec["lean"]["steps"]]
        for dotted, value in fields.items():
            *path, last = dotted.split("__")
            part = spec
            for key in path:
                part = part.setdefault(key, {})
            part[last] = value

    return edit


def stable(place: Place) -> str:
    """Return the lean revision that gets requests."""
    return str((place.get(NAME) or {})["status"]["stableRevision"]["name"])


def applied(place: Place) -> Object:
    """Return the manifest that was applied last."""
    annotations = (place.get(NAME) or {})["metadata"]["annotations"]
    document: Object = json.loads(annotations["kubectl.kubernetes.io/last-applied-configuration"])
    return document


def edited(place: Place, document: Object) -> None:
    """Apply an edit, and wait until the operator has seen it."""
    before = (place.get(NAME) or {})["metadata"]["generation"]
    place.apply(document)
    place.wait(
        lambda: (place.get(NAME) or {}).get("status", {}).get("observedGeneration", 0) > before,
        "the edit is seen", 60,
    )  # fmt: skip


def again(place: Place, document: Object) -> None:
    """Apply what is out already, and wait until all is as declared."""
    edited(place, document)
    place.wait(lambda: is_true(place.get(NAME), "Ready"), "it is as declared again", READY_SECONDS)


def degraded(place: Place, reasons: set[str], seconds: float) -> str:
    """Wait until the LeanModel is Degraded for one of these reasons; return the message."""

    def found() -> Object | None:
        condition = conditions(place.get(NAME)).get("Degraded", {})
        return condition if condition.get("status") == "True" and condition["reason"] in reasons else None

    condition = place.wait(found, f"it is Degraded: {' or '.join(sorted(reasons))}", seconds)
    print(f"\n{condition['reason']}: {condition['message']}")
    return str(condition["message"])


def test_a_new_recipe_comes_up_beside_the_old_one_and_no_request_fails(
    place: Place, life: Object, manifest: Callable[..., Object]
) -> None:
    heads, large = set(pods(place, NAME, "head")), set(pods(place, NAME, "large"))
    before = stable(place)
    with asking(place, life["status"]["url"], NAME) as came_back:
        again(place, manifest(NAME, shorter(28)))
    assert came_back["failed"] == []
    assert came_back["asked"] > 20
    after = stable(place)
    assert after != before
    assert {before, after} & set(came_back["models"]), "the lean revisions took part"
    assert set(pods(place, NAME, "head")) == heads and set(pods(place, NAME, "large")) == large


def test_back_to_the_first_recipe_in_the_middle_of_a_rollout(
    place: Place, life: Object, manifest: Callable[..., Object]
) -> None:
    now, first = stable(place), applied(place)
    # An earlier revision's pod that is still idling would take the next one in, and no other pod come up.
    place.wait(lambda: len(pods(place, NAME, "lean")) == 1, "one lean pod is left", READY_SECONDS)
    lean = {name: pod["metadata"]["uid"] for name, pod in pods(place, NAME, "lean").items()}
    with asking(place, life["status"]["url"], NAME) as came_back:
        edited(place, manifest(NAME, shorter(27)))
        place.wait(
            lambda: set(pods(place, NAME, "lean")) - set(lean),
            "the other recipe's pod comes up",
            READY_SECONDS,
        )
        jobs = {job["metadata"]["name"] for job in place.kubectl.list("jobs", place.namespace)}
        again(place, first)
    assert came_back["failed"] == [] and stable(place) == now
    assert {job["metadata"]["name"] for job in place.kubectl.list("jobs", place.namespace)} <= jobs
    kept = {name: pod["metadata"]["uid"] for name, pod in pods(place, NAME, "lean").items()}
    assert lean.items() <= kept.items(), "its own pod was never touched"


FAILURES: dict[str, tuple[dict[str, Any], set[str], list[str]]] = {
    # Ten of thirty layers answer otherwise than the large model.
    "gate": ({"keep": 10}, {"GateFailed"}, ["LeanQualityRetained"]),
    "compression": (
        {"keep": 26, "jobs__compress__memory": "400Mi"},
        {"OutOfMemory", "Refused", "BadInput"},
        ["compress-lean", "spec.jobs.compress.memory"],
    ),
    "start": ({"keep": 25, "serving__lean__kvCache": "1Mi"}, {"StartFailed"}, ["did not start", "kvCache"]),
}


@pytest.mark.parametrize("what", FAILURES)
def test_a_recipe_that_fails_leaves_the_old_one_serving(
    what: str, place: Place, life: Object, manifest: Callable[..., Object]
) -> None:
    fields, reasons, words = FAILURES[what]
    fields = dict(fields)
    before, first = stable(place), applied(place)
    bad = manifest(NAME, shorter(fields.pop("keep"), **fields))
    bad["spec"]["evaluation"]["gates"].append({"metric": "LeanQualityRetained", "min": "0.4"})
    with asking(place, life["status"]["url"], NAME) as came_back:
        place.apply(bad)
        message = degraded(place, reasons, READY_SECONDS)
    assert came_back["failed"] == []
    assert all(word in message for word in words), message
    found = place.get(NAME)
    assert is_true(found, "Serving") and stable(place) == before
    assert not is_true(found, "Ready")
    again(place, first)
    assert stable(place) == before


def test_an_image_that_does_not_exist_is_told_and_the_old_one_answers(
    place: Place, life: Object, images: dict[str, str], manifest: Callable[..., Object]
) -> None:
    before = stable(place)
    installing.turn(place.kubectl, LEANMODEL_COMPRESSOR_IMAGE="leanmodel/no-such-image:1")
    try:
        with asking(place, life["status"]["url"], NAME) as came_back:
            place.apply(manifest(NAME, shorter(24)))
            message = degraded(place, {"ImagePull"}, 120)
        assert came_back["failed"] == []
        assert "no-such-image" in message
        assert is_true(place.get(NAME), "Serving") and stable(place) == before
    finally:
        installing.turn(place.kubectl, LEANMODEL_COMPRESSOR_IMAGE=images["compressor"])
    place.wait(lambda: is_true(place.get(NAME), "Ready"), "it goes on by itself", READY_SECONDS)
