"""The loop's decision: a LeanModel, what was seen and the time in; objects, deletions, status and events out.

Pure: no I/O, no clock, no kopf. It may be run again at any moment, from any state that a killed operator left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from leanmodel_api.resource import LeanModel
from leanmodel_api.router import RouterSettings
from leanmodel_api.status import Status

from .. import status as loop
from ..desired import Desired, desired
from ..jobs import revision
from . import conditions, jobs, names, provider, served, teacher, volumes
from .accept import accept
from .candidate import ALL_CORES, Candidate, candidate, engine_facts, pinned_image
from .children import access, config
from .children.owner import Owner
from .observed import Key, Observed
from .settings import Settings
from .traffic import joined, next_traffic
from .trouble import Trouble, replica_lost, serve_troubles, start_too_slow

WAIT_FOR_NAMES = 3.0
LOOK_AGAIN = 2.0


@dataclass(frozen=True)
class Ref:
    """An object to delete, and the very one: its uid goes along as a precondition."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True)
class Event:
    """Something to tell people."""

    kind: str
    """Normal or Warning."""
    reason: str
    message: str


@dataclass(frozen=True)
class Plan:
    """What to do, in this order.

    Attributes:
        creates: objects that are made once and never written again.
        applies: objects that are kept as they stand here.
        deletes: objects that go.
        status: the new status; None leaves it.
        events: told before the status is written, under names that make telling twice harmless.
        requeue_after: seconds after which to look again by oneself; None waits for something to happen.
    """

    creates: tuple[dict[str, Any], ...] = ()
    applies: tuple[dict[str, Any], ...] = ()
    deletes: tuple[Ref, ...] = ()
    status: dict[str, Any] | None = None
    events: tuple[Event, ...] = ()
    requeue_after: float | None = None


def plan(body: Mapping[str, Any], seen: Observed, settings: Settings, now: str) -> Plan:
    """Return what to do about one LeanModel.

    Args:
        body: the LeanModel as the API server has it.
        seen: what was seen of its children.
        now: the time (RFC 3339).
    """
    if body["metadata"].get("deletionTimestamp"):
        return Plan()  # owner references take everything along; nothing here can hold it up
    before = _status(body)
    model, issues = accept(dict(body))
    if model is None:
        refused = conditions.refused(body, issues, seen, before, now)
        stopped = [Ref(*one) for job in teacher.forbidden_jobs(body, seen) for one in jobs.gone(seen, job)]
        closed = Plan(
            applies=provider.closed(body, seen), deletes=tuple(stopped), status=refused, requeue_after=None
        )
        return _said(closed, before, refused)
    return _planned(model, seen, settings, now, before)


def _planned(model: LeanModel, seen: Observed, settings: Settings, now: str, before: Status | None) -> Plan:
    owner = Owner(
        model.metadata.name,
        model.metadata.namespace,
        seen.uid,
        model.metadata.labels.get(names.QUEUE_LABEL, ""),
    )
    image = pinned_image(dict(seen.serve.config) if seen.serve else None, settings)
    found = candidate(model, seen, settings, image)
    wanted = desired(
        model, _for_decision(found, seen), cores=ALL_CORES, base_dir=volumes.INPUTS_PATH,
        engine=engine_facts(model, image),
    )  # fmt: skip
    following = next_traffic(model, seen.router, wanted, found.report, seen.facts.answers, seen.facts.broken)
    work = jobs.plan_jobs(owner, model, seen, settings, found, jobs.stage_of(wanted.job))
    creates = [*_foundation(owner, model, seen, settings), *work.creates]
    applies: list[dict[str, Any]] = []
    held: tuple[str, ...] = ()
    if following is not None and seen.facts.kuberay:
        applies.append(config.router_config(owner, following))
        ray = served.ray_service(owner, model, seen, settings, following)
        applies.append(ray.body)
        held = ray.held
    deletes = tuple(Ref(kind, name, uid) for kind, name, uid in work.deletes)
    blocked = [
        key for key in map(_key, [*creates, *applies]) if key in seen.foreign or key in seen.facts.taken
    ]
    shown = conditions.Shown(
        model=model, seen=seen, settled=wanted.settled, found=found, following=following,
        observed=_for_status(model, found, seen, following),
        troubles=(*work.troubles, *serve_troubles(seen.serve, seen.pods), *_missing(seen, settings, before, blocked)), held=held,
    )  # fmt: skip
    status = conditions.status(shown, now, before)
    result = Plan(
        creates=() if blocked else tuple(creates), applies=() if blocked else tuple(applies), deletes=deletes,
        status=status, requeue_after=_requeue(seen, wanted, following, bool(blocked)),
    )  # fmt: skip
    return _said(result, before, status)


