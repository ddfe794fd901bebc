"""Facts that no watched object tells, gathered beside the loop: probes, logs, tokens, inputs.

A turn never waits for them: it takes what is known, has what is missing looked up, and is taken up again when the
answer is there.
"""

from __future__ import annotations

import asyncio
import time
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from leanmodel_api.classification import Task
from leanmodel_api.resource import LeanModel
from leanmodel_api.router import Broken
from leanmodel_api.status import CostSummary

from .. import probe
from . import names, provider, teacher, volumes
from .api import Api, ApiError
from .mirror import Name
from .observed import Facts, JobSeen, LogSeen, Observed, job_message, job_result
from .rayservice import SERVE_PORT
from .reading import digest_inputs, read_log
from .settings import Settings

PROGRESS_SECONDS = 10.0
PROVEN_SECONDS = 300.0
"""How long a generation that went through counts, while its application stays up."""
MISSES = 3
"""So many refusals in a row take it back: one of them may be a router that is full at the moment."""
INPUTS_SECONDS = 30.0
COST_SECONDS = 300.0
KUBERAY_SECONDS = 25.0
_PROGRESS_BYTES = 64 * 1024
_RESULT_BYTES = 4 * 2**20
_COST_DIGITS = 2
"""Whole cents: a status that follows every request would be written all the time."""
_THREADS = 16


