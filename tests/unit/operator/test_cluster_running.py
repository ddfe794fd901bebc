"""What runs around the plan: a Job's shell, the mirror, the queue, the Lease, and the guard of writes."""

from __future__ import annotations

import asyncio
import json
import sys
from base64 import b64encode
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import pytest
from cluster_world import NOW, SETTINGS, World, manifest
from hypothesis import given
from hypothesis import strategies as st

from leanmodel_operator import jobshell
from leanmodel_operator.cluster import names
from leanmodel_operator.cluster.accept import accept
from leanmodel_operator.cluster.api import Api, ApiError, NotLeaderError
from leanmodel_operator.cluster.apply import apply
from leanmodel_operator.cluster.compare import Write, writes
from leanmodel_operator.cluster.gather import Gatherer
from leanmodel_operator.cluster.lease import Leader, LostError
from leanmodel_operator.cluster.mirror import Mirror
from leanmodel_operator.cluster.observe import observe
from leanmodel_operator.cluster.observed import Facts, LogSeen, read
from leanmodel_operator.cluster.plan import Ref, plan
from leanmodel_operator.cluster.queue import Backoff, RetryError, WorkQueue
from leanmodel_operator.cluster.reading import read_log
from leanmodel_operator.cluster.settings import Settings

# ------------------------------------------------------------------ the Job's shell


def shell(tmp_path: Any, code: str) -> tuple[int, dict[str, Any]]:
    message = tmp_path / "message"
    result = tmp_path / "result.json"
    program = f"import sys, pathlib\nresult = pathlib.Path({str(result)!r})\n{code}"
    exit_code = jobshell.main(
        ["--result", str(result), "--message", str(message), "--", sys.executable, "-c", program]
    )
    assert message.stat().st_size <= 4096
    return exit_code, json.loads(message.read_text())


def test_a_result_comes_back_whole(tmp_path, capsys):
    code, said = shell(tmp_path, "result.write_text('{\"a\": 1}')")
    assert code == 0 and jobshell.unpack(said["packed"], said["sha256"]) == '{"a": 1}'


def test_a_large_result_comes_through_the_log(tmp_path, capsys):
    code, said = shell(
        tmp_path, "import random\nresult.write_text(str([random.random() for _ in range(2000)]))"
    )
    assert code == 0 and "packed" not in said
    log = read_log(capsys.readouterr().out, LogSeen())
    assert jobshell.unpack(log.packed, said["sha256"]) == (tmp_path / "result.json").read_text()
    with pytest.raises(ValueError, match="not the one"):
        jobshell.unpack(log.packed, "0" * 64)


def test_a_failure_says_its_last_words_and_step(tmp_path, capsys):
    line = 'leanmodel-progress {"job":"prove","step":"ask-large","state":"running"}'
    code, said = shell(tmp_path, f"print({line!r}); print('error: spec.x: y'); sys.exit(2)")
    assert (code, said["exit"], said["step"], said["error"]) == (2, 2, "ask-large", "spec.x: y")
    assert read_log(capsys.readouterr().out, LogSeen()).progress is not None


