"""The operator as a process against a real API server: a whole life, and that nothing is written at rest."""

from __future__ import annotations

from kube_client import until
from life import RECIPE_A, RECIPE_B
from operator_process import errors

from leanmodel_operator.cluster import names


def test_a_whole_life(life, operator):
    one = operator().start()
    life.create()
    status = life.ready()
    assert status["phase"] == "Ready"
    assert status["url"] == f"http://{names.rayservice(life.name)}.{life.namespace}.svc:8000/v1"
    assert not life.body()["metadata"].get("finalizers")
    assert len(life.books.jobs) == 3, "two compressions and a proof"
    first = life.traffic()

    life.change(lean={"steps": RECIPE_B})
    life.ready()
    assert len(life.books.jobs) == 5, "one compression and one proof more: the large model is the same"
    second = life.traffic()
    assert len(first & second) == 1 and len(first ^ second) == 2

    life.change(lean={"steps": RECIPE_A})
    life.ready()
    assert life.traffic() == first
    assert len(life.books.jobs) == 5, "what was proven once is not made again"

    life.change(suspend=True, lean={"steps": RECIPE_B, "source": None}, seed=7)
    status = life.suspended()
    ready = next(c for c in status["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "Suspended") and "spec.suspend" in ready["message"]
    assert life.traffic() == first and life.condition("Serving")["status"] == "True"
    assert len(life.books.jobs) == 5

    life.change(suspend=False)
    life.ready()
    life.rest()
    life.delete()
    life.gone()
    assert life.doubled() == [] and life.books.dropped == []
    assert errors(one.lines()) == []
    assert one.stop() == 0


def test_back_to_the_first_recipe_in_the_middle_of_a_rollout(life, operator):
    operator().start()
    life.create()
    life.ready()
    life.rest()
    first, jobs = life.traffic(), len(life.books.jobs)
    life.how.held.add("prove")
    life.change(lean={"steps": RECIPE_B})
    life.reach(lambda status: status["phase"] == "Proving", "B is up, dark, and being proven")
    started = list(life.books.started)
    life.change(lean={"steps": RECIPE_A})
    life.ready()
    life.rest()
    assert life.traffic() == first
    assert len(life.books.jobs) == jobs + 2, "B's compression and B's proof; none for A"
    assert life.books.started == started, "no application is started for A: its own never went"
    assert life.books.dropped == []


def test_nothing_but_the_lease_is_written_at_rest(life, operator, proxy):
    operator("--resync-seconds", "1", "--sweep-seconds", "1").start()
    life.create()
    life.ready()
    life.rest()
    life.reach(lambda status: status.get("cost"), "the router's money is in the status")
    wanted = {life.body()["status"][key]["artifact"] for key in ("largeRevision", "stableRevision")}

    def noted() -> bool:
        books = life.api.list("v1", "ConfigMap", life.namespace, "leanmodel.io/kind=store")
        return bool(books) and wanted <= set(books[0]["data"]["needed"].split()) and "report:" in str(books)

    until(noted, "what is needed of the store is noted")
    before = len(proxy.rules.calls)

    def looked() -> bool:
        lists = [c for c in proxy.rules.calls[before:] if c.verb == "list" and c.resource == "leanmodels"]
        return len(lists) >= 4

    until(looked, "the operator has looked at everything four times more", 90)
    assert {c.resource for c in proxy.rules.calls[before:] if c.writes} <= {"leases"}