@dataclass
class _Known:
    """What is known of one LeanModel; ``uid`` tells when it is another of the same name."""

    uid: str
    token: str = ""
    answers: dict[tuple[str, str], float] = field(default_factory=dict)
    silent: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Refusals in a row, and the words of the last one."""
    starting: dict[tuple[str, str], float] = field(default_factory=dict)
    in_force: tuple[str, int | None] = ("", None)
    logs: dict[str, tuple[float, LogSeen]] = field(default_factory=dict)
    inputs: tuple[float, str, str | None, str] | None = None
    keys: dict[str, tuple[float, str, str]] = field(default_factory=dict)
    cost: tuple[float, CostSummary | None] = (0.0, None)
    broken: Broken | None = None
    inherited: bool = False
    running: set[str] = field(default_factory=set)

    def refusals(self) -> dict[str, str]:
        """Return the words of the last refusals."""
        return {revision: words for revision, (_, words) in self.silent.items()}


class Gatherer:
    """Keeps the facts of all LeanModels."""

    def __init__(self, api: Api, settings: Settings, notify: Callable[[Name], None]) -> None:
        """Take how to ask, and whom to tell of an answer.

        Args:
            notify: puts a name on the queue.
        """
        self._api, self._settings, self._notify = api, settings, notify
        self._known: dict[Name, _Known] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="probe")
        self.kuberay = True
        """Whether the API server knows RayServices; looked up again from time to time while it does not."""
        self._asked_kuberay = 0.0

    def forget(self, name: Name) -> None:
        """Drop what is known of a LeanModel that is gone."""
        self._known.pop(name, None)

    async def facts(
        self, name: Name, model: LeanModel | None, seen: Observed, status: Mapping[str, Any]
    ) -> Facts:
        """Return the facts about a LeanModel as far as they are known.

        Args:
            model: the LeanModel; None when its manifest is refused (then nothing but what serves is asked).
            seen: what its objects say.
            status: as it stands: what an operator before this one found out counts until it is asked again.
        """
        known = self._known.get(name)
        if known is None or known.uid != seen.uid:
            known = self._known[name] = _taken_over(seen, status)
        if not known.token:
            known.token = await self._token(name, seen.uid)
        inputs, missing = await self._inputs(name, model, known)
        await self._look_for_kuberay(name)
        answers = self._serving(name, known, seen)
        late = self._late(known, seen, answers)
        for job in seen.jobs:
            self._log(name, known, job)
        current = {job.pod.uid for job in seen.jobs if job.pod}
        known.logs = {uid: entry for uid, entry in known.logs.items() if uid in current}
        generation = known.in_force[1] if known.in_force[0] == _cluster(seen) else None
        return Facts(
            answers=answers, late=late, silent=known.refusals(), router_generation=generation, logs={uid: log for uid, (_, log) in known.logs.items()},
            tokens=bool(known.token), inputs=inputs, missing=missing, kuberay=self.kuberay, cost=known.cost[1],
            broken=known.broken, 
            provider_key=await self._key(name, provider.key_secret(model), provider.ROUTER, known),
            teacher_key=await self._key(name, teacher.key_secret(model), teacher.MISSING, known),
        )  # fmt: skip

    # ------------------------------------------------------------ what serves

    def _serving(self, name: Name, known: _Known, seen: Observed) -> frozenset[str]:
        cluster, router = _cluster(seen), seen.router
        if router is None or seen.serve is None or not cluster or not known.token:
            return frozenset()
        now = time.monotonic()
        up = {b.revision for b in router.backends() if seen.serve.running(b.revision)}
        known.answers = {key: at for key, at in known.answers.items() if key[0] == cluster and key[1] in up}
        known.silent = {revision: said for revision, said in known.silent.items() if revision in up}
        port = seen.serve.port or SERVE_PORT
        endpoint = _filled(self._settings.endpoint, name, port)
        for revision in sorted(up):
            at = known.answers.get((cluster, revision))
            if at is None or now - at > PROVEN_SECONDS:
                self._start(
                    name,
                    known,
                    f"generate {revision}",
                    partial(self._ask, name, known, cluster, revision, endpoint, router.task),
                )
        if up and (known.in_force != (cluster, router.generation) or known.inherited):
            known.inherited = False
            self._start(name, known, "in force", partial(self._ask_settings, known, cluster, endpoint))
        if up and now - known.cost[0] > COST_SECONDS:
            known.cost = (now, known.cost[1])
            metrics = _filled(self._settings.metrics_endpoint, name, port)
            self._start(name, known, "cost", partial(self._ask_watch, known, metrics, endpoint))
        return frozenset(revision for _, revision in known.answers)

    def _late(self, known: _Known, seen: Observed, answers: frozenset[str]) -> frozenset[str]:
        """Return the revisions that take too long to start, by this process's own clock.

        A new operator counts anew: it knows nothing of what was before, and a deadline that comes later harms nobody.
        """
        cluster, asked = _cluster(seen), seen.router.backends() if seen.router else []
        wanted = {(cluster, b.revision) for b in asked if b.revision not in answers}
        now = time.monotonic()
        known.starting = {key: known.starting.get(key, now) for key in wanted if cluster}
        limit = self._settings.start_deadline_seconds
        return frozenset(revision for (_, revision), at in known.starting.items() if now - at > limit)

    async def _ask(
        self, name: Name, known: _Known, cluster: str, revision: str, endpoint: str, task: Task | None
    ) -> None:
        loop = asyncio.get_running_loop()
        words = await loop.run_in_executor(
            self._threads, probe.refusal, endpoint, name[1], revision, known.token, task
        )
        if not words:
            known.answers[(cluster, revision)] = time.monotonic()
            known.silent.pop(revision, None)
            return
        misses = known.silent.get(revision, (0, ""))[0] + 1
        known.silent[revision] = (misses, words)
        if misses >= MISSES:
            known.answers.pop((cluster, revision), None)

    async def _ask_settings(self, known: _Known, cluster: str, endpoint: str) -> None:
        loop = asyncio.get_running_loop()
        known.in_force = (
            cluster,
            await loop.run_in_executor(self._threads, probe.settings_in_force, endpoint),
        )

    async def _ask_watch(self, known: _Known, metrics: str, endpoint: str) -> None:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, probe.costs, metrics, _COST_DIGITS)
        known.broken = await loop.run_in_executor(self._threads, probe.broken, endpoint) or known.broken
        known.cost = (time.monotonic(), found or known.cost[1])

    # ------------------------------------------------------------ Jobs

    def _log(self, name: Name, known: _Known, job: JobSeen) -> None:
        """Have a Job's log read: its result once, its progress every few seconds."""
        if job.pod is None:
            return
        at, log = known.logs.get(job.pod.uid, (0.0, LogSeen()))
        wants_result = job.state == "Succeeded" and job_result(job, Facts(logs={job.pod.uid: log})) is None
        wants_progress = (
            job.state == "Running" and job.pod.phase == "Running" and time.monotonic() - at > PROGRESS_SECONDS
        )
        if (wants_result and "sha256" in job_message(job)) or wants_progress:
            self._start(
                name, known, f"log {job.pod.uid}", partial(self._read_log, name, known, job, wants_result)
            )

    async def _read_log(self, name: Name, known: _Known, job: JobSeen, result: bool) -> None:
        assert job.pod is not None
        lines, limit = (200, _RESULT_BYTES) if result else (50, _PROGRESS_BYTES)
        text = await self._api.log(name[0], job.pod.name, tail=lines, limit=limit)
        before = known.logs.get(job.pod.uid, (0.0, LogSeen()))[1]
        found = read_log(text, before)
        known.logs[job.pod.uid] = (time.monotonic(), found)

    # ------------------------------------------------------------ tokens and inputs

    async def _token(self, name: Name, uid: str) -> str:
        secret = await self._api.get("Secret", name[0], names.child(name[1], "tokens"))
        if secret is None or not any(
            r.get("uid") == uid for r in secret["metadata"].get("ownerReferences", ())
        ):
            return ""
        return b64decode(secret.get("data", {}).get("internal", "")).decode()

    async def _look_for_kuberay(self, name: Name) -> None:
        if self.kuberay or time.monotonic() - self._asked_kuberay < KUBERAY_SECONDS:
            return
        self._asked_kuberay = time.monotonic()
        try:
            await self._api.list("RayService", name[0], names.SELECTOR)
        except ApiError as error:
            if error.status == 404:
                return
            raise
        self.kuberay = True

    async def _inputs(self, name: Name, model: LeanModel | None, known: _Known) -> tuple[str | None, str]:
        """Return the digest of the ConfigMap of inputs, and what is missing in words."""
        where = volumes.inputs(model) if model is not None else None
        if where is None or where.config_map is None:
            return "", ""
        now = time.monotonic()
        asked = f"{where.config_map} {' '.join(where.files)}"
        if known.inputs is None or known.inputs[1] != asked or now - known.inputs[0] > INPUTS_SECONDS:
            found = await self._api.get("ConfigMap", name[0], where.config_map)
            known.inputs = (now, asked, *digest_inputs(found, where, name[0]))
        return known.inputs[2], known.inputs[3]

    async def _key(self, name: Name, secret: str | None, what: tuple[str, str], known: _Known) -> str:
        """Return why an external provider's key is not there, in words; nothing of it is kept."""
        if secret is None:
            return ""
        now = time.monotonic()
        at, asked, words = known.keys.get(what[0], (0.0, "", ""))
        if asked != secret or now - at > INPUTS_SECONDS:
            found = await self._api.get("Secret", name[0], secret)
            words = provider.key_missing(found, secret, name[0], what)
            known.keys[what[0]] = (now, secret, words)
        return words

    # ------------------------------------------------------------ beside the loop

    def _start(self, name: Name, known: _Known, what: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do something beside the loop, once at a time, and tell the queue if it brought anything new."""
        if what in known.running:
            return
        known.running.add(what)
        before = _state(known)

        async def run() -> None:
            try:
                await work()
            except Exception:  # what could not be asked is asked again at the next turn
                pass
            finally:
                known.running.discard(what)
                if _state(known) != before:
                    self._notify(name)

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Give up what is under way."""
        for task in list(self._tasks):
            task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)


