"""The cluster's plan over whole lives: what comes to be, what goes, and what never does."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
from cluster_world import NOW, SETTINGS, World, manifest

from leanmodel_api.router import Broken, RouterSettings
from leanmodel_operator.cluster.compare import writes
from leanmodel_operator.cluster.plan import plan

OTHER_STEPS = [{"type": "Quantize", "scheme": "W8A8", "algorithm": "RTN"}]


def ready() -> World:
    world = World(manifest())
    world.settle()
    return world


def test_a_life_to_ready():
    world = ready()
    assert world.condition("Ready")["status"] == "True", world.body["status"]
    assert world.body["status"]["phase"] == "Ready"
    assert len(world.made) == 3
    large, lean = world.serving()
    assert (large[:6], lean[:5]) == ("large-", "lean-")
    assert world.applications() == [large, lean, "router"]
    assert not [key for key in world.objects if key[0] == "Job"], "Jobs go when their results are recorded"
    assert world.body["status"]["url"] == "http://lm-spam-filter.ml.svc:8000/v1"


def test_nothing_is_written_at_rest():
    world = ready()
    assert world.decide()[1] == []
    assert world.decide()[0].requeue_after is None


def test_the_large_model_serves_before_the_lean_one_is_made():
    world = World(manifest())
    seen = []
    for _ in range(40):
        world.reconcile()
        if "lm-spam-filter-compress-lean" in "".join(world.made) and not seen:
            seen.append(world.seen().facts.answers)
        world.play()
    assert len(seen[0]) == 1


def test_a_new_recipe_comes_up_beside_the_old_one():
    world = ready()
    before = world.serving()
    world.edit(lean={"steps": OTHER_STEPS})
    both = False
    for _ in range(40):
        world.reconcile()
        apps = world.applications()
        assert set(world.serving()) <= set(apps), "what gets traffic is never taken out"
        both |= before[1] in apps and len(apps) == 4
        world.play()
    assert both
    after = world.serving()
    assert after[0] == before[0] and after[1] != before[1]
    assert world.applications() == [*after, "router"]
    assert world.started.count(before[0]) == 1, "the large model is not restarted for it"
    assert world.condition("Ready")["status"] == "True"


def test_a_to_b_to_a_rebuilds_nothing():
    world = ready()
    before, jobs, started = world.serving(), list(world.made), list(world.started)
    spec = copy.deepcopy(world.body["spec"])
    world.edit(lean={"steps": OTHER_STEPS})
    for _ in range(3):  # in the middle: its Job runs
        world.reconcile()
    extra = [name for name in world.made if name not in jobs]
    assert len(extra) == 1
    world.edit(**spec)
    world.settle()
    assert world.serving() == before
    assert world.made == [*jobs, *extra] and world.started == started
    assert world.condition("Ready")["status"] == "True"
    assert ("Job", extra[0]) not in world.objects


def test_what_keeps_the_cure_of_a_broken_promise_from_coming_is_told_before_it():
    world = ready()
    policy = RouterSettings.model_validate(world.router()).policy
    assert policy is not None
    world.promise = Broken(policy=policy.name, alarms={"score-drift": "the scores drifted"})
    world.settle()
    assert world.condition("Degraded")["reason"] == "PromiseBroken"
    world.edit(lean={"steps": OTHER_STEPS})
    jobs = list(world.made)
    while world.made == jobs:
        world.reconcile()
    job = world.objects["Job", world.made[-1]]
    world.objects["Pod", "stuck"] = {
        "kind": "Pod",
        "metadata": {
            "name": "stuck", "uid": "stuck", "labels": job["spec"]["template"]["metadata"]["labels"],
            "ownerReferences": [{"uid": job["metadata"]["uid"]}],
        },
        "spec": {"containers": [{}]},
        "status": {
            "phase": "Pending",
            "containerStatuses": [{"state": {"waiting": {"reason": "ErrImageNeverPull", "message": "no such"}}}],
        },
    }  # fmt: skip
    world.reconcile()
    degraded = world.condition("Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "ImagePull")
    assert "no such" in degraded["message"] and "the scores drifted" in degraded["message"]
    del world.objects["Pod", "stuck"]
    world.settle()
    assert world.condition("Degraded")["reason"] == "PromiseBroken", (
        "the next policy of this world is the same one"
    )


def test_a_to_b_to_a_after_b_is_dark():
    world = ready()
    before, spec = world.serving(), copy.deepcopy(world.body["spec"])
    world.edit(lean={"steps": OTHER_STEPS})
    for _ in range(12):
        world.reconcile()
        world.play()
        if len(world.applications()) == 4:
            break
    made = list(world.made)
    world.edit(**spec)
    world.settle()
    assert world.serving() == before and world.made == made
    assert [world.started.count(name) for name in before] == [1, 1]
    assert world.applications() == [*before, "router"]


@pytest.mark.parametrize("what", ["gate", "compress", "prove", "start"])
def test_a_failure_leaves_the_old_one_serving(what):
    world = ready()
    before = world.serving()
    if what == "gate":
        world.verdict = "GateFailed"
    elif what == "start":
        world.broken = {f"lean-{digit * 8}" for digit in "0123456789abcdef"} - set(before)
    else:
        world.failing = {
            "compress-lean" if what == "compress" else "prove": (2, "error: spec.x: found y; write z")
        }
    world.edit(lean={"steps": OTHER_STEPS})
    world.settle()
    assert world.serving() == before
    assert world.applications() == [*before, "router"], "a failed dark revision is taken out again"
    assert world.body["status"]["phase"] == "ServingStable"
    assert world.body["status"]["stableRevision"]["name"] == before[1]
    degraded = world.condition("Degraded")
    assert degraded["status"] == "True" and world.condition("Ready")["status"] == "False"
    assert world.condition("Serving")["status"] == "True"
    if what in ("compress", "prove"):
        assert "found y; write z" in degraded["message"] and degraded["reason"] == "BadInput"
    if what == "start":
        assert "no memory" in degraded["message"]


def test_a_failed_job_is_made_anew_when_its_resources_change_and_not_before():
    world = World(manifest())
    world.failing = {"compress-large": (137, "")}
    world.settle()
    assert world.made == world.made[:1] and world.body["status"]["phase"] == "Failed"
    assert "raise spec.jobs.compress.memory" in world.condition("Degraded")["message"]
    assert world.condition("Degraded")["reason"] == "OutOfMemory"
    world.failing = {}
    world.edit(jobs={"compress": {"memory": "16Gi"}})
    world.settle()
    assert world.condition("Ready")["status"] == "True"
    assert world.made[0] == world.made[1]


def test_the_retry_annotation_tries_a_failed_start_again():
    world = World(manifest())
    world.broken = {f"lean-{digit * 8}" for digit in "0123456789abcdef"}
    world.settle()
    assert world.condition("Degraded")["reason"] == "StartFailed"
    assert [name for name in world.applications() if name.startswith("lean")] == []
    world.broken = set()
    world.body["metadata"]["annotations"] = {"leanmodel.io/retry": "1"}
    world.settle()
    assert world.condition("Ready")["status"] == "True"


def test_a_new_large_model_takes_over_only_with_a_proven_pair():
    world = ready()
    before = world.serving()
    world.edit(large={"source": {"uri": "pypi:other==1"}})
    for _ in range(60):
        now = world.serving()
        assert now == before or (now[0] != before[0] and len(now) == 2)
        world.reconcile()
        assert set(world.serving()) <= set(world.applications())
        world.play()
    assert world.serving()[0] != before[0]
    assert world.condition("Ready")["status"] == "True"
    assert before[0] not in world.applications()


def test_without_a_lean_model_the_large_one_takes_all():
    world = ready()
    large, lean = world.serving()
    body = copy.deepcopy(world.body["spec"])
    del body["lean"], body["evaluation"]["gates"]
    world.body["spec"] = body
    world.body["metadata"]["generation"] += 1
    world.settle()
    assert world.serving() == (large,) and world.applications() == [large, "router"]
    assert world.body["status"]["phase"] == "Ready"


def test_suspend_starts_no_job_and_leaves_what_serves():
    world = World(manifest(suspend=True))
    world.settle()
    assert world.made == []
    world = ready()
    before, made = world.serving(), list(world.made)
    world.edit(suspend=True, lean={"steps": OTHER_STEPS})
    world.settle()
    assert world.made == made and world.serving() == before
    assert world.body["status"]["phase"] == "Suspended"
    for kind in ("Ready", "Progressing"):
        said = world.condition(kind)
        assert (said["status"], said["reason"]) == ("False", "Suspended")
        assert "spec.suspend" in said["message"]
    assert world.condition("Serving")["status"] == "True"
    world.edit(suspend=False)
    world.settle()
    assert world.condition("Ready")["status"] == "True" and world.serving() != before


def test_a_job_that_began_before_a_suspension_goes_on():
    world = ready()
    world.edit(lean={"steps": OTHER_STEPS})
    for _ in range(3):
        world.reconcile()
    jobs = [key for key in world.objects if key[0] == "Job"]
    world.edit(suspend=True)
    world.reconcile()
    assert [key for key in world.objects if key[0] == "Job"] == jobs
    assert world.body["status"]["phase"] == "Compressing"
    world.settle()
    assert world.body["status"]["phase"] == "Suspended", "its end is recorded, and nothing more is begun"


def test_a_dark_revision_that_never_answers_is_taken_out():
    world = ready()
    before = world.serving()
    every = {f"lean-{digit * 8}" for digit in "0123456789abcdef"} - set(before)
    world.deaf = every
    world.edit(lean={"steps": OTHER_STEPS})
    for _ in range(20):
        world.reconcile()
        world.play()
    assert len(world.applications()) == 4 and world.condition("Ready")["reason"] == "StartingLean"
    world.late = every
    world.settle()
    assert world.applications() == [*before, "router"] and world.serving() == before
    degraded = world.condition("Degraded")
    assert degraded["reason"] == "StartFailed" and "within 3600 s" in degraded["message"]
    world.deaf, world.late = set(), set()
    world.body["metadata"]["annotations"] = {"leanmodel.io/retry": "1"}
    world.settle()
    assert world.condition("Ready")["status"] == "True"


def test_a_first_large_model_that_takes_long_is_said_and_left_to_start():
    world = World(manifest())
    world.deaf = {f"large-{digit * 8}" for digit in "0123456789abcdef"}
    for _ in range(20):
        world.reconcile()
        world.play()
    said = world.condition("Serving")["message"]
    assert said == "no model answers yet: large-22222222: /v1/chat/completions: 503 no"
    world.late = world.deaf
    world.settle()
    ready = world.condition("Ready")
    assert ready["reason"] == "StartSlow"
    assert "asked for a token, /v1/chat/completions: 503 no" in ready["message"]
    assert len(world.applications()) == 2, "there is nothing else that could answer"
    world.deaf = world.late = set()
    world.settle()
    assert world.condition("Ready")["status"] == "True"


def test_the_address_of_the_report_is_the_router_s():
    world = ready()
    (key,) = [
        item["metadata"]["labels"]["leanmodel.io/key"]
        for item in world.objects.values()
        if "result-prove" in item["metadata"]["name"]
    ]
    url = f"http://lm-spam-filter.ml.svc:8000/internal/reports/{key}"
    assert world.body["status"]["report"]["url"] == url
    entry = json.loads(world.objects[("RayService", "lm-spam-filter")]["spec"]["serveConfigV2"])
    (router,) = [app for app in entry["applications"] if app["name"] == "router"]
    assert router["args"]["reportsFolder"] == "/store/reports"


def test_a_deleted_one_is_left_alone():
    world = ready()
    world.body["metadata"]["deletionTimestamp"] = NOW
    assert world.decide()[1] == []


def test_nothing_waits_for_a_finalizer_and_all_is_owned():
    world = ready()
    for key, item in world.objects.items():
        assert "finalizers" not in item["metadata"]
        assert item["metadata"]["ownerReferences"][0]["uid"] == "uid-1", key
        assert item["metadata"]["ownerReferences"][0]["blockOwnerDeletion"] is False
        assert item["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "leanmodel"


def test_children_of_an_earlier_namesake_are_waited_for_not_adopted():
    world = ready()
    world.body = manifest() | {"metadata": manifest()["metadata"] | {"uid": "uid-2"}}
    decided, todo = world.decide()
    assert {write.verb for write in todo} == {"status"}
    assert decided.requeue_after and world.seen().results == ()
    world.carry_out(todo[0])
    assert world.condition("Ready")["reason"] == "NameTaken"


def test_a_name_that_somebody_else_has_is_left_alone_and_said():
    world = World(manifest())
    seen = world.seen()
    taken = ("ServiceAccount", "lm-spam-filter-job")
    seen = replace(seen, facts=replace(seen.facts, taken=frozenset([taken])))
    decided = plan(world.body, seen, SETTINGS, NOW)
    assert not decided.creates and not decided.applies and decided.requeue_after
    ready = next(c for c in decided.status["conditions"] if c["type"] == "Ready")
    assert ready["reason"] == "NameTaken" and "lm-spam-filter-job" in ready["message"]


def test_a_bad_manifest_is_refused_and_what_serves_goes_on():
    world = ready()
    before = world.serving()
    world.edit(store={"uri": "s3://bucket/x"})
    world.settle()
    assert world.condition("Accepted")["status"] == "False"
    assert "spec.store.uri" in world.condition("Accepted")["message"]
    assert world.serving() == before and world.condition("Serving")["status"] == "True"


def test_the_inputs_config_map_may_go_once_the_models_are_made():
    world = ready()
    before = world.serving()
    world.inputs = None
    world.settle()
    assert world.serving() == before and world.condition("Ready")["status"] == "True"


def test_other_inputs_make_other_jobs():
    world = ready()
    made = len(world.made)
    world.inputs = "d2"
    world.settle()
    assert len(world.made) == made + 3
    assert world.condition("Ready")["status"] == "True"


def test_no_secret_leaves_the_operator():
    world = ready()
    secret = world.objects[("Secret", "lm-spam-filter-tokens")]
    assert "data" not in secret and "stringData" not in secret, "the plan holds no random words"
    assert "token" not in json.dumps(world.body["status"]).lower()


def test_a_kill_after_any_write_ends_in_the_same_state():
    whole = ready()
    want = (
        whole.serving(),
        whole.applications(),
        sorted(k for k in whole.objects),
        whole.body["status"]["phase"],
    )
    for limit in (1, 2, 3):
        world = World(manifest())
        for _ in range(400):
            if not world.reconcile(stop_after=limit) and not world.decide()[1]:
                before = len(world.objects)
                world.play()
                if len(world.objects) == before and not world.decide()[1]:
                    break
            else:
                world.play()
        got = (
            world.serving(),
            world.applications(),
            sorted(k for k in world.objects),
            world.body["status"]["phase"],
        )
        assert got == want
        assert len(world.made) == len(set(world.made)) == 3


def test_applying_twice_writes_nothing_the_second_time_even_with_defaults_added():
    world = ready()
    item = world.objects[("RayService", "lm-spam-filter")]
    item["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["dnsPolicy"] = "ClusterFirst"
    item["spec"]["rayClusterSpecDefault"] = {}
    seen = world.seen()
    assert writes(plan(world.body, seen, SETTINGS, NOW), world.body, seen) == []


def test_a_lost_head_is_said_and_service_returns():
    world = ready()
    before, started = world.serving(), list(world.started)
    world.down = True
    world.objects[("RayService", "lm-spam-filter")]["status"]["activeServiceStatus"][
        "applicationStatuses"
    ] = {}
    world.settle()
    serving = world.condition("Serving")
    assert (serving["status"], serving["reason"]) == ("False", "Restarting") and "Redis" in serving["message"]
    assert world.condition("Ready")["status"] == "False" and world.serving() == before
    world.down = False
    world.settle()
    assert world.condition("Ready")["status"] == "True" and world.serving() == before
    assert world.made == ready().made and len(world.started) == len(started) + 3


def test_the_port_that_a_service_was_made_with_stays_and_an_edit_is_told():
    serving = manifest()["spec"]["serving"]
    world = World(manifest(serving=serving | {"router": {"port": 8001}}))
    world.settle()
    assert world.body["status"]["url"].endswith(":8001/v1")
    world.edit(serving=serving | {"router": {"port": 9000}})
    world.settle()
    assert world.body["status"]["url"].endswith(":8001/v1")
    service = world.objects[("RayService", "lm-spam-filter")]["spec"]["serveService"]
    assert service["spec"]["ports"][0]["port"] == 8001
    assert "the Service keeps port 8001" in world.condition("Progressing")["message"]


def test_a_replica_that_is_replaced_is_said_with_what_may_put_it_right():
    world = ready()
    large, lean = world.serving()
    for sick, serving in (({large}, "True"), ({large, lean}, "False")):
        world.sick = sick
        world.settle()
        assert world.condition("Serving")["status"] == serving
        degraded = world.condition("Degraded")
        assert (degraded["status"], degraded["reason"]) == ("True", "ReplicaLost"), degraded
        assert large in degraded["message"] and "spec.serving.large.resources.memory" in degraded["message"]
        assert world.serving() == (large, lean), "it comes back by itself"
    assert (serving := world.condition("Serving"))["reason"] == "ReplicaLost" and "Redis" not in serving[
        "message"
    ]
    assert world.condition("Ready")["status"] == "False"
    world.sick = set()
    world.settle()
    assert world.condition("Ready")["status"] == "True" and world.condition("Degraded")["status"] == "False"


def test_a_large_model_that_is_deaf_for_a_moment_keeps_its_dark_lean_one():
    world = World(manifest())
    while len(world.applications()) < 3:  # the large model, the dark lean one, the router
        world.reconcile()
        world.play()
    large, lean, _ = world.applications()
    world.deaf = {large}
    for _ in range(5):
        world.reconcile()
        world.play()
        assert lean in world.applications(), "it would be started a second time"
    world.deaf = set()
    world.settle()
    assert world.condition("Ready")["status"] == "True" and world.started.count(lean) == 1