def _foundation(owner: Owner, model: LeanModel, seen: Observed, settings: Settings) -> list[dict[str, Any]]:
    """Return what stands below everything else, made once: accounts, tokens, the store's claim, the budget."""
    where = volumes.store(model, settings)
    parts = [access.job_account(owner), access.serve_account(owner), access.disruption_budget(owner)]
    if where.own:
        parts.insert(0, access.store_claim(owner, where, settings))
    missing = [part for part in parts if _key(part) not in seen.objects]
    return missing if seen.facts.tokens else [access.tokens(owner), *missing]


def _for_decision(found: Candidate, seen: Observed) -> loop.Observed:
    """Return what the shared loop decides by; a model that cannot be started counts as not there."""
    failure = found.failure
    large, lean, report = found.large, found.lean, found.report
    if failure is not None and failure.step == "serve-lean":
        lean = report = None
    dark = (
        seen.router is not None and large is not None and revision(large).name != seen.router.large.revision
    )
    if failure is not None and failure.step == "serve-large" and dark:
        large = lean = report = None
    answers = seen.facts.answers
    return loop.Observed(
        large=large, lean=lean, report=report,
        large_serves=large is not None and (revision(large).name in answers or joined(seen.router, revision(large).name)),
        lean_serves=lean is not None and revision(lean).name in answers,
        failure=(failure.step, failure.message) if failure else None, routed=_routed(found, seen),
    )  # fmt: skip


def _for_status(
    model: LeanModel, found: Candidate, seen: Observed, following: RouterSettings | None
) -> loop.Observed:
    """Return what the status is about: here every result shows, and only traffic that has landed counts."""
    answers, router = seen.facts.answers, seen.router
    large_up = found.large is not None and revision(found.large).name in answers
    if model.spec.lean is None:  # this generation is out only once the router sends it everything
        large_up = large_up and router is not None and found.large is not None and (
            router.large.revision == revision(found.large).name and router.lean is None and _confirmed(seen)
        )  # fmt: skip
    stable = None
    lean_name = revision(found.lean).name if found.lean else ""
    if router is not None and router.lean is not None and router.lean.revision != lean_name:
        stable = served.revision_ref(router.lean)
    return loop.Observed(
        large=found.large, lean=found.lean, report=found.report, large_serves=large_up,
        lean_serves=found.lean is not None and lean_name in answers,
        failure=(found.failure.step, found.failure.message) if found.failure else None,
        routed=_routed(found, seen), answering=bool(answers & with_traffic(seen)), stable=stable,
        working=any(job.state == "Running" for job in seen.jobs),
        silent="; ".join(f"{name}: {words}" for name, words in sorted(seen.facts.silent.items())),
    )  # fmt: skip


def with_traffic(seen: Observed) -> frozenset[str]:
    """Return the revisions that users' requests go to now."""
    router = seen.router
    if router is None:
        return frozenset()
    return frozenset([router.large.revision, *([router.lean.revision] if router.lean else [])])


def _routed(found: Candidate, seen: Observed) -> bool:
    """Return whether the router confirmed that this generation's pair gets the traffic."""
    router = seen.router
    if router is None or router.lean is None or found.lean is None or found.large is None:
        return False
    pair = (router.large.revision, router.lean.revision)
    return pair == (revision(found.large).name, revision(found.lean).name) and _confirmed(seen) and (
        found.report is not None and router.policy == found.report.policy
    )  # fmt: skip


