"""An external teacher in a cluster: the Jobs that ask it get the key as a file, and none asks what is forbidden."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from typing import Any

import pytest
from cluster_world import SETTINGS, World, manifest

from leanmodel_operator.cluster.accept import accept
from leanmodel_operator.cluster.gather import Gatherer
from leanmodel_operator.cluster.observed import Facts, read

URL = "https://api.example.com/v1"
TEACHER = {
    "external": {"baseUrl": URL, "model": "theirs", "apiKeySecret": "their-key"},
    "price": {"inputUSDPerMillionTokens": "2", "outputUSDPerMillionTokens": "4"},
    "maxCalls": 100, "maxUSD": "1",
}  # fmt: skip


def body(*learners: str) -> dict[str, Any]:
    made = manifest(teacher=json.loads(json.dumps(TEACHER)))
    made["spec"]["routing"]["externalProviders"] = "Allowed"
    if "large" in learners:
        made["spec"]["large"]["finetune"]["answers"] = "Teacher"
    if "lean" in learners:
        made["spec"]["lean"]["steps"][1]["answers"] = "Teacher"
    return made


def jobs(world: World) -> dict[str, dict[str, Any]]:
    """The Jobs that are there, by stage."""
    return {
        item["metadata"]["labels"]["leanmodel.io/stage"]: item
        for key, item in world.objects.items()
        if key[0] == "Job"
    }


def plan_of(world: World, stage: str) -> dict[str, Any]:
    name = jobs(world)[stage]["metadata"]["name"]
    plan: dict[str, Any] = json.loads(world.objects[("ConfigMap", name)]["data"]["plan.json"])
    return plan


@pytest.mark.parametrize("learner", ["large", "lean"])
def test_the_key_is_a_file_of_the_job_that_asks_and_of_no_other(learner: str) -> None:
    world = World(body(learner))
    seen: dict[str, list[str]] = {}
    for stage in ("compress-large", "compress-lean", "prove"):
        world.working = {stage}
        world.settle()
        pod = jobs(world)[stage]["spec"]["template"]["spec"]
        seen[stage] = pod["containers"][0]["command"]
        volumes = [volume for volume in pod["volumes"] if volume["name"] == "provider"]
        assert ("--teacher-key-file" in seen[stage]) == (stage == f"compress-{learner}") == bool(volumes)
        if volumes:
            assert volumes[0]["secret"]["secretName"] == "their-key"
            assert seen[stage][-2:] == ["--teacher-key-file", "/provider/apiKey"]
            assert plan_of(world, stage)["externalTeacher"]["permission"] == "Allowed"
        else:
            assert "externalTeacher" not in plan_of(world, stage)
    head = world.objects[("RayService", "lm-spam-filter")]["spec"]["rayClusterConfig"]["headGroupSpec"]
    assert not [one for one in head["template"]["spec"]["volumes"] if one["name"] == "provider"]


def test_a_router_is_not_told_of_a_teacher() -> None:
    world = World(body("lean"))
    world.settle()
    router = world.router()
    assert router is not None and "external" not in router
    assert world.condition("Ready")["status"] == "True"


def test_without_the_key_the_job_that_asks_waits_for_it() -> None:
    world = World(body("lean"))
    world.teacher_key = "spec.teacher.external.apiKeySecret: Secret their-key is not there"
    world.settle()
    assert not [name for name in world.made if "compress-lean" in name]
    assert world.condition("Serving")["status"] == "True", "the large model serves meanwhile"
    assert world.condition("Compressed")["reason"] == "TeacherKeyMissing"
    assert "their-key" in world.condition("Compressed")["message"]
    assert world.decide()[0].requeue_after == 30.0
    world.teacher_key = ""
    world.settle()
    assert world.condition("Ready")["status"] == "True"


@pytest.mark.parametrize("change", ["Forbidden", "gone", "elsewhere"])
def test_a_refused_manifest_that_forbids_stops_the_job_that_asks(change: str) -> None:
    world = World(body("lean"))
    world.working = {"compress-lean"}
    world.settle()
    assert "compress-lean" in jobs(world)
    spec = world.body["spec"]
    if change == "Forbidden":
        spec["routing"]["externalProviders"] = "Forbidden"  # refused: a step still learns of the teacher
    elif change == "gone":
        del spec["teacher"]
    else:
        spec["teacher"]["external"]["baseUrl"] = "http://other.example.com/v1"
    world.body["metadata"]["generation"] += 1
    world.reconcile()
    assert world.condition("Accepted")["status"] == "False"
    assert "compress-lean" not in jobs(world)


@pytest.mark.parametrize("learner", ["large", "lean"])
def test_a_refused_manifest_that_still_allows_leaves_the_job_alone(learner: str) -> None:
    world = World(body(learner))
    world.working = {f"compress-{learner}"}
    world.settle()
    world.body["spec"]["seed"] = "none"
    world.body["metadata"]["generation"] += 1
    world.reconcile()
    assert world.condition("Accepted")["status"] == "False" and f"compress-{learner}" in jobs(world)


def test_the_api_server_is_asked_for_the_secret_and_nothing_of_the_key_is_kept() -> None:
    world = World(body("lean"))
    world.settle()
    secrets: dict[str, Any] = {}

    class Server:
        async def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
            return secrets.get(name) if kind == "Secret" else {"data": {"sms.tsv": "x"}}

    async def facts() -> Facts:
        api: Any = Server()
        gatherer = Gatherer(api, SETTINGS, lambda name: None)
        model, _ = accept(world.body)
        seen = read(world.body, list(world.objects.values()), Facts())
        found = await gatherer.facts(("ml", "spam-filter"), model, seen, world.body["status"])
        await gatherer.close()
        return found

    words = asyncio.run(facts()).teacher_key
    assert (
        words.startswith("spec.teacher.external.apiKeySecret: Secret their-key") and "namespace ml" in words
    )
    secrets["their-key"] = {"metadata": {}, "data": {"apiKey": b64encode(b"sk-very-secret").decode()}}
    found = asyncio.run(facts())
    assert found.teacher_key == "" and found.provider_key == ""
    assert b64encode(b"sk-very-secret").decode() not in repr(found)
