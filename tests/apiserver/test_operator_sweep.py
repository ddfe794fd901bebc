"""A store that several LeanModels share: what none of them needs any more goes, also when it happened unseen."""

from __future__ import annotations

from kube_client import until
from life import RECIPE_B, Life, manifest
from operator_process import errors

CLAIM = "shared"
FLAGS = ("--sweep-seconds", "1", "--sweep-grace-seconds", "1")


def sharing(name, seed):
    body = manifest(name)
    body["spec"] |= {"store": {"uri": f"pvc://{CLAIM}"}, "seed": seed}
    return body


def present(folder):
    return {f"sha256:{path.name}" for path in (folder / "objects").iterdir()}


def needed(life):
    """The artifacts that a LeanModel's status names."""
    status = life.body()["status"]
    return {status["largeRevision"]["artifact"], status["stableRevision"]["artifact"]}


def test_a_shared_store_is_swept(api, simulator, home, operator, tmp_path):
    store = tmp_path / "store"
    simulator.behaviours[home].store = store
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    api.create(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": CLAIM}, "spec": claim},
        home,
    )
    first, second = Life(api, simulator, home, "first"), Life(api, simulator, home, "second")
    one = operator(*FLAGS).start()
    for life, seed in ((first, 1), (second, 2)):
        life.create(sharing(life.name, seed))
    for life in (first, second):
        life.ready()
    mine, other = needed(first), needed(second)
    assert mine != other and present(store) == mine | other

    def noted():
        books = api.list("v1", "ConfigMap", home, "leanmodel.io/kind=store")
        return books and mine | other <= set(books[0]["data"]["needed"].split())

    until(noted, "the operator has noted what is needed", 90)
    one.kill()
    second.delete()
    second.gone()
    one.start()
    until(lambda: present(store) == mine, "what the deleted one alone needed is gone", 60)
    first.change(lean={"steps": RECIPE_B})
    first.ready()
    assert mine < present(store), "a way back to the first recipe is free"
    first.delete()
    until(lambda: present(store) == set(), "an empty store is left", 60)

    def cleared():
        return not api.list("batch/v1", "Job", home, "leanmodel.io/kind=sweep")

    until(cleared, "no sweep is left over", 90)
    assert errors(one.lines()) == []


def test_its_own_claim_takes_the_books_along(life, operator):
    one = operator(*FLAGS).start()
    life.create()
    life.ready()
    selector = "leanmodel.io/kind=store"
    until(lambda: life.api.list("v1", "ConfigMap", life.namespace, selector), "the store has its books", 90)
    life.delete()
    life.gone()
    until(lambda: not life.api.list("v1", "ConfigMap", life.namespace, selector), "they are gone as well", 60)
    assert errors(one.lines()) == []
