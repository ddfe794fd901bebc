"""An API server that refuses, stalls, forgets and dies: the operator recovers by itself and loses nothing."""

from __future__ import annotations

import random

import pytest
from faulty_proxy import Fault
from kube_client import until
from life import RECIPE_B, Life, manifest

CROWD = 12


def some(share, fault, which=lambda call: call.resource != "leases", seed=1):
    """Breaks a share of the calls, picked by a seed."""
    dice = random.Random(seed)

    def decide(call):
        return fault if which(call) and dice.random() < share else None

    return decide


def writes(call):
    return call.writes and call.resource != "leases"


def watches(call):
    return call.verb == "watch"


def asks(call):
    return call.resource != "leases" and not watches(call)


FAULTS = {
    "conflict": some(0.3, Fault(status=409), writes),
    "too many requests": some(0.2, Fault(status=429, retry_after=1), asks),
    "internal error": some(0.15, Fault(status=500), asks),
    "no answer": some(0.1, Fault(hang=2.0), asks),
    "answer lost": some(0.25, Fault(lost=True), writes),
    "broken watches": some(1.0, Fault(cut=2), watches),
    "versions too old": some(0.7, Fault(gone=True), watches),
}

COUNTED = {"internal error": 'code="500"', "no answer": 'code="0"'}
"""What an alert rule asks for, as the operator's own metrics call it."""


@pytest.mark.parametrize("kind", FAULTS)
def test_a_life_with_faults_ends_as_one_without(life, kept, proxy, usual, kind):
    one = kept("--api-timeout-seconds", "1")
    until(one.operator.leads, "the operator leads", 60)
    proxy.rules.fault = FAULTS[kind]
    found = life.live()
    assert found == usual
    assert life.doubled() == [] and life.books.dropped == []
    broken = [c for c in proxy.rules.calls if c.resource and (c.status == 0 or c.status >= 400)]
    assert broken or kind in ("broken watches", "versions too old", "answer lost"), "something did go wrong"
    calls = [
        name for name in one.operator.metrics() if name.startswith("leanmodel_operator_api_calls_total{")
    ]
    assert any(COUNTED.get(kind, "code=") in name for name in calls)
    life.delete()
    life.gone()
    assert one.operator.starts <= 3, "the process itself lives through it, or is started again once or twice"


@pytest.mark.slow
def test_an_api_server_that_dies_under_load(api, simulator, home, kept, cluster):
    kept()
    lives = [Life(api, simulator, home, f"spam-{number}") for number in range(CROWD)]
    for life in lives:
        life.create()

    def under_way():
        return len(simulator.books[home].jobs) >= CROWD

    until(under_way, "much is under way", 60)
    cluster.servers["kube-apiserver"].kill()
    cluster.start_api_server()
    for life in lives:
        life.ready(120)
        life.rest()
    assert lives[0].doubled() == [] and simulator.books[home].dropped == []
    for life in lives:
        life.change(lean={"steps": RECIPE_B})
    cluster.servers["kube-apiserver"].kill()
    cluster.start_api_server()
    for life in lives:
        life.ready(120)
    assert lives[0].doubled() == [] and simulator.books[home].dropped == []


def test_a_name_that_somebody_else_has_taken_is_said(life, operator, api):
    """A write that is refused for good: words in log and status, no harm to the other's object, and nothing hangs."""
    taken = {
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": f"lm-{life.name}-job", "annotations": {"whose": "mine"}},
    }  # fmt: skip
    api.create(taken, life.namespace)
    one = operator().start()
    life.create(manifest(life.name))

    def said():
        return [line for line in one.lines() if "is there and is not ours" in str(line)]

    until(said, "the operator says whose it is", 60)
    status = life.reach(
        lambda status: any(c["reason"] == "NameTaken" for c in status["conditions"]), "the status says so"
    )
    ready = next(c for c in status["conditions"] if c["type"] == "Ready")
    assert f"ServiceAccount lm-{life.name}-job" in ready["message"]
    found = api.get("v1", "ServiceAccount", f"lm-{life.name}-job", life.namespace)
    assert found["metadata"]["annotations"] == {"whose": "mine"} and "labels" not in found["metadata"]
    api.delete("v1", "ServiceAccount", f"lm-{life.name}-job", life.namespace)
    life.ready(120)
