"""A search in a cluster: it stands in the compress Job's plan, and what it could not find is said in a condition."""

from __future__ import annotations

import json

import pytest
import yaml
from cluster_world import QUICKSTART, World, manifest

WORDS = "spec.lean.search: none of 8 candidates within 54.2 MB keeps 0.97; raise the budget"


def world(failing: str = "") -> World:
    body = manifest()
    body["spec"] = yaml.safe_load((QUICKSTART.parent / "search.yaml").read_text())["spec"]
    made = World(body)
    if failing:
        made.failing[failing] = (2, f"error: {WORDS}")
    made.settle()
    return made


# Where a Job fails its plan still lies there: what the large one's checks before its work, what the lean one's does.
@pytest.mark.parametrize(
    ("stage", "file"), [("compress-large", "check.json"), ("compress-lean", "plan.json")]
)
def test_the_large_job_checks_the_search_and_the_lean_one_does_it(stage: str, file: str) -> None:
    found = world(stage)
    told = found.condition("Compressed")
    assert told["status"] == "False" and WORDS in told["message"]
    (data,) = [
        item["data"]
        for (kind, name), item in found.objects.items()
        if kind == "ConfigMap" and name == next(name for kind, name in found.objects if kind == "Job")
    ]
    plan = json.loads(data[file])
    assert plan["role"] == "Lean" and plan["steps"] == [] and plan["search"]["budget"] == {"sizeRatio": "0.6"}
    assert ("base" in plan) == (file == "plan.json")


def test_what_is_found_is_proven_and_served() -> None:
    assert world().condition("Ready")["status"] == "True"
