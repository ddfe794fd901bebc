"""What holds whatever is observed: random edits, failures, kills and hands that delete things."""

from __future__ import annotations

import copy
from typing import Any

from cluster_world import NOW, SETTINGS, World, manifest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leanmodel_operator.cluster.compare import writes
from leanmodel_operator.cluster.plan import plan

RECIPES: list[dict[str, Any]] = [
    {"lean": {"steps": [{"type": "Quantize", "scheme": scheme, "algorithm": "RTN"}]}}
    for scheme in ("W8A8", "W4A16")
]
RECIPES += [{"large": {"source": {"uri": f"pypi:other=={n}"}}} for n in (1, 2)]
RECIPES += [{"suspend": True}, {"suspend": False}, {"task": "text-embedding"}, {"task": "text-generation"}]
RECIPES += [{"serving": {"large": {"resources": {"cpu": "2"}, "maxReplicas": n}}} for n in (1, 3)]
VERDICTS = ["Routed", "LeanTakesAll", "GateFailed", "LargeOnly"]
FAILURES: list[dict[str, tuple[int, str]]] = [
    {},
    {"compress-lean": (2, "error: x")},
    {"prove": (1, "")},
    {"compress-large": (137, "")},
]

actions = st.one_of(
    st.tuples(st.just("turn"), st.integers(0, 6)),
    st.tuples(st.just("go"), st.integers(1, 14)),
    st.tuples(st.just("go"), st.integers(1, 14)),
    st.tuples(st.just("deaf"), st.integers(0, 3)),
    st.tuples(st.just("edit"), st.sampled_from(range(len(RECIPES)))),
    st.tuples(
        st.just("roll"), st.sampled_from([0, 1, 2, 3])
    ),  # an edit of a model, and time enough to roll it out
    st.tuples(st.just("roll"), st.sampled_from([0, 1, 2, 3])),
    st.tuples(st.just("verdict"), st.sampled_from(range(len(VERDICTS)))),
    st.tuples(st.just("fail"), st.sampled_from(range(len(FAILURES)))),
    st.tuples(st.just("break"), st.integers(0, 1)),
    st.tuples(st.just("down"), st.integers(0, 1)),
    st.tuples(st.just("inputs"), st.integers(0, 2)),
    st.tuples(st.just("remove"), st.integers(0, 30)),
)

rolls = st.tuples(st.sampled_from([0, 1, 2, 3]), st.sampled_from([0, 1, 3, 6, 16]))
"""An edit of a model, and so many turns to roll it out."""


def act(world: World, what: str, number: int) -> None:
    if what == "edit":
        world.edit(**copy.deepcopy(RECIPES[number]))
    elif what == "verdict":
        world.verdict = VERDICTS[number]  # type: ignore[assignment]
    elif what == "fail":
        world.failing = FAILURES[number]
    elif what == "break":
        world.broken = {f"lean-{digit * 8}" for digit in "01234567"} if number else set()
    elif what == "deaf":
        names = [f"{role}-{digit * 8}" for role in ("large", "lean") for digit in "0123456789abcdef"]
        world.deaf = set(names[number - 1 :: 3]) if number else set()
    elif what == "down":
        world.down = bool(number)
    elif what == "inputs":
        world.inputs = [None, "d1", "d2"][number]
    elif what == "remove":
        # Whoever deletes the settings or the RayService by hand takes serving down: that is not the plan's doing.
        free = sorted(
            k for k in world.objects if k[0] in ("Job", "Pod", "PodDisruptionBudget") or "result" in k[1]
        )
        if free:
            world.objects.pop(free[number % len(free)])


def turn(world: World, limit: int) -> None:
    """One turn of the loop, cut short after some writes, with what must hold before and after each."""
    seen = world.seen()
    decided = plan(world.body, seen, SETTINGS, NOW)
    assert decided == plan(world.body, seen, SETTINGS, NOW)
    todo = writes(decided, world.body, seen)
    for write in todo[: limit or None]:
        before = world.serving()
        world.carry_out(write)
        after = world.serving()
        for name in set(after) - set(before):
            first = not before
            assert first or name in seen.facts.answers, f"{name} gets traffic and does not answer"
        assert not before or after, "traffic never ends"
        if ("RayService", "lm-spam-filter") in world.objects and write.key[0] == "RayService":
            assert set(after) <= set(world.applications()), f"{after} is not all in {world.applications()}"
    if not limit:
        again = world.seen()
        assert writes(decided, world.body, again) == [], "the same plan writes nothing the second time"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(rolls, actions), max_size=6), st.sampled_from(VERDICTS))
def test_what_serves_is_never_taken_down_before_something_else_serves(found, verdict):
    world = World(manifest())
    world.verdict = verdict
    world.settle()
    for (recipe, turns), (what, number) in found:
        act(world, "edit", recipe)
        for _ in range(turns):
            turn(world, 0)
            world.play()
        act(world, what, number)
        for _ in range(number if what == "go" else 1):
            turn(world, number if what == "turn" else 0)
            if what == "go" or number % 2 == 0:
                world.play()
    world.down, world.broken, world.deaf = False, set(), set()
    world.failing, world.verdict, world.inputs = {}, "Routed", "d1"
    world.body["spec"] = copy.deepcopy(manifest()["spec"])
    world.body["metadata"] |= {"annotations": {"leanmodel.io/retry": "now"}, "generation": 99}
    for key in [k for k in world.objects if "result-prove" in k[1]]:  # proofs that this run told to fail
        del world.objects[key]
    world.settle()
    assert world.condition("Ready")["status"] == "True", world.body["status"]
    assert world.applications() == [*world.serving(), "router"]
    assert not [key for key in world.objects if key[0] == "Job"]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(actions, max_size=12))
def test_a_first_life_comes_to_rest_wherever_it_is_cut(found):
    world = World(manifest())
    for what, number in found:
        act(world, what, number)
        for _ in range(number if what == "go" else 1):
            turn(world, number if what == "turn" else 0)
            world.play()
    world.settle()
    assert world.decide()[1] == []
