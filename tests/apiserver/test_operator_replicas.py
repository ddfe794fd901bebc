"""Two replicas: one leads, the other takes over; what the first still sends afterwards changes nothing."""

from __future__ import annotations

import signal
import threading
import time

from faulty_proxy import Fault
from kube_client import until
from life import RECIPE_B

TAKEOVER_SECONDS = 20.0


def pair(operator):
    one = operator(identity="one").start()
    until(one.leads, "the first leads", 60)
    two = operator(identity="two").start()
    two.port()
    return one, two


def test_a_killed_leader_is_replaced_in_time(life, operator):
    one, two = pair(operator)
    life.create()
    life.ready()
    assert not two.leads()
    one.kill()
    began = time.monotonic()
    life.change(lean={"steps": RECIPE_B})
    until(two.leads, "the second leads", TAKEOVER_SECONDS)
    assert time.monotonic() - began < TAKEOVER_SECONDS
    life.ready()
    assert life.doubled() == [] and life.books.dropped == []


def test_a_leader_that_ends_gives_its_place_away_at_once(operator, life):
    one, two = pair(operator)
    assert one.stop() == 0
    until(two.leads, "the second leads", 6)


def test_a_leader_stopped_past_its_lease_writes_nothing_when_it_wakes(life, operator, proxy):
    one, two = pair(operator)
    life.create()
    life.ready()
    life.rest()
    let_go = threading.Event()
    held = []

    def hold(call):
        """The first status that the leader sends is under way while it is stopped."""
        if call.writes and call.resource == "leanmodels/status" and not held:
            held.append(call)
            return Fault(held=let_go)
        return None

    proxy.rules.fault = hold
    life.change(suspend=True)
    until(lambda: held, "a write is under way")
    one.send(signal.SIGSTOP)
    began = time.monotonic()
    until(two.leads, "the second leads", TAKEOVER_SECONDS)
    assert time.monotonic() - began < TAKEOVER_SECONDS
    life.change(suspend=False, lean={"steps": RECIPE_B})
    life.ready()
    life.rest()
    before, version = life.snapshot(), life.body()["metadata"]["resourceVersion"]
    late = len(proxy.rules.calls)
    let_go.set()
    until(lambda: held[0].status, "the late write has arrived")
    assert held[0].status == 409
    one.send(signal.SIGCONT)
    assert one.wait(20) == 1, "who has lost the Lease ends"
    assert life.snapshot() == before and life.body()["metadata"]["resourceVersion"] == version
    assert [c for c in proxy.rules.calls[late:] if c.writes and c.resource != "leases"] == []
    assert two.leads()
