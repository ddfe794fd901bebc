"""A policy's figures on records that it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from leanmodel_api.policy import (
    Baseline,
    Baselines,
    CurvePoint,
    GroupFigures,
    Policy,
    PolicyEvaluation,
    Record,
)
from leanmodel_api.routing_policy import RoutingEvaluation, RoutingPolicy, SecondFigures
from leanmodel_routing import figures
from leanmodel_routing.aiq import table_aiq
from leanmodel_routing.bootstraps import intervals
from leanmodel_routing.bounds import label_free
from leanmodel_routing.figures import Curve
from leanmodel_routing.policies.route import RoutedTable, route_table
from leanmodel_routing.policies.ways import cost_each
from leanmodel_routing.table import Floats, Mask, Table, data_digest
from leanmodel_routing.threads import single_threaded

GROUP_ENOUGH = 300


@single_threaded
def evaluate_policy(
    policy: Policy, records: Sequence[Record], *, part: str = "records", seed: int | None = None
) -> PolicyEvaluation:
    """Evaluate a policy on records with known qualities.

    `part` names the records in the label-free bound. Raises InputError for no records, or for records
    without a stratum where the policy's scope is balanced over classes.
    """
    table = Table.of(records, policy.scope.aggregate, policy.scope.hold_back)
    return evaluate_table(policy, table, part=part, seed=seed)


def evaluate_table(
    policy: Policy, table: Table, *, part: str = "records", seed: int | None = None
) -> PolicyEvaluation:
    """`evaluate_policy` on a table."""
    routed = route_table(policy, table)
    accept, scores = routed.accepted, routed.scores
    curve = None if scores is None else figures.curve_of(table, scores, direct=routed.direct)
    pair = figures.routed(table, accept)
    each = cost_each(table, routed.asked, accept) if table.costs_known else None
    quality = figures.quality_of(table, pair)
    lean, large = figures.quality_of(table, table.lean), figures.quality_of(table, table.large)
    share = float(1.0 - accept.mean())
    reasons = _reasons(policy, table, scores, lean, large)
    gap = "apgr" not in reasons and curve is not None
    drawn = policy.seed if seed is None else seed
    found: dict[str, Any] = dict(
        kind=policy.kind,
        large_share=share,
        quality=_unit(quality),
        cost=None if each is None else float(np.mean(each)),
        cpt50=_unit(figures.cpt(curve, 0.5)) if gap and curve else None,
        cpt80=_unit(figures.cpt(curve, 0.8)) if gap and curve else None,
        apgr=figures.apgr(curve) if gap and curve else None,
        aiq=table_aiq(table, curve),
        certificate=policy.certificate,
        baselines=_baselines(table, share),
        n=len(table),
        quality_retained=quality / large if large > 0.0 else None,
        promise_held=bool(quality >= policy.certificate.retain * large - 1e-12),
        cost_basis="usd" if table.costs_known else "large-share",
        cost_all_large=float(table.large_cost.mean()) if table.costs_known else None,
        intervals=intervals(table, accept, pair, each, scores, drawn, direct=routed.direct),
        reasons=reasons,
        notes=_notes(policy, table, scores, share, lean, large),
        groups=_groups(table, accept, pair),
        label_free=label_free(table, accept, policy.certificate.confidence, part),
        latency=_latency(table, routed),
        calibration_error=None if routed.confidence is None else calibration_error(table, routed.confidence),
        curve=() if curve is None else curve_points(curve),
    )
    if isinstance(policy, RoutingPolicy):
        kinds = {name: rule.kind for name, rule in policy.groups.items()}
        relaxed = policy.relaxed()
        return RoutingEvaluation(
            **found,
            lean_calls=_unit(float(routed.asked.mean())),
            rules=kinds,
            under_pressure=None if relaxed is None else second_figures(relaxed, table, part),
        )
    return PolicyEvaluation(**found)


def second_figures(relaxed: RoutingPolicy, table: Table, part: str) -> SecondFigures:
    """What the policy does under pressure with a table's records."""
    routed, promise = route_table(relaxed, table), relaxed.certificate
    quality = figures.quality_of(table, figures.routed(table, routed.accepted))
    large = figures.quality_of(table, table.large)
    each = cost_each(table, routed.asked, routed.accepted) if table.costs_known else None
    return SecondFigures(
        kind=relaxed.kind,
        large_share=_unit(float(1.0 - routed.accepted.mean())),
        lean_calls=_unit(float(routed.asked.mean())),
        quality=_unit(quality),
        quality_retained=quality / large if large > 0.0 else None,
        cost=None if each is None else float(np.mean(each)),
        promise_held=bool(quality >= promise.retain * large - 1e-12),
        label_free=label_free(table, routed.accepted, promise.confidence, part),
    )


