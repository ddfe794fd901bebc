"""A policy's figures on records that it has not seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from leanmodel_api.policy import (
    Baseline,
    Baselines,
    CurvePoint,
    GroupFigures,
    Interval,
    LabelFreeBound,
    Policy,
    PolicyEvaluation,
    Record,
)
from leanmodel_routing import figures
from leanmodel_routing.figures import Curve
from leanmodel_routing.intervals import (
    bootstrap_weights,
    clopper_pearson_upper,
    percentile_interval,
    wilson_interval,
)
from leanmodel_routing.predictors.fit import table_confidences
from leanmodel_routing.table import Floats, Mask, Table, data_digest
from leanmodel_routing.threads import single_threaded

GROUP_ENOUGH = 300
SHADOW_ACCEPTED = 600
"""Shadowed accepted requests that show a change of 3 points: sd ≤ 0.5, so 1.64·0.5/√600 is 3 points."""


@single_threaded
def evaluate_policy(
    policy: Policy, records: Sequence[Record], *, part: str = "records", seed: int | None = None
) -> PolicyEvaluation:
    """Evaluate a policy on records with known qualities.

    `part` names the records in the label-free bound. Raises InputError for no records, or for records
    without a stratum where the policy's scope is balanced over classes.
    """
    return evaluate_table(policy, Table.of(records, policy.scope.aggregate), part=part, seed=seed)


def evaluate_table(
    policy: Policy, table: Table, *, part: str = "records", seed: int | None = None
) -> PolicyEvaluation:
    """`evaluate_policy` on a table."""
    confidence = None if policy.predictor is None else table_confidences(policy.predictor, table)
    accept = accepted(policy, confidence, len(table))
    curve = None if confidence is None else figures.curve_of(table, confidence)
    pair = figures.routed(table, accept)
    quality = figures.quality_of(table, pair)
    lean, large = figures.quality_of(table, table.lean), figures.quality_of(table, table.large)
    share = float(1.0 - accept.mean())
    reasons = _reasons(policy, table, lean, large)
    gap = "apgr" not in reasons and curve is not None
    return PolicyEvaluation(
        large_share=share,
        quality=_unit(quality),
        cost=_cost(policy, table, accept),
        cpt50=_unit(figures.cpt(curve, 0.5)) if gap and curve else None,
        cpt80=_unit(figures.cpt(curve, 0.8)) if gap and curve else None,
        apgr=figures.apgr(curve) if gap and curve else None,
        aiq=_aiq(table, curve),
        certificate=policy.certificate,
        baselines=_baselines(table, share),
        kind=policy.kind,
        n=len(table),
        quality_retained=quality / large if large > 0.0 else None,
        promise_held=bool(quality >= policy.certificate.retain * large - 1e-12),
        cost_basis="usd" if table.costs_known else "large-share",
        cost_all_large=float(table.large_cost.mean()) if table.costs_known else None,
        intervals=_intervals(policy, table, accept, pair, policy.seed if seed is None else seed),
        reasons=reasons,
        notes=_notes(policy, table, confidence, share, lean, large),
        groups=_groups(table, accept, pair),
        label_free=label_free(table, accept, policy.certificate.confidence, part),
        latency=_latency(policy, table, accept),
        calibration_error=None if confidence is None else calibration_error(table, confidence),
        curve=() if curve is None else curve_points(curve),
    )


def accepted(policy: Policy, confidence: Floats | None, n: int) -> Mask:
    """Which requests keep the lean answer, [n]."""
    if policy.kind == "all-lean":
        return np.ones(n, dtype=np.bool_)
    if policy.kind == "all-large" or confidence is None:
        return np.zeros(n, dtype=np.bool_)
    return confidence >= policy.threshold


def curve_points(curve: Curve) -> tuple[CurvePoint, ...]:
    """The curve thinned for a report; thresholds above every confidence are written as 1."""
    thin = figures.thinned(curve)
    return tuple(
        CurvePoint(
            threshold=min(threshold, 1.0),
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


def label_free(table: Table, accept: Mask, confidence: float, part: str) -> LabelFreeBound | None:
    """Bound on P(accepted and different from the large answer), over records with both answers; None
    without any.
    """
    both = [
        (bool(accept[row]) and record.lean_answer.strip() != record.large_answer.strip())
        for row, record in enumerate(table.records)
        if record.lean_answer is not None and record.large_answer is not None
    ]
    if not both:
        return None
    return LabelFreeBound(
        estimate=sum(both) / len(both),
        upper=clopper_pearson_upper(sum(both), len(both), confidence),
        confidence=confidence,
        n=len(both),
        part=part,
        shadow_accepted=SHADOW_ACCEPTED,
    )


def calibration_error(table: Table, confidence: Floats) -> float:
    """Expected calibration error over ten bins of equal width, with the table's mass (Naeini et al., AAAI
    2015).
    """
    fine = 1.0 - np.clip(table.large - table.lean, 0.0, 1.0)
    bins = np.minimum((confidence * 10).astype(np.int64), 9)
    gaps = np.bincount(bins, weights=table.mass * (confidence - fine), minlength=10)
    return float(np.abs(gaps).sum())


def _cost(policy: Policy, table: Table, accept: Mask) -> float | None:
    if not table.costs_known:
        return None
    if policy.kind == "all-large":
        return float(table.large_cost.mean())
    return float(np.mean(table.lean_cost + np.where(accept, 0.0, table.large_cost)))


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


def _aiq(table: Table, curve: Curve | None) -> float | None:
    """Over dollars between the two models alone where costs are known, else over the large share."""
    lean, large = figures.quality_of(table, table.lean), figures.quality_of(table, table.large)
    if not table.costs_known:
        if curve is None:
            return figures.aiq(np.array([0.0, 1.0]), np.array([lean, large]))
        return figures.aiq(curve.share, curve.quality)
    ends = (float(table.lean_cost.mean()), float(table.large_cost.mean()))
    cost, quality = np.array(ends), np.array([lean, large])
    if curve is not None:
        inside = curve.cost <= max(ends)  # a cascade that costs more than the large model alone is never run
        cost, quality = np.append(cost, curve.cost[inside]), np.append(quality, curve.quality[inside])
    return figures.aiq(cost, quality)


def _intervals(policy: Policy, table: Table, accept: Mask, pair: Floats, seed: int) -> dict[str, Interval]:
    n = len(table)
    found = {"large_share": wilson_interval(float(n - accept.sum()), n)}
    if n < 2:
        return found
    drawn = bootstrap_weights(table.stratum, seed)
    mass = drawn * table.mass
    total = mass.sum(axis=1)
    pairs, larges, leans = (mass @ pair / total, mass @ table.large / total, mass @ table.lean / total)
    found["quality"] = percentile_interval(pairs)
    found["quality_large"] = percentile_interval(larges)
    found["quality_lean"] = percentile_interval(leans)
    if (larges > 0.0).all():
        found["quality_retained"] = percentile_interval(pairs / larges)
        found["lean_quality_retained"] = percentile_interval(leans / larges)
    if table.costs_known:
        each = (
            table.large_cost
            if policy.kind == "all-large"
            else table.lean_cost + np.where(accept, 0, table.large_cost)
        )
        costs, alone = drawn @ each / n, drawn @ table.large_cost / n
        found["cost"] = percentile_interval(costs)
        if (alone > 0.0).all():
            found["saving"] = percentile_interval(1.0 - costs / alone)
    return found


def _reasons(policy: Policy, table: Table, lean: float, large: float) -> dict[str, str]:
    reasons: dict[str, str] = {}
    missing = (
        None if policy.predictor is not None else "the policy has no predictor, so its curve has no points"
    )
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
    if policy.kind == "cascade" and share in (0.0, 1.0):
        where = "large" if share == 1.0 else "lean"
        notes.append(
            f"the cascade has collapsed: every one of these requests was answered by the {where} model"
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
    rows: dict[str, list[int]] = {}
    for row, record in enumerate(table.records):
        if record.group is not None:
            rows.setdefault(record.group, []).append(row)
    return {
        name: GroupFigures(
            n=len(members),
            large_share=_unit(float(1.0 - accept[members].mean())),
            quality=_unit(float(pair[members].mean())),
            quality_large=_unit(float(table.large[members].mean())),
            enough=len(members) >= GROUP_ENOUGH,
        )
        for name, members in sorted(rows.items())
    }


def _latency(policy: Policy, table: Table, accept: Mask) -> float | None:
    lean = [record.lean_latency for record in table.records]
    large = [record.large_latency for record in table.records]
    total = 0.0
    for row, kept in enumerate(accept.tolist()):
        first, second = lean[row], large[row]
        if (first is None and policy.kind != "all-large") or (second is None and not kept):
            return None
        total += 0.0 if policy.kind == "all-large" else first or 0.0
        total += 0.0 if kept else second or 0.0
    return total / len(table)


def _unit(value: float) -> float:
    """Rounding may leave [0, 1] by 1e-16, and the contract is strict."""
    return min(max(float(value), 0.0), 1.0)
