"""An external provider in a cluster: its Secret is a file of the head's, and what is forbidden is forbidden at once."""

from __future__ import annotations

import asyncio
import copy
import json
from base64 import b64encode
from typing import Any

import pytest
from cluster_world import SETTINGS, World, manifest
from hypothesis import given
from hypothesis import strategies as st

from leanmodel_api.manifest import load
from leanmodel_api.router import RouterSettings
from leanmodel_operator.cluster.accept import accept
from leanmodel_operator.cluster.gather import Gatherer
from leanmodel_operator.cluster.observed import Facts, read
from leanmodel_operator.cluster.provider import withdrawn

URL = "https://api.example.com/v1"
FALLBACK = {
    "external": {"baseUrl": URL, "model": "theirs", "apiKeySecret": "their-key"},
    "price": {"inputUSDPerMillionTokens": "2", "outputUSDPerMillionTokens": "4"},
    "timeouts": {"firstToken": "7s"},
}


def body(permission: str | None = "Allowed", **routing: Any) -> dict[str, Any]:
    made = manifest()
    made["spec"]["routing"] |= {"fallback": copy.deepcopy(FALLBACK), **routing}
    if permission is not None:
        made["spec"]["routing"]["externalProviders"] = permission
    return made


def told(world: World) -> RouterSettings:
    data = world.objects[("ConfigMap", "lm-spam-filter-router")]["data"]
    return RouterSettings.model_validate_json(data["settings.json"])


def pods(world: World) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    config = world.objects[("RayService", "lm-spam-filter")]["spec"]["rayClusterConfig"]
    workers = [group["template"]["spec"] for group in config["workerGroupSpecs"]]
    return config["headGroupSpec"]["template"]["spec"], workers


def test_the_key_is_a_file_of_the_head_alone_and_nowhere_else():
    world = World(body())
    world.settle()
    head, workers = pods(world)
    [volume] = [item for item in head["volumes"] if item["name"] == "provider"]
    assert volume["secret"]["secretName"] == "their-key" and volume["secret"]["optional"]
    assert volume["secret"]["items"] == [{"key": "apiKey", "path": "apiKey"}]
    assert all(item["name"] != "provider" for pod in workers for item in pod["volumes"])
    assert "their-key" not in json.dumps([container.get("env") for container in head["containers"]])
    jobs = [item for key, item in world.objects.items() if key[0] in ("Job", "ConfigMap")]
    assert "their-key" not in json.dumps(jobs), "no plan, no result and no settings name the Secret"
    external = told(world).external
    assert external is not None and external.permission == "Allowed"
    provider = external.provider
    assert (provider.base_url, provider.model, provider.key_file) == (URL, "theirs", "/provider/apiKey")
    assert provider.price is not None and provider.price.output_usd_per_million_tokens == "4"
    assert provider.patience.first_byte_timeout == 7.0 and provider.accepts == ["Tools"]


@pytest.mark.parametrize("permission", ["Forbidden", None])
def test_a_router_is_not_even_told_of_a_provider_that_is_not_allowed(permission: str | None):
    world = World(body(permission))
    world.settle()
    settings = json.loads(told(world).to_json())
    assert "external" not in settings and URL not in json.dumps(settings)
    # To allow it needs no new pods.
    assert any(volume["name"] == "provider" for volume in pods(world)[0]["volumes"])


def test_what_is_as_by_default_is_nothing_new_to_a_router_of_before():
    world = World(manifest())
    world.settle()
    settings = json.loads(world.objects[("ConfigMap", "lm-spam-filter-router")]["data"]["settings.json"])
    assert not {"external", "resilience"} & set(settings) and "answerTimeout" not in settings["limits"]


def test_waiting_breakers_and_retries_reach_the_router():
    made = manifest()
    made["spec"]["serving"]["router"] = {
        "timeouts": {"connect": "1s", "firstToken": "2s", "betweenTokens": "3s", "answer": "4s"},
        "breaker": {"failures": 9, "openFor": "1m"}, "retries": "0.25",
    }  # fmt: skip
    world = World(made)
    world.settle()
    found = told(world)
    limits = found.limits
    waits = (limits.connect_timeout, limits.first_byte_timeout, limits.idle_timeout, limits.whole)
    assert waits == (1.0, 2.0, 3.0, 4.0)
    assert found.resilience is not None
    assert (found.resilience.failures, found.resilience.open_seconds, found.resilience.retries) == (
        9,
        60.0,
        0.25,
    )


def test_permission_changes_without_a_proof_a_pod_or_a_wait():
    world = World(body("Forbidden"))
    world.settle()
    made, started, generation = list(world.made), list(world.started), told(world).generation
    for number, permission in enumerate(("Allowed", "Forbidden"), 1):
        world.body["spec"]["routing"]["externalProviders"] = permission
        world.body["metadata"]["generation"] += 1
        world.reconcile()
        found = told(world)
        assert (found.external is not None) == (permission == "Allowed")
        assert found.generation == generation + number and found.lean is not None
    world.settle()
    assert world.made == made and world.started == started


