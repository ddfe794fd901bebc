"""Whatever a LeanModel says, a turn of the loop ends with a status, and never in an error."""

from __future__ import annotations

import json
from functools import cache

from cluster_world import NOW, SETTINGS, World, manifest
from hypothesis import given, settings
from wild_manifests import manifests

from leanmodel_operator.cluster.accept import accept
from leanmodel_operator.cluster.compare import writes
from leanmodel_operator.cluster.observed import Facts, read
from leanmodel_operator.cluster.plan import plan


@cache
def serving() -> World:
    """A LeanModel that is Ready, before somebody edits it into what is drawn."""
    world = World(manifest())
    world.settle()
    return world


@settings(max_examples=2000, deadline=None)
@given(manifests())
def test_no_manifest_crashes_the_loop(drawn):
    world = serving()
    body = {**drawn, "metadata": {**world.body["metadata"], **drawn["metadata"], "generation": 2}}
    model, issues = accept(body)
    assert (model is None) == bool(issues)
    fresh = read(body, [], Facts(tokens=True))
    for seen, status in ((fresh, None), (world.seen(), world.body["status"])):
        shown = {**body, "status": status} if status else body
        decided = plan(shown, seen, SETTINGS, NOW)
        assert decided.status is not None and decided.status["observedGeneration"] == 2
        accepted = next(c for c in decided.status["conditions"] if c["type"] == "Accepted")
        assert (accepted["status"] == "True") == (model is not None)
        assert model is not None or (not decided.creates and not decided.applies and not decided.deletes)
        for write in writes(decided, shown, seen):
            json.dumps(write.body, allow_nan=False)
