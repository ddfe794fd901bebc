"""Calibration: choose on fit, certify on certify, measure on report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from leanmodel_api.errors import InputError, one
from leanmodel_api.policy import (
    Aggregate,
    Certificate,
    Method,
    PartSizes,
    Policy,
    PolicyEvaluation,
    Record,
    Scope,
)
from leanmodel_routing import exact, figures
from leanmodel_routing.cases import decide_case, with_total
from leanmodel_routing.certify import (
    predicted_lean_share,
    take_walk,
)
from leanmodel_routing.evaluate import evaluate_table
from leanmodel_routing.parts import Parts, split
from leanmodel_routing.predictors.candidates import Candidate, candidates_for
from leanmodel_routing.predictors.fit import Fitted, fit_candidate, table_confidences
from leanmodel_routing.table import Floats, Table, data_digest
from leanmodel_routing.threads import single_threaded
from leanmodel_routing.walk import Walk, plan_walk

BALANCED_METRIC = "balanced-accuracy"
CHOICE_STEPS = 25
SHARE_TOLERANCE = 0.02


@dataclass(frozen=True)
class CalibrationResult:
    """A sealed policy, its evaluation on the report part, and notes on the input."""

    policy: Policy
    evaluation: PolicyEvaluation
    notes: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """What `leanmodel calibrate` writes: the evaluation's keys, and the policy under `policy`; plain
        JSON.
        """
        found = self.evaluation.model_dump(mode="json")
        found["notes"] = [*self.notes, *found["notes"]]
        found["policy"] = self.policy.model_dump(mode="json")
        return found


@single_threaded
def calibrate(
    records: Sequence[Record] = (),
    retain: float = 0.95,
    confidence: float = 0.9,
    seed: int = 0,
    *,
    parts: Parts | None = None,
    metric: str = "quality",
    aggregate: Aggregate | None = None,
    scope: Scope | None = None,
    method: Method | None = None,
    looks: int = 1,
) -> CalibrationResult:
    """Find the cheapest policy that keeps `quality ≥ retain · large quality` with chance at least
    `confidence`.

    `records` are split into fit, certify and report by a seeded hash, unless `parts` gives them apart.
    `metric` names the quality in the certificate; `aggregate` is `balanced` (over `stratum`) for the metric
    balanced-accuracy, else `mean`. `scope` says what else the certificate holds for. `looks` is the number
    of certificates that this certify part is planned to give in all: the risk is divided by it
    (Bonferroni).

    Raises InputError where a number is out of its range, a part is empty, or a stratum is missing.
    """
    _check(retain, confidence, looks)
    if parts is None:
        parts = split(records, seed)
    parts = parts.checked()
    how: Aggregate = aggregate or (scope.aggregate if scope else None) or "mean"
    if aggregate is None and metric == BALANCED_METRIC:
        how = "balanced"
    tables = (Table.of(parts.fit, how), Table.of(parts.certify, how), Table.of(parts.report, how))
    named = (scope or Scope()).model_copy(
        update={
            "metric": metric if metric != "quality" or scope is None else scope.metric,
            "aggregate": how,
            "data_digest": data_digest([*parts.fit, *parts.certify, *parts.report]),
        }
    )
    policy = calibrate_tables(*tables, retain, confidence, seed, scope=named, method=method, looks=looks)
    evaluation = evaluate_table(policy, tables[2], part="report")
    certificate = policy.certificate.model_copy(update={"label_free": evaluation.label_free})
    policy = policy.model_copy(
        update={
            "certificate": certificate,
            "expected_large_share": evaluation.large_share,
            "curve": evaluation.curve,
        }
    ).sealed()
    return CalibrationResult(policy, evaluation.model_copy(update={"certificate": certificate}), parts.notes)


@single_threaded
def calibrate_tables(
    fit: Table,
    certify: Table,
    report: Table,
    retain: float,
    confidence: float,
    seed: int = 0,
    *,
    scope: Scope | None = None,
    method: Method | None = None,
    looks: int = 1,
    candidates: Sequence[Candidate] | None = None,
) -> Policy:
    """`calibrate` on tables, without the evaluation; the report part is only counted."""
    risk = (1.0 - confidence) / looks
    certify = _same_strata(fit, certify)
    chosen, walk, method = choose(fit, len(certify), retain, risk, seed, candidates, method)
    scores = table_confidences(chosen.predictor, certify)
    result = take_walk(walk, certify, scores, retain, risk, method, seed)
    decision = decide_case(walk, result, certify, scores, retain, risk, method, seed)
    decision = with_total(decision, len(certify), len(fit) + len(certify) + len(report))
    certificate = Certificate(
        retain=retain,
        confidence=confidence,
        method=method,
        n=len(certify),
        p_value=min(decision.p_value, 1.0),
        certified=decision.step is not None,
        outcome=decision.outcome,
        message=decision.message,
        threshold_index=decision.step,
        steps=len(walk.thresholds),
        tested=len(result.p_values),
        start=walk.start,
        looks=looks,
        blocks=int(np.bincount(certify.stratum, minlength=len(certify.strata)).min())
        if certify.aggregate == "balanced"
        else None,
        parts=PartSizes(fit=len(fit), certify=len(certify), report=len(report)),
        needed=decision.needed,
        quality_large=min(figures.quality_of(certify, certify.large), 1.0),
    )
    return Policy(
        kind=decision.kind,
        predictor=chosen.predictor,
        threshold={"all-large": 1.0, "all-lean": 0.0}.get(
            decision.kind, float(walk.thresholds[decision.step or 0])
        ),
        scope=scope or Scope(aggregate=certify.aggregate),
        certificate=certificate,
        expected_large_share=1.0 if decision.kind == "all-large" else 0.0,
        seed=seed,
    )


def choose(
    fit: Table,
    certify_size: int,
    retain: float,
    risk: float,
    seed: int,
    candidates: Sequence[Candidate] | None = None,
    method: Method | None = None,
) -> tuple[Fitted, Walk, Method]:
    """The candidate and test with the best future, by the fit part's cross-fitted confidences alone, and the
    walk.

    First the lean share that its walk is expected to certify; among those within SHARE_TOLERANCE of the
    best, the largest area under quality over share (APGR up to scale); among equals the simplest, and the exact
    test before betting.
    """
    ways: tuple[Method, ...] = (
        ("ltt-exact", "ltt-betting") if exact.applies(fit, retain) else ("ltt-betting",)
    )
    if method is not None:
        ways = (method,)
    rated: list[tuple[float, float, Fitted, Method]] = []
    for candidate in candidates or candidates_for(fit):
        fitted = fit_candidate(candidate, fit, seed)
        walk = _walk(fit, fitted, retain, CHOICE_STEPS)
        area = _area(walk.fit, walk.crossed)
        for way in ways:
            share = predicted_lean_share(walk, certify_size, retain, risk, way, seed)
            rated.append((share, area, fitted, way))
    best = max(share for share, _, _, _ in rated)
    near = [item for item in rated if item[0] >= best - SHARE_TOLERANCE]
    area = max(item[1] for item in near)
    fitted = next(item[2] for item in near if item[1] >= area - 1e-3 * abs(area))
    share = max(item[0] for item in near if item[2] is fitted)
    way = next(item[3] for item in near if item[2] is fitted and item[0] == share)
    return fitted, _walk(fit, fitted, retain), way


def _walk(fit: Table, fitted: Fitted, retain: float, steps: int | None = None) -> Walk:
    scores = table_confidences(fitted.predictor, fit)
    return plan_walk(fit, scores, fitted.crossed, retain, *(() if steps is None else (steps,)))


def _area(fit: Table, crossed: Floats) -> float:
    if not len(fit):
        return 0.0
    curve = figures.curve_of(fit, crossed)
    return float(np.trapezoid(curve.quality[::-1], curve.share[::-1]))


def _same_strata(fit: Table, certify: Table) -> Table:
    """Certify with the fit part's classes too, so that a class it lacks is seen to be missing."""
    strata = tuple(sorted({*fit.strata, *certify.strata}))
    if strata == certify.strata:
        return certify
    codes = np.array([strata.index(name) for name in certify.strata], dtype=np.int64)
    return replace(certify, strata=strata, stratum=codes[certify.stratum])


def _check(retain: float, confidence: float, looks: int) -> None:
    if not 0.0 < retain <= 1.0:
        raise one(
            InputError, "retain", f"found {retain}", "write a fraction above 0 and at most 1, such as 0.95"
        )
    if not 0.0 < confidence < 1.0:
        raise one(
            InputError, "confidence", f"found {confidence}", "write a fraction between 0 and 1, such as 0.9"
        )
    if looks < 1:
        raise one(InputError, "looks", f"found {looks}", "write 1 or more")
