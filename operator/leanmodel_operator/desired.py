"""From a LeanModel and what is observed to what should be: the Job to run, the revisions to serve, the route."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from leanmodel_api.plan import CompressPlan, CompressResult, ProvePlan, RevisionRef
from leanmodel_api.resource import LeanModel
from leanmodel_api.routing_policy import AnyPolicy
from leanmodel_api.serving import ModelServing, Price

from .jobs import large_plan, lean_plan, prove_plan, revision
from .status import Observed, lean_admitted

Role = Literal["Large", "Lean"]


@dataclass(frozen=True)
class Served:
    """One model revision that should be up, and how."""

    role: Role
    revision: RevisionRef
    serving: ModelServing
    price: Price | None


@dataclass(frozen=True)
class Desired:
    """What should be.

    Attributes:
        job: the Job that should run now; none when nothing is left to do or to be done yet.
        served: revisions that should be up, the large one first.
        policy: how the router divides requests; none sends all to the large model.
        lean: the revision that the policy is about; the router's dark one while it is being proven.
        settled: whether nothing will change by itself any more.
    """

    job: CompressPlan | ProvePlan | None
    served: tuple[Served, ...]
    policy: AnyPolicy | None
    lean: RevisionRef | None
    settled: bool


def desired(model: LeanModel, seen: Observed, *, cores: int, base_dir: str, engine: str) -> Desired:
    """Return what should be.

    The large model is served as soon as there is one and is never taken down for a lean one; a lean
    revision is up only while it is being proven or has passed; a failure stops new work, not serving.

    Args:
        cores: cores of the machine (or of the Job's pod).
        base_dir: folder that file: sources are relative to.
        engine: what the certificate is bound to, as the serving side names it.
    """
    job = None if seen.failure or model.spec.suspend else _next_job(model, seen, cores, base_dir, engine)
    served: list[Served] = []
    if seen.large is not None:
        served.append(_served(model, seen.large))
    rejected = seen.report is not None and not lean_admitted(seen.report)
    lost = seen.failure is not None and seen.report is None
    keep_lean = seen.lean is not None and seen.large_serves and not rejected and not lost
    if keep_lean and seen.lean is not None:
        served.append(_served(model, seen.lean))
    admitted = lean_admitted(seen.report) and keep_lean
    settled = seen.failure is not None or (
        job is None and (rejected or seen.routed or (seen.large_serves and model.spec.lean is None))
    )
    return Desired(
        job=job, served=tuple(served), settled=settled,
        policy=seen.report.policy if admitted and seen.report is not None else None,
        lean=revision(seen.lean) if keep_lean and seen.lean is not None else None,
    )  # fmt: skip


def _next_job(
    model: LeanModel, seen: Observed, cores: int, base_dir: str, engine: str
) -> CompressPlan | ProvePlan | None:
    """Return the one Job that comes next; the large model answers before the lean one is worked on."""
    if seen.large is None:
        return large_plan(model, cores, base_dir)
    if not seen.large_serves:
        return None
    if seen.lean is None:
        return lean_plan(model, seen.large, cores, base_dir)
    if seen.lean_serves and seen.report is None:
        return prove_plan(model, seen.large, seen.lean, engine, base_dir)
    return None


def _served(model: LeanModel, result: CompressResult) -> Served:
    spec = model.spec
    large = result.role == "Large"
    price = (spec.pricing.large if large else spec.pricing.lean) if spec.pricing else None
    return Served(result.role, revision(result), spec.serving.large if large else spec.serving.lean, price)