def test_a_killed_command_ends_as_the_shell_would_say(tmp_path):
    code, said = shell(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert code == 137 and said["exit"] == -9


# ------------------------------------------------------------------ the mirror


def item(name: str, version: int, owner: str = "m") -> dict[str, Any]:
    meta = {
        "namespace": "ml",
        "name": name,
        "resourceVersion": str(version),
        "labels": {names.LABEL_NAME: owner},
        "managedFields": [1],
    }
    return {"metadata": meta}


def test_the_mirror_never_goes_back_in_time():
    mirror = Mirror()
    mirror.take("Job", item("a", 5))
    mirror.take("Job", item("a", 4))
    (found,) = mirror.children(("ml", "m"))
    assert found["metadata"]["resourceVersion"] == "5" and "managedFields" not in found["metadata"]


def test_a_list_takes_away_what_is_gone_and_leaves_what_is_newer():
    mirror = Mirror()
    for name, version in (("gone", 3), ("kept", 4), ("newer", 9)):
        mirror.take("Job", item(name, version))
    mirror.take("ConfigMap", item("other", 1))
    mirror.prune("Job", None, mirror.take_all("Job", [item("kept", 4)]), "6")
    assert sorted(i["metadata"]["name"] for i in mirror.children(("ml", "m"))) == ["kept", "newer", "other"]
    mirror.prune("Job", "elsewhere", set(), "99")
    assert len(mirror.children(("ml", "m"))) == 3


def test_what_is_known_already_is_no_news():
    mirror = Mirror()
    assert mirror.news("Job", item("a", 5)) == ("ml", "m")
    assert mirror.news("Job", item("a", 5)) is None, "our own write, come back as an event"
    assert mirror.news("Job", item("a", 6)) == ("ml", "m")
    assert mirror.news("Pod", item("a", 6)) == ("ml", "m"), "another kind has versions of its own"
    stranger = {"metadata": {"namespace": "ml", "name": "x", "resourceVersion": "7"}}
    assert mirror.news("Job", stranger) is None


class Deleting:
    """Stands for the API's client where an object is deleted whose event has been or will be lost."""

    def __init__(self, answer: bool | ApiError) -> None:
        self.answer = answer

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> bool:
        if isinstance(self.answer, ApiError):
            raise self.answer
        return self.answer

    async def get(self, kind: str, namespace: str, name: str) -> None:
        return None


@pytest.mark.parametrize(("answer", "left"), [(True, 0), (False, 1), (ApiError(409, "another uid"), 0)])
def test_what_is_gone_is_forgotten_without_an_event(answer, left):
    mirror = Mirror()
    mirror.take("Job", item("a", 5))
    write = Write("delete", ("Job", "a"), ref=Ref("Job", "a", "u1"))

    async def scene() -> None:
        with suppress(RetryError):
            await apply(cast(Any, Deleting(answer)), mirror, ("ml", "m"), {}, [write], ())

    asyncio.run(scene())
    assert len(mirror.children(("ml", "m"))) == left, "else it would be deleted again, turn after turn"


class Listing:
    """Stands for the API's client where a pod is there that no event has told of."""

    def __init__(self, pods: list[dict[str, Any]]) -> None:
        self.pods, self.selectors = pods, []  # type: tuple[list[dict[str, Any]], list[str]]

    async def list(self, kind: str, namespace: str, selector: str) -> list[dict[str, Any]]:
        self.selectors.append(selector)
        return self.pods

    async def get(self, kind: str, namespace: str, name: str) -> None:
        return None


def test_a_job_that_ended_before_its_pod_was_seen_is_not_made_twice():
    world = World(manifest())
    while not world.made:
        world.reconcile()
    world.play()
    (ended,) = world.made
    pods = [world.objects.pop(key) for key in list(world.objects) if key[0] == "Pod"]
    for found in (*world.objects.values(), *pods):
        found["metadata"].setdefault("namespace", "ml")
    mirror = Mirror()
    for found in (world.body, *world.objects.values()):
        mirror.take(found["kind"], found)
    name = (world.body["metadata"]["namespace"], world.body["metadata"]["name"])

    async def scene(api: Listing) -> Any:
        gatherer = Gatherer(cast(Any, api), SETTINGS, lambda name: None)
        try:
            found = await observe(cast(Any, api), mirror, gatherer, name)
        finally:
            await gatherer.close()
        assert found is not None
        return next(job for job in found[1].jobs if job.name == ended)

    assert asyncio.run(scene(Listing([]))).pod is None, "then it is lost"
    asked = Listing(pods)
    assert asyncio.run(scene(asked)).pod is not None and len(asked.selectors) == 1


# ------------------------------------------------------------------ the queue


def test_one_worker_per_name_and_once_for_many_events():
    async def scene() -> None:
        running: set[Any] = set()
        turns: list[Any] = []
        gate = asyncio.Event()

        async def handle(name: Any) -> float | None:
            assert name not in running, "two workers on one name"
            running.add(name)
            turns.append(name)
            await gate.wait()
            running.discard(name)
            return None

        queue = WorkQueue(handle)
        workers = [asyncio.create_task(queue.work()) for _ in range(4)]
        for _ in range(5):
            queue.add(("ml", "a"))
            queue.add(("ml", "b"))
        await asyncio.sleep(0)
        for _ in range(5):
            queue.add(("ml", "a"))
        gate.set()
        while queue.depth() or running:
            await asyncio.sleep(0)
        assert sorted(turns) == [("ml", "a"), ("ml", "a"), ("ml", "b")]
        for worker in workers:
            worker.cancel()

    asyncio.run(scene())


@pytest.mark.parametrize("error", [RuntimeError("x"), RetryError(0.0, "x")])
def test_a_failed_turn_comes_again_and_a_good_one_forgets_it(error):
    async def scene() -> None:
        turns = 0
        done = asyncio.Event()

        async def handle(name: Any) -> float | None:
            nonlocal turns
            turns += 1
            if turns < 4:
                raise error
            done.set()
            return None

        seen: list[str] = []
        queue = WorkQueue(handle, backoff=Backoff(base=0.001), observe=lambda result, _: seen.append(result))
        worker = asyncio.create_task(queue.work())
        queue.add(("ml", "a"))
        await asyncio.wait_for(done.wait(), 5)
        await asyncio.sleep(0)
        assert seen[-1] == "ok" and len(seen) == 4
        worker.cancel()

    asyncio.run(scene())


@given(st.integers(1, 10_000))
def test_the_back_off_grows_to_its_cap_and_never_ends(failures):
    delay = Backoff().delay(failures)
    assert 0.25 <= delay <= 120.0


# ------------------------------------------------------------------ the Lease


class LeaseServer:
    """Holds one Lease as an API server would: a replace of an older version is a conflict."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.dead = False

    async def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        if self.dead:
            raise ApiError(0, "dead")
        return json.loads(json.dumps(self.lease)) if self.lease else None

    async def create(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.lease is not None:
            raise ApiError(409, "exists")
        return self._keep(body)

    async def replace(self, body: dict[str, Any]) -> dict[str, Any]:
        if (
            self.lease is None
            or body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]
        ):
            raise ApiError(409, "conflict")
        return self._keep(body)

    def _keep(self, body: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        self.lease = json.loads(json.dumps(body))
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        return self.lease


def election() -> tuple[LeaseServer, list[Leader], list[float]]:
    server, now = LeaseServer(), [0.0]
    api: Any = server
    return server, [Leader(api, SETTINGS, name, lambda: now[0]) for name in ("one", "two")], now


def test_one_leads_and_the_other_takes_over_after_the_lease():
    async def scene() -> None:
        _, (one, two), now = election()
        assert await one._try() and not await two._try()
        now[0] = 14.0
        assert not await two._try(), "not before the Lease has run out by its own clock"
        assert not one.held(), "the first counts itself out before"
        now[0] = 15.1
        assert await two._try() and two.held() and not one.held()
        assert not await one._try()

    asyncio.run(scene())


def test_a_released_lease_is_free_at_once():
    async def scene() -> None:
        _, (one, two), _ = election()
        assert await one._try()
        await one.release()
        assert not one.held() and await two._try()

    asyncio.run(scene())


def test_a_leader_that_cannot_renew_ends():
    async def scene() -> None:
        server, (one, _), now = election()
        quick = Settings(retry_seconds=0.001)
        one._settings = quick
        assert await one._try()
        server.dead, now[0] = True, 10.1
        with pytest.raises(LostError):
            await asyncio.wait_for(one.keep(), 5)

    asyncio.run(scene())


def test_no_write_leaves_a_replica_that_may_not_lead():
    api = Api(None, 1.0, lambda verb, status: None)
    api.may_write = lambda: False
    with pytest.raises(NotLeaderError):
        asyncio.run(api.create({"kind": "Job", "metadata": {"namespace": "ml", "name": "x"}}))


# ------------------------------------------------------------------ an operator after another


def test_a_new_operator_writes_nothing_into_a_status_that_is_right():
    """Before it has asked anything again: a start of the operator is no news about what it looks after."""
    world = World(manifest())
    world.settle()

    class Server:
        async def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
            if kind == "Secret":
                return {
                    "metadata": {"ownerReferences": [{"uid": "uid-1"}]},
                    "data": {"internal": b64encode(b"word").decode()},
                }
            return {"data": {"sms.tsv": "x"}}

    async def scene() -> None:
        api: Any = Server()
        notified: list[Any] = []
        nowhere = Settings(endpoint="http://127.0.0.1:9/{service}:{port}")
        gatherer = Gatherer(api, nowhere, notified.append)
        seen = read(world.body, list(world.objects.values()), Facts())
        model, _ = accept(world.body)
        facts = await gatherer.facts(("ml", "spam-filter"), model, seen, world.body["status"])
        assert facts.answers == world.seen().facts.answers and facts.tokens
        assert facts.router_generation == world.router_generation
        full = replace(seen, facts=replace(facts, inputs=world.inputs))
        assert writes(plan(world.body, full, SETTINGS, NOW), world.body, full) == []
        while not notified:  # the question fails, since nobody listens there, and that is news
            await asyncio.sleep(0.01)
        facts = await gatherer.facts(("ml", "spam-filter"), model, seen, world.body["status"])
        assert len(facts.answers) == 2 and "refused" in str(facts.silent), "one refusal takes nothing back"
        assert plan(world.body, replace(seen, facts=facts), SETTINGS, NOW).requeue_after == 2.0
        while len(facts.answers) == 2:
            await asyncio.sleep(0.01)
            facts = await gatherer.facts(("ml", "spam-filter"), model, seen, world.body["status"])
        await gatherer.close()

    asyncio.run(scene())