def _taken_over(seen: Observed, status: Mapping[str, Any]) -> _Known:
    """Return what is known of a LeanModel at first sight: what its conditions say of what serves, to be asked soon.

    Without it every start of the operator would write into every status that nothing answers, and take it back.
    """
    known = _Known(seen.uid)
    true = {c.get("type") for c in status.get("conditions", ()) if c.get("status") == "True"}
    router, cluster = seen.router, _cluster(seen)
    if router is None or not cluster or "Serving" not in true:
        return known
    long_ago = time.monotonic() - PROVEN_SECONDS - 1
    with_traffic = [router.large.revision, *([router.lean.revision] if router.lean else [])]
    known.answers = {(cluster, revision): long_ago for revision in with_traffic}
    if "Ready" in true:
        known.in_force, known.inherited = (cluster, router.generation), True
    return known


def _filled(address: str, name: Name, port: int) -> str:
    """Return an address of the settings for one LeanModel.

    Args:
        port: of its Service.
    """
    service = names.rayservice(name[1])
    return address.format(namespace=name[0], name=name[1], service=service, port=port)


def _cluster(seen: Observed) -> str:
    return seen.serve.clusters[0] if seen.serve is not None and seen.serve.clusters else ""


def _state(known: _Known) -> Any:
    logs = {uid: log for uid, (_, log) in known.logs.items()}
    return frozenset(known.answers), known.refusals(), known.in_force, logs, known.cost[1], known.broken
