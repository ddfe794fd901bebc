"""The head's pod brings keys and state to the router, and neither needs another pod to be turned on."""

from __future__ import annotations

from typing import Any

import pytest
from cluster_world import manifest

from leanmodel_operator.cluster import rayservice
from leanmodel_operator.cluster.accept import accept
from leanmodel_operator.cluster.children import serving
from leanmodel_operator.cluster.children.owner import Owner
from leanmodel_operator.cluster.settings import Settings

OWNER = Owner("support", "ml", "uid-1")


def head(router: dict[str, Any] | None = None) -> dict[str, Any]:
    body = manifest()
    body["spec"].setdefault("serving", {})["router"] = router or {}
    model, issues = accept(body)
    assert model is not None, issues
    return serving.head_template(OWNER, model, Settings())["spec"]


def mounts(pod: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {mount["mountPath"]: mount for mount in pod["containers"][0]["volumeMounts"]}


def test_the_secret_of_keys_is_mounted_from_the_beginning_and_may_be_missing() -> None:
    for router in ({}, {"access": "Keys"}):
        pod = head(router)
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        secret = volumes["keys"]["secret"]
        assert (secret["secretName"], secret["optional"]) == ("lm-support-keys", True)
        assert mounts(pod)["/keys"]["readOnly"]
    assert head({"access": "Keys"}) == head({"access": "Open"})


def test_the_routers_state_outlives_its_pod_where_a_claim_is_named() -> None:
    assert "/scratch/state" not in mounts(head())
    pod = head({"state": "pvc://books/ml/support"})
    assert {"name": "state", "persistentVolumeClaim": {"claimName": "books"}} in pod["volumes"]
    mount = mounts(pod)["/scratch/state"]
    assert mount["subPath"] == "ml/support" and not mount.get("readOnly")
    assert "subPath" not in mounts(head({"state": "pvc://books"}))["/scratch/state"]


def test_the_router_looks_where_they_are_mounted() -> None:
    args = serving.router_application()["args"]
    assert args["keysFolder"] in mounts(head())
    assert args["stateFile"].rpartition("/")[0] in mounts(head({"state": "pvc://books"}))


def ledger(**more: Any) -> dict[str, Any]:
    return {"ledger": {"redis": {"address": "redis.data.svc:6379", **more}}}


def test_a_redis_is_told_to_the_router_with_its_password_as_a_file() -> None:
    body = manifest()
    body["spec"].setdefault("serving", {})["router"] = ledger(passwordSecret="books", tls=True)
    model, issues = accept(body)
    assert model is not None, issues
    pod = serving.head_template(OWNER, model, Settings())["spec"]
    secret = next(volume["secret"] for volume in pod["volumes"] if volume["name"] == "redis")
    assert (secret["secretName"], secret["optional"]) == ("books", True)
    known = serving.ledger_redis(OWNER, model)
    args = serving.router_application(set(mounts(pod)), redis=known)["args"]["redis"]
    assert args == {
        "address": "redis.data.svc:6379", "tls": True, "database": 0, "passwordFile": "/redis/password",
        "prefix": "leanmodel/ml/support",
    }  # fmt: skip
    assert args["passwordFile"].rpartition("/")[0] in mounts(pod)


def test_a_pod_that_was_made_without_a_redis_keeps_its_file_and_an_open_one_needs_no_secret() -> None:
    pod = head(ledger())
    assert {"name": "redis", "emptyDir": {}} in pod["volumes"]
    model, _ = accept({**manifest(), "spec": {**manifest()["spec"], "serving": {"router": ledger()}}})
    assert model is not None
    known = serving.ledger_redis(OWNER, model)
    assert known is not None and known.password_file is None
    before = serving.router_application(set(mounts(head())), redis=known)["args"]
    assert before == serving.router_application(set(mounts(head())))["args"] and "redis" not in before
    assert "redis" in serving.router_application(set(mounts(pod)), redis=known)["args"]


@pytest.mark.parametrize("found", ["redis", "redis:port", "redis://h:6379", "-h:1", "h:6379/0", ":6379"])
def test_an_address_that_is_none_is_refused(found: str) -> None:
    body = manifest()
    body["spec"].setdefault("serving", {})["router"] = {"ledger": {"redis": {"address": found}}}
    model, issues = accept(body)
    assert model is None and "spec.serving.router.ledger.redis.address" in str(issues)


def test_each_replica_of_the_router_has_its_place_in_the_head() -> None:
    def asked(replicas: int) -> str:
        return str(head({"replicas": replicas})["containers"][0]["resources"]["requests"]["cpu"])

    one, three = int(asked(1).removesuffix("m")), int(asked(3).removesuffix("m"))
    assert three - one == 2000
    options = serving.router_application(replicas=3)["deployments"][0]
    assert options["num_replicas"] == 3
    assert "num_replicas" not in serving.router_application()["deployments"][0]
    assert serving.router_application(replicas=3)["args"] == serving.router_application()["args"]


def test_a_pod_of_before_keeps_the_router_of_its_time() -> None:
    old = serving.router_application({"/router", "/tokens"})["args"]
    assert old["stateFile"] == "/scratch/router-state.db" and "keysFolder" not in old
    config = {"headGroupSpec": {"template": {"spec": head()}}}
    assert serving.router_application(rayservice.head_mounts(config)) == serving.router_application()
    assert rayservice.head_mounts({}) == set()


@pytest.mark.parametrize("found", ["s3://bucket", "pvc://", "pvc://Books", "pvc://books/../other", "books"])
def test_a_state_that_is_no_claim_is_refused(found: str) -> None:
    body = manifest()
    body["spec"].setdefault("serving", {})["router"] = {"state": found}
    model, issues = accept(body)
    assert model is None and [issue.field for issue in issues] == ["spec.serving.router.state"]
