"""Who answers: from what gets traffic now and what this generation has made, to what gets traffic next. Pure.

The router's settings, in their ConfigMap, are the record of what gets traffic. A generation's models replace it only
when they can do at least what it does: a routed pair gives way to a proven routed pair, and never to less, unless
the manifest no longer asks for a lean model.
"""

from __future__ import annotations

from collections.abc import Collection

from leanmodel_api.report import ProveReport
from leanmodel_api.resource import LeanModel
from leanmodel_api.router import Backend, Broken, RouterSettings

from ..desired import Desired
from ..router import declared, router_settings
from ..status import lean_admitted
from .children.pods import provider_key_file
from .children.serving import engine_url


def next_traffic(
    model: LeanModel,
    now: RouterSettings | None,
    wanted: Desired,
    report: ProveReport | None,
    answers: Collection[str],
    broken: Broken | None = None,
) -> RouterSettings | None:
    """Return the router's next settings; the present ones, generation included, when nothing changes.

    Args:
        now: what gets traffic now; None before the first time.
        wanted: what this generation wants served.
        report: this generation's proof.
        answers: revisions through which a generation has gone.
        broken: what the router's monitors have found; recorded, so that it outlives the router's pod.

    Returns:
        None while there is nothing to serve yet.
    """
    draft = router_settings(model, wanted, report, engine_url, 0, provider_key_file)
    if now is None:
        return draft.model_copy(update={"generation": 1}) if draft is not None else None
    chosen = _recorded(_chosen(model, now, draft, report, answers), now, broken)
    # Whoever gets the traffic: who may ask for how much, who may be asked outside, and how long anybody is waited for
    # hold at once.
    chosen = chosen.model_copy(update=declared(model.spec, provider_key_file))
    if chosen.model_copy(update={"generation": now.generation}) == now:
        return now
    return chosen.model_copy(update={"generation": now.generation + 1})


def _recorded(chosen: RouterSettings, now: RouterSettings, seen: Broken | None) -> RouterSettings:
    """Keep on record that a promise is broken, as long as the policy that made it is in force."""
    found = next((one for one in (seen, now.broken) if one is not None and one.about(chosen.policy)), None)
    return chosen.model_copy(update={"broken": found})


def _chosen(
    model: LeanModel,
    now: RouterSettings,
    draft: RouterSettings | None,
    report: ProveReport | None,
    answers: Collection[str],
) -> RouterSettings:
    if draft is None:
        return _kept(model, now, [])
    others = [backend for backend in draft.backends() if backend.revision != draft.large.revision]
    same_large = draft.large.revision == now.large.revision
    large_up = same_large or draft.large.revision in answers
    if draft.lean is not None and large_up:
        routed_already = now.lean is not None and now.lean.revision == draft.lean.revision
        if routed_already or draft.lean.revision in answers:
            return draft
    if draft.lean is not None:  # proven, but it does not answer at this moment: it stays dark until it does
        others = [draft.lean]
    if model.spec.lean is None and large_up:
        return draft
    if now.lean is None and large_up:
        return _all_large(draft, others)
    # The very lean model that has traffic may fail gates that are new: it is not kept against them.
    refused = report.lean.artifact if report is not None and not lean_admitted(report) else None
    if same_large and now.lean is not None and now.lean.artifact == refused:
        return _all_large(draft, others)
    dark = [*([] if same_large else [draft.large]), *others]
    return _kept(model, now, dark)


def _all_large(draft: RouterSettings, dark: list[Backend]) -> RouterSettings:
    return draft.model_copy(update={"lean": None, "policy": None, "strategy": "AllLarge", "dark": dark})


def _kept(model: LeanModel, now: RouterSettings, dark: list[Backend]) -> RouterSettings:
    """Return the present traffic with other dark revisions beside it, at the manifest's prices."""
    used = {now.large.revision, *([now.lean.revision] if now.lean else [])}
    pricing = model.spec.pricing
    large = now.large.model_copy(update={"price": pricing.large if pricing else None})
    lean = now.lean.model_copy(update={"price": pricing.lean if pricing else None}) if now.lean else None
    return now.model_copy(
        update={"large": large, "lean": lean, "dark": [item for item in dark if item.revision not in used]}
    )


def joined(router: RouterSettings | None, large: str) -> bool:
    """Return whether a lean revision has come up beside a large one, which then has served.

    A large model that cannot be asked for a moment (under a proof's load, say) is no reason to take the lean one down
    and bring it up again: they come back together.
    """
    return router is not None and router.large.revision == large and bool(router.lean or router.dark)