def curve_points(curve: Curve) -> tuple[CurvePoint, ...]:
    """The curve thinned for a report; thresholds above every score are written as 1, below all as 0."""
    thin = figures.thinned(curve)
    return tuple(
        CurvePoint(
            threshold=_unit(threshold),
            large_share=_unit(share),
            quality=_unit(quality),
            cost=None if np.isnan(cost) else max(cost, 0.0),
        )
        for threshold, share, quality, cost in zip(
            thin.threshold.tolist(),
            thin.share.tolist(),
            thin.quality.tolist(),
            thin.cost.tolist(),
            strict=True,
        )
    )


def calibration_error(table: Table, confidence: Floats) -> float:
    """Expected calibration error over ten bins of equal width, with the table's mass (Naeini et al., AAAI
    2015).
    """
    fine = 1.0 - np.clip(table.large - table.lean, 0.0, 1.0)
    bins = np.minimum((confidence * 10).astype(np.int64), 9)
    gaps = np.bincount(bins, weights=table.mass * (confidence - fine), minlength=10)
    return float(np.abs(gaps).sum())


def _baselines(table: Table, share: float) -> Baselines:
    known = table.costs_known
    lean_cost, large_cost = table.lean_cost, table.large_cost
    better: Mask = table.large > table.lean
    lean, large = figures.quality_of(table, table.lean), figures.quality_of(table, table.large)

    def baseline(large_share: float, quality: float, cost: float) -> Baseline:
        return Baseline(large_share=_unit(large_share), quality=_unit(quality), cost=cost if known else None)

    return Baselines(
        always_lean=baseline(0.0, lean, float(lean_cost.mean())),
        always_large=baseline(1.0, large, float(large_cost.mean())),
        random=baseline(
            share,
            share * large + (1 - share) * lean,
            float(share * large_cost.mean() + (1 - share) * lean_cost.mean()),
        ),
        oracle=baseline(
            float(better.mean()),
            figures.quality_of(table, np.maximum(table.lean, table.large)),
            float(np.where(better, large_cost, lean_cost).mean()),
        ),
    )


def _reasons(
    policy: Policy, table: Table, scores: Floats | None, lean: float, large: float
) -> dict[str, str]:
    reasons: dict[str, str] = {}
    missing = None if scores is not None else "the policy has no predictor, so its curve has no points"
    gap = figures.gap_reason(lean, large) or missing
    if gap:
        reasons.update(cpt50=gap, cpt80=gap, apgr=gap)
    if not table.costs_known:
        reasons["cost"] = "lean_cost and large_cost are not known for every record"
    elif float(table.lean_cost.mean()) == float(table.large_cost.mean()):
        reasons["aiq"] = "both models cost the same: there is no cost range"
    if large <= 0.0:
        reasons["quality_retained"] = "the large model's quality is 0 on these records"
    return reasons


def _notes(
    policy: Policy, table: Table, confidence: Floats | None, share: float, lean: float, large: float
) -> tuple[str, ...]:
    notes = []
    if policy.kind not in ("all-large", "all-lean") and share in (0.0, 1.0):
        where = "large" if share == 1.0 else "lean"
        notes.append(
            f"the {policy.kind} has collapsed: every one of these requests was answered by the {where} model"
        )
    if confidence is not None and len(table) > 1 and float(confidence.max() - confidence.min()) < 1e-12:
        notes.append("the confidence is the same for every record: it cannot tell requests apart")
    if lean >= large:
        notes.append(
            f"the lean model (quality {lean:.4f}) is at least as good as the large one ({large:.4f}) here"
        )
    if policy.scope.data_digest == data_digest(table.records):
        notes.append("these are the very records that the policy was calibrated on: its figures flatter it")
    return tuple(notes)


def _groups(table: Table, accept: Mask, pair: Floats) -> dict[str, GroupFigures]:
    return {
        name: GroupFigures(
            n=len(members),
            large_share=_unit(float(1.0 - accept[members].mean())),
            quality=_unit(float(pair[members].mean())),
            quality_large=_unit(float(table.large[members].mean())),
            enough=len(members) >= GROUP_ENOUGH,
        )
        for name, members in sorted(table.groups.items())
    }


def _latency(table: Table, routed: RoutedTable) -> float | None:
    """Mean seconds of the calls that are made; None where one of them is unknown."""
    total = float(table.lean_latency[routed.asked].sum() + table.large_latency[~routed.accepted].sum())
    return None if np.isnan(total) else total / len(table)


def _unit(value: float) -> float:
    """Rounding may leave [0, 1] by 1e-16, and the contract is strict."""
    return min(max(float(value), 0.0), 1.0)
