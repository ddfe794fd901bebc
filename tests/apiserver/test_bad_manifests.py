"""The API server itself refuses what is wrong, and says where and what."""

from __future__ import annotations

import pytest
from bad_manifests import BAD, GOOD, Bad
from kube_client import RefusedError

COLLECTION = "/apis/leanmodel.io/v1alpha1/namespaces/default/leanmodels"


def test_the_manifest_that_they_are_made_of_is_good(api, definition):
    created = api.ask("POST", COLLECTION, GOOD, fieldValidation="Strict", dryRun="All")
    assert created["metadata"]["name"] == GOOD["metadata"]["name"]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: f"{bad.path}-{bad.told[:40]}")
def test_a_bad_manifest_is_refused_with_its_message(api, definition, bad: Bad):
    with pytest.raises(RefusedError) as refused:
        api.ask("POST", COLLECTION, bad.manifest(), fieldValidation="Strict", dryRun="All")
    assert refused.value.code in (400, 422)
    assert bad.told in str(refused.value)


def test_each_is_another_case():
    assert len({(bad.path, bad.told, repr(bad.value)) for bad in BAD}) == len(BAD)
    assert len(BAD) >= 80


@pytest.mark.parametrize(
    ("patch", "told"),
    [
        ({"task": "text-embedding"}, "cannot change: make a new LeanModel"),
        ({"store": {"uri": "file:other"}}, "store: cannot change"),
    ],
)
def test_what_cannot_change_does_not(api, definition, namespace, patch, told):
    store = {"store": {"uri": "file:first"}}
    api.create({**GOOD, "spec": {**GOOD["spec"], **store}}, namespace)
    path = f"/apis/leanmodel.io/v1alpha1/namespaces/{namespace}/leanmodels/{GOOD['metadata']['name']}"
    merge = {"Content-Type": "application/merge-patch+json"}
    with pytest.raises(RefusedError, match=told):
        api.ask("PATCH", path, {"spec": patch}, headers=merge)
    assert api.ask("PATCH", path, {"spec": {"seed": 3}}, headers=merge)["spec"]["seed"] == 3