def test_forbidden_holds_while_another_model_is_in_the_making():
    """The traffic stays as it is for hours; who may be asked outside does not."""
    world = World(body())
    world.settle()
    assert told(world).external is not None
    before = told(world).large.revision
    world.body["spec"]["seed"] = 5
    world.body["spec"]["routing"]["externalProviders"] = "Forbidden"
    world.body["metadata"]["generation"] += 1
    world.reconcile()
    assert told(world).external is None and told(world).large.revision == before


@pytest.mark.parametrize(
    ("routing", "kept"),
    [
        ({"externalProviders": "Forbidden", "fallback": FALLBACK}, False),
        ({"externalProviders": "Allowed"}, False),
        ({"externalProviders": ["Allowed"], "fallback": FALLBACK}, False),
        ({"fallback": FALLBACK}, False),
        (
            {
                "externalProviders": "Allowed",
                "fallback": {"external": {"baseUrl": "https://other.example/v1"}},
            },
            False,
        ),
        ("Allowed", False),
        (None, False),
        ({"externalProviders": "Allowed", "fallback": FALLBACK}, True),
    ],
)
def test_a_manifest_that_is_refused_still_forbids(routing: Any, kept: bool):
    world = World(body())
    world.settle()
    before = told(world)
    world.body["spec"]["routing"] = routing
    world.body["spec"]["evaluation"]["metric"] = "Perplexity"  # not supported yet, so all of it is refused
    world.body["metadata"]["generation"] += 1
    world.reconcile()
    assert world.condition("Accepted")["status"] == "False"
    after = told(world)
    assert (after.external is not None) == kept
    assert after.model_copy(update={"external": before.external, "generation": before.generation}) == before
    assert world.reconcile() == [], "and that is all there is to write"


@given(st.recursive(st.none() | st.booleans() | st.text(max_size=3) | st.integers(),
                    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(
                        st.sampled_from(["routing", "fallback", "external", "baseUrl", "externalProviders"]), inner, max_size=3),
                    max_leaves=6))  # fmt: skip
def test_whatever_a_manifest_holds_only_its_word_keeps_the_provider(spec: Any):
    settings = RouterSettings.model_validate(
        {
            "model": "m", "large": {"revision": "l", "url": "http://127.0.0.1:1"},
            "external": {"permission": "Allowed", "provider": {"baseUrl": URL, "model": "x"}},
        }
    )  # fmt: skip
    found = withdrawn(spec, settings)
    assert found is not None and found.external is None, "no such manifest names the provider's address"


def test_the_plan_of_a_proof_does_not_name_the_provider():
    model = load(
        {key: value for key, value in body().items() if key in ("apiVersion", "kind", "metadata", "spec")}
    )
    bare = load(
        {key: value for key, value in manifest().items() if key in ("apiVersion", "kind", "metadata", "spec")}
    )
    assert model.spec.routing.proven() == bare.spec.routing.proven()


def test_a_secret_that_is_missing_is_said_and_its_key_is_told_to_nobody():
    world = World(body())
    world.settle()
    secrets: dict[str, Any] = {}

    class Server:
        async def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
            if kind == "Secret":
                return secrets.get(name)
            return {"data": {"sms.tsv": "x"}}

    async def facts() -> Facts:
        api: Any = Server()
        gatherer = Gatherer(api, SETTINGS, lambda name: None)
        model, _ = accept(world.body)
        seen = read(world.body, list(world.objects.values()), Facts())
        found = await gatherer.facts(("ml", "spam-filter"), model, seen, world.body["status"])
        await gatherer.close()
        return found

    for data in (None, {}, {"data": {"other": "eA=="}}, {"data": None}):
        if data is not None:
            secrets["their-key"] = {"metadata": {}, **data}
        words = asyncio.run(facts()).provider_key
        assert "apiKeySecret" in words and "their-key" in words and "namespace ml" in words
    secrets["their-key"] = {"metadata": {}, "data": {"apiKey": b64encode(b"sk-very-secret").decode()}}
    found = asyncio.run(facts())
    assert found.provider_key == ""
    assert "sk-very-secret" not in repr(found) and b64encode(b"sk-very-secret").decode() not in repr(found)
    world.body["spec"]["routing"]["externalProviders"] = "Forbidden"
    del secrets["their-key"]
    assert asyncio.run(facts()).provider_key == "", "what may not be asked needs no key"


def test_a_missing_key_degrades_and_stops_nothing():
    world = World(body())
    world.settle()
    world.provider_key = "spec.routing.fallback.external.apiKeySecret: Secret their-key is not there"
    world.settle()
    assert world.condition("Degraded")["reason"] == "ProviderKeyMissing"
    assert world.condition("Serving")["status"] == "True" and world.condition("Ready")["status"] == "True"
    world.provider_key = ""
    world.settle()
    assert world.condition("Degraded")["status"] == "False"
