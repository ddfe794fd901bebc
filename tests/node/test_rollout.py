"""What is edited while people ask: a new recipe, an image that does not exist. Every request is answered."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import installing
import pytest
from conftest import Place
from node_support import Object, conditions, is_true

pytestmark = [pytest.mark.node, pytest.mark.timeout(2400)]
NAME = "life"
READY_SECONDS = 900.0
STEADY = Path(__file__).with_name("steady.py").read_bytes()


@contextmanager
def asking(place: Place, url: str) -> Iterator[dict[str, Any]]:
    """Keep asking from within the cluster; afterwards the dictionary holds what came back."""
    place.kubectl.put("inputs", place.namespace, "/inputs", {"steady.py": STEADY})
    place.kubectl.run("exec", "-n", place.namespace, "inputs", "--", "rm", "-f", "/inputs/stop")
    words = ("exec", "-n", place.namespace, "inputs", "--", "python", "/inputs/steady.py", url, NAME)
    found: dict[str, Any] = {}
    with subprocess.Popen(
        place.kubectl.command(*words, "/inputs/stop", "1"), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield found
        finally:
            place.kubectl.run("exec", "-n", place.namespace, "inputs", "--", "touch", "/inputs/stop")
            text, _ = process.communicate(timeout=180)
        found.update(json.loads(text))
    print(f"\n{found}")


def pods(place: Place, part: str) -> dict[str, Object]:
    """Return the pods of the head, the large or the lean model, by name."""
    selector = f"leanmodel.io/name={NAME},leanmodel.io/part={part}"
    return {item["metadata"]["name"]: item for item in place.kubectl.list("pods", place.namespace, selector)}


@pytest.fixture(scope="module")
def life(place: Place, manifest: Callable[..., Object]) -> Iterator[Object]:
    """A LeanModel that is fully out; what a test leaves is the next one's beginning."""
    place.apply(manifest(NAME))
    place.wait(lambda: is_true(place.get(NAME), "Ready"), f"{NAME} is Ready", READY_SECONDS)
    found = place.get(NAME)
    assert found is not None
    yield found
    place.kubectl.run("delete", "lm", NAME, "-n", place.namespace, "--timeout=60s", timeout=90)


def test_a_new_recipe_comes_up_beside_the_old_one_and_no_request_fails(
    place: Place, life: Object, manifest: Callable[..., Object]
) -> None:
    heads, large = set(pods(place, "head")), set(pods(place, "large"))
    before = life["status"]["stableRevision"]["name"]

    def shorter(spec: Object) -> None:
        prune = {"type": "Prune", "method": "Depth", "keepLayers": 28, "selection": "First"}
        spec["lean"]["steps"] = [prune, *spec["lean"]["steps"]]

    with asking(place, life["status"]["url"]) as came_back:
        place.apply(manifest(NAME, shorter))
        place.wait(
            lambda: (place.get(NAME) or {}).get("status", {}).get("observedGeneration") == 2,
            "the edit is seen", 60,
        )  # fmt: skip
        place.wait(lambda: is_true(place.get(NAME), "Ready"), "the new recipe is out", READY_SECONDS)
    assert came_back["failed"] == []
    assert came_back["asked"] > 20
    after = (place.get(NAME) or {})["status"]["stableRevision"]["name"]
    assert after != before
    assert {before, after} & set(came_back["models"]), "the lean revisions took part"
    assert set(pods(place, "head")) == heads and set(pods(place, "large")) == large


def test_an_image_that_does_not_exist_is_told_and_the_old_one_answers(
    place: Place, life: Object, images: dict[str, str], manifest: Callable[..., Object]
) -> None:
    before = (place.get(NAME) or {})["status"]["stableRevision"]["name"]
    turn = ("set", "env", f"deployment/{installing.NAME}", "-n", installing.NAMESPACE)
    place.kubectl.run(*turn, "LEANMODEL_COMPRESSOR_IMAGE=leanmodel/no-such-image:1")
    rolled = ("rollout", "status", turn[2], "-n", installing.NAMESPACE, "--timeout=120s")
    place.kubectl.run(*rolled, timeout=150)

    def other(spec: Object) -> None:
        prune = {"type": "Prune", "method": "Depth", "keepLayers": 26, "selection": "First"}
        spec["lean"]["steps"] = [prune, *spec["lean"]["steps"]]

    try:
        with asking(place, life["status"]["url"]) as came_back:
            place.apply(manifest(NAME, other))
            place.wait(
                lambda: conditions(place.get(NAME)).get("Degraded", {}).get("reason") == "ImagePull",
                "the condition says so", 120,
            )  # fmt: skip
        assert came_back["failed"] == []
        found = place.get(NAME)
        assert "no-such-image" in conditions(found)["Degraded"]["message"]
        assert is_true(found, "Serving") and (found or {})["status"]["stableRevision"]["name"] == before
    finally:
        place.kubectl.run(*turn, f"LEANMODEL_COMPRESSOR_IMAGE={images['compressor']}")
        place.kubectl.run(*rolled, timeout=150)
    place.wait(lambda: is_true(place.get(NAME), "Ready"), "it goes on by itself", READY_SECONDS)