def _confirmed(seen: Observed) -> bool:
    return seen.router is not None and seen.facts.router_generation == seen.router.generation


def _missing(seen: Observed, settings: Settings, before: Status | None, blocked: list[Key]) -> list[Trouble]:
    """Return what outside of our own children stands in the way."""
    found = []
    if not seen.facts.kuberay:
        found.append(
            Trouble(
                "serve",
                "KubeRayMissing",
                "the API server knows no RayService: install KubeRay 1.6 or newer with its CRDs",
            )
        )
    lost = [words for name in sorted(with_traffic(seen)) if (words := replica_lost(seen.serve, name))]
    found += [Trouble("serve", "ReplicaLost", words) for words in lost]
    if _interrupted(seen, before) and not lost:
        redis = (
            ""
            if settings.redis_address
            else "; without Redis (the operator's setting redisAddress) a lost head interrupts"
        )
        found.append(
            Trouble(
                "serve",
                "Restarting",
                f"nothing answers at this moment: pods of the Ray cluster are being replaced, and service returns by itself{redis}",
            )
        )
    for name in sorted(seen.facts.late & with_traffic(seen)):
        silent = seen.facts.silent.get(name, "")
        words = start_too_slow(seen.serve, name, settings.start_deadline_seconds, silent)
        found.append(Trouble("serve", "StartSlow", words))
    if seen.facts.missing:
        found.append(Trouble("compress-large", "InputsMissing", seen.facts.missing))
    if seen.facts.provider_key:
        found.append(Trouble("serve", "ProviderKeyMissing", seen.facts.provider_key))
    if blocked:
        words = ", ".join(f"{kind} {name}" for kind, name in blocked[:3])
        found.append(
            Trouble(
                "serve",
                "NameTaken",
                f"{words} is not this LeanModel's: it is of an earlier one and is being collected, or delete it",
            )
        )
    return found


def _interrupted(seen: Observed, before: Status | None) -> bool:
    """Return whether something served and nothing does now."""
    if seen.router is None or seen.router.large.revision in seen.facts.answers:
        return False
    served_before = next((c for c in before.conditions if c.type == "Serving"), None) if before else None
    return served_before is not None and (
        served_before.status == "True" or served_before.reason in ("Restarting", "ReplicaLost")
    )


def _requeue(
    seen: Observed, wanted: Desired, following: RouterSettings | None, blocked: bool
) -> float | None:
    """Return when to look again although no event may come: at what only asking tells."""
    if blocked:
        return WAIT_FOR_NAMES
    if seen.facts.missing or not seen.facts.kuberay:
        return 30.0
    asked = following is not None and (
        not _confirmed(seen) or any(b.revision not in seen.facts.answers for b in following.backends())
    )
    # Who refuses is asked again soon, whether it answered before or not.
    if asked or seen.facts.silent or any(job.state == "Running" for job in seen.jobs):
        return LOOK_AGAIN
    return 30.0 if seen.facts.provider_key or seen.facts.teacher_key else None


def _said(result: Plan, before: Status | None, status: dict[str, Any]) -> Plan:
    """Return the plan with an event for each condition that changed its state or reason."""
    old = {c.type: (c.status, c.reason) for c in before.conditions} if before else {}
    events = []
    for item in status["conditions"]:
        if item["type"] not in conditions.TOLD or old.get(item["type"]) == (item["status"], item["reason"]):
            continue
        bad = conditions.is_bad(item["type"], item["status"])
        if bad is not None and (bad or item["message"]):
            events.append(Event("Warning" if bad else "Normal", item["reason"], item["message"][:1000]))
    return replace(result, events=tuple(dict.fromkeys(events)))


def _status(body: Mapping[str, Any]) -> Status | None:
    try:
        return Status.model_validate(body.get("status") or {})
    except ValueError:  # written by another version: it is written anew
        return None


def _key(item: Mapping[str, Any]) -> Key:
    return str(item["kind"]), str(item["metadata"]["name"])
