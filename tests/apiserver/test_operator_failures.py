"""What goes wrong with a new generation: the old one keeps serving, and a condition says why and what to do."""

from __future__ import annotations

import pytest
from life import RECIPE_A, RECIPE_B, state


def second_generation(life, operator):
    """A LeanModel that serves its first recipe, with a running operator; returns what gets its requests."""
    operator().start()
    life.create()
    life.ready()
    return life.traffic()


def degraded(life, reason):
    """Waits for a reason; returns its message."""

    def found(status):
        rows = {c["type"]: c for c in status.get("conditions", ())}
        return rows.get("Degraded", {}).get("status") == "True" and rows["Degraded"]["reason"] == reason

    status = life.reach(found, f"it is Degraded because of {reason}")
    assert state(status, "Ready") == "False" and state(status, "Serving") == "True", status["conditions"]
    return next(c["message"] for c in status["conditions"] if c["type"] == "Degraded")


FAILURES = {
    "compression": (
        {"failing": {"compress-lean": (2, "Error", "spec.lean.steps[0]: found x; write y")}},
        "BadInput", ["compress-lean", "found x; write y"],
    ),
    "memory": (
        {"failing": {"compress-lean": (137, "OOMKilled", "")}},
        "OutOfMemory", ["ran out of memory", "limit", "raise spec.jobs.compress.memory"],
    ),
    "proof": (
        {"failing": {"prove": (1, "Error", "the endpoint answered 500 for an hour")}},
        "JobFailed", ["prove", "answered 500"],
    ),
    "gate": ({"verdict": "GateFailed"}, "GateFailed", []),
    "start": ({"broken": {"lean-"}}, "StartFailed", ["did not start", "weights do not fit"]),
}  # fmt: skip


@pytest.mark.parametrize("what", FAILURES)
def test_the_old_one_keeps_serving(life, operator, what):
    how, reason, words = FAILURES[what]
    first = second_generation(life, operator)
    for key, value in how.items():
        setattr(life.how, key, value)
    if what == "start":  # the one that serves goes on doing so
        (old,) = [name for name in first if name.startswith("lean-")]
        life.how.spared.add(old)
    life.change(lean={"steps": RECIPE_B})
    message = degraded(life, reason)
    assert all(word in message for word in words), message
    assert life.traffic() == first and life.books.dropped == []
    life.how.__init__()
    life.change(lean={"steps": RECIPE_A})
    life.ready()
    assert life.traffic() == first and life.doubled() == []


def test_an_image_that_does_not_exist_is_named_and_needs_no_new_manifest(life, operator):
    first = second_generation(life, operator)
    life.how.waiting["compress-lean"] = ("ImagePullBackOff", 'Back-off pulling image "leanmodel/none:1"')
    life.change(lean={"steps": RECIPE_B})
    message = degraded(life, "ImagePull")
    assert "leanmodel/none:1" in message and "image settings" in message
    assert life.traffic() == first
    life.how.waiting.clear()
    life.simulator.again(life.namespace)
    life.ready()
    assert life.traffic() != first and life.doubled() == [] and life.books.dropped == []


def test_a_corrected_image_setting_replaces_the_job_that_waits_for_the_wrong_one(life, operator):
    one = operator("--compressor-image", "leanmodel/none:1").start()
    life.how.waiting["compress-large"] = ("ErrImageNeverPull", 'image "leanmodel/none:1" is not present')
    life.create()
    life.reach(lambda status: "ImagePull" in str(status.get("conditions")), "the condition says so")
    life.how.waiting.clear()  # for pods to come; the one that waits goes on waiting
    assert one.stop() == 0
    operator("--compressor-image", "leanmodel/some:1").start()
    life.ready()
    assert life.books.dropped == []


def test_more_memory_tries_again_what_ran_out_of_it(life, operator):
    operator().start()
    life.how.failing["compress-large"] = (137, "OOMKilled", "")
    life.create()
    life.reach(lambda status: status["phase"] == "Failed", "it has failed")
    assert life.condition("Serving")["status"] == "False"
    life.how.failing.clear()
    life.change(jobs={"compress": {"memory": "16Gi"}})
    life.ready()


def test_the_same_manifest_tries_again_at_the_user_s_word(life, operator):
    first = second_generation(life, operator)
    life.how.failing["prove"] = (1, "Error", "the endpoint answered 500 for an hour")
    life.change(lean={"steps": RECIPE_B})
    degraded(life, "JobFailed")
    life.how.failing.clear()
    life.annotate("leanmodel.io/retry", "1")
    life.ready()
    assert life.traffic() != first and life.books.dropped == []


def test_a_pod_that_serves_and_dies_is_said(life, operator):
    second_generation(life, operator)
    life.how.down = True
    life.simulator.again(life.namespace)
    life.reach(lambda status: state(status, "Serving") == "False", "nothing answers, and the status says so")
    assert life.condition("Ready")["reason"] == "Restarting"
    assert "Redis" in life.condition("Ready")["message"]
    life.how.down = False
    life.simulator.again(life.namespace)
    life.ready()


def test_a_revision_that_never_gets_up_is_taken_out_again(life, operator):
    operator("--start-deadline-seconds", "4").start()
    life.create()
    life.ready()
    first = life.traffic()
    life.how.hanging.add("lean-")
    life.how.spared |= first
    life.change(lean={"steps": RECIPE_B})
    message = degraded(life, "StartFailed")
    assert "within 4 s" in message and "DEPLOYING" in message and "startDeadlineSeconds" in message
    assert life.traffic() == first
    life.rest()
    life.how.hanging.clear()
    life.annotate("leanmodel.io/retry", "1")
    life.ready()
    assert life.traffic() != first and life.books.dropped == []
