"""What of a store is needed, when the rest is swept, and that nothing that is needed ever is."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cluster_world import SETTINGS, World, manifest
from hypothesis import given
from hypothesis import strategies as st

from leanmodel_operator.cluster.sweep import Needs, Step, needs, steps, together

PLACE = ("ml", "claim", "folder")
OWNER = {"kind": "PersistentVolumeClaim", "name": "claim", "uid": "u"}
T0 = datetime(2026, 1, 1, tzinfo=UTC)
GRACE = timedelta(seconds=SETTINGS.sweep_grace_seconds)
OTHER_STEPS = [{"type": "Quantize", "scheme": "W8A8", "algorithm": "RTN"}]


class Store:
    """One store: its objects in the API, and the artifacts in it with the time each was last made or used."""

    def __init__(self) -> None:
        self.book: dict[str, Any] | None = None
        self.job: dict[str, Any] | None = None
        self.present: dict[str, datetime] = {}
        self.needed: frozenset[str] = frozenset()
        self.now = T0
        self.swept = 0

    def look(self, wanted: Needs) -> list[Step]:
        self.now += timedelta(seconds=1)
        for digest in wanted.artifacts - self.needed:  # a Job has made it, or found it and used it
            self.present[digest] = self.now
        self.needed = wanted.artifacts
        mine = [item for item in (self.book, self.job) if item is not None]
        todo = steps(PLACE, wanted, OWNER, mine, SETTINGS, self.now)
        for step in todo:
            if step.verb == "note":
                self.book = copy.deepcopy(step.body)
            elif step.verb == "sweep":
                assert self.job is None and not wanted.busy
                self.job = copy.deepcopy(step.body)
            else:
                self.job = None
        return todo

    def play(self, ends: str = "Complete") -> None:
        if self.job is None or "status" in self.job:
            return
        if ends == "Complete":
            command = self.job["spec"]["template"]["spec"]["containers"][0]["command"]
            kept = set(command[command.index("--keep") + 1 : command.index("--keep-reports")])
            before = datetime.fromisoformat(command[command.index("--before") + 1])
            self.present = {d: at for d, at in self.present.items() if d in kept or at >= before}
            self.swept += 1
        self.job["status"] = {"conditions": [{"type": ends, "status": "True", "message": "why"}]}


def sha(number: int) -> str:
    return f"sha256:{number:064x}"


def wanted(*numbers: int, busy: bool = False) -> Needs:
    return Needs(frozenset(map(sha, numbers)), frozenset(), busy)


def test_a_store_that_only_grows_is_never_swept():
    store = Store()
    for top in range(5):
        store.look(wanted(*range(top)))
        assert store.look(wanted(*range(top))) == [], "nothing is written twice"
        store.now += GRACE
    assert store.job is None


def test_what_is_needed_no_longer_goes_after_the_grace():
    store = Store()
    store.look(wanted(1, 2))
    (noted,) = store.look(wanted(1))
    assert noted.verb == "note"
    lost = store.now
    store.now += GRACE / 2
    assert store.look(wanted(1)) == []
    store.now += GRACE
    assert store.look(wanted(1, busy=True)) == [], "not while a Job is at work"
    (begun,) = store.look(wanted(1))
    command = begun.body["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command[command.index("--before") + 1] == f"{lost:%Y-%m-%dT%H:%M:%SZ}", (
        "what was used since then is spared"
    )
    assert store.look(wanted(1)) == []
    store.play()
    assert [step.verb for step in store.look(wanted(1))] == ["note", "clear"]
    assert set(store.present) == {sha(1)} and store.look(wanted(1)) == []


def test_what_is_needed_again_within_the_grace_stays():
    store = Store()
    store.look(wanted(1, 2))
    store.look(wanted(1))
    store.now += GRACE / 2
    store.look(wanted(1, 2))
    store.now += GRACE
    assert store.look(wanted(1, 2)) == [] and store.job is None
    assert store.book["data"]["unneeded"] == ""


def test_a_sweep_that_failed_is_tried_again():
    store = Store()
    store.look(wanted(1, 2))
    store.look(wanted(1))
    store.now += GRACE
    store.look(wanted(1))
    store.play("Failed")
    (cleared,) = store.look(wanted(1))
    assert cleared.verb == "clear" and "why" in cleared.words
    assert [step.verb for step in store.look(wanted(1))] == ["sweep"]


@given(
    st.lists(
        st.tuples(
            st.sets(st.integers(0, 4)),
            st.booleans(),
            st.integers(0, 5000),
            st.sampled_from(["", "Complete", "Failed"]),
        ),
        max_size=30,
    )
)
def test_nothing_that_is_needed_is_swept_and_the_rest_goes_in_the_end(turns):
    store = Store()
    last: set[int] = set()
    for numbers, busy, seconds, ends in turns:
        store.look(wanted(*numbers, busy=busy))
        store.now += timedelta(seconds=seconds)
        if ends:
            store.play(ends)
        assert store.present.keys() >= store.needed
        last = numbers
    for _ in range(4):  # whatever is under way comes to its end
        store.play()
        store.look(wanted(*last))
    # What was needed only between two looks is not in the books: the next sweep, for whatever reason, takes it along.
    store.look(wanted(*last, 9))
    for _ in range(10):
        store.now += GRACE
        store.look(wanted(*last))
        store.play()
    assert set(store.present) == set(map(sha, last))
    assert store.look(wanted(*last)) == []
    assert set(store.book["data"]["needed"].split()) == set(map(sha, last)) if store.book else not last


def test_a_leanmodel_needs_what_serves_and_what_is_recorded():
    world = World(manifest())
    world.settle()
    world.edit(lean={"steps": OTHER_STEPS})
    world.settle()
    claim, found = needs(world.body, world.objects.values(), SETTINGS)
    assert claim.name == "lm-spam-filter-store"
    results = [
        json.loads(item["data"]["result.json"])
        for item in world.objects.values()
        if item["metadata"].get("labels", {}).get("leanmodel.io/kind") == "result"
        and item["metadata"]["labels"]["leanmodel.io/stage"].startswith("compress")
    ]
    assert found.artifacts == {result["artifact"] for result in results} and len(found.artifacts) == 3
    assert len(found.reports) == 2 and not found.busy
    bare = [item for item in world.objects.values() if "result" not in item["metadata"]["name"]]
    serving = {b["artifact"] for b in (world.router()["large"], world.router()["lean"])}
    assert needs(world.body, bare, SETTINGS)[1].artifacts == serving
    alone = [item for item in bare if item["kind"] == "RayService"]
    assert needs(world.body, alone, SETTINGS)[1].artifacts == serving


def test_the_steps_on_the_way_are_needed_as_long_as_the_result_is():
    world = World(manifest())
    world.settle()
    for item in world.objects.values():
        if "result-compress-lean" in item["metadata"]["name"]:
            result = json.loads(item["data"]["result.json"])
            result["steps"] = [{"type": "Prune", "artifact": sha(7)}, {"type": "Distill", "artifact": ""}]
            item["data"]["result.json"] = json.dumps(result)
    assert sha(7) in needs(world.body, world.objects.values(), SETTINGS)[1].artifacts


def test_a_manifest_that_is_refused_stops_the_sweeps_of_its_namespace():
    world = World(manifest())
    assert needs({**world.body, "spec": {}}, [], SETTINGS) is None
    one = needs(world.body, [], replace(SETTINGS, store="pvc://shared"))
    other = (one[0], Needs(frozenset([sha(1)]), busy=True))
    found = together([(("ml", "a"), one), (("ml", "b"), other), (("x", "c"), one), (("x", "d"), None)])
    assert found == {("ml", "shared", ""): Needs(frozenset([sha(1)]), busy=True), ("x", "shared", ""): None}
