"""Calibration: choose on fit, certify on certify, measure on report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

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
from leanmodel_routing import figures
from leanmodel_routing.cases import Decision, Spend, decide_case, with_total
from leanmodel_routing.certify import WalkResult, take_walk
from leanmodel_routing.choosing import choose
from leanmodel_routing.evaluate import evaluate_table
from leanmodel_routing.parts import Parts, split
from leanmodel_routing.predictors.candidates import Candidate
from leanmodel_routing.predictors.fit import table_confidences
from leanmodel_routing.table import Floats, Table, data_digest
from leanmodel_routing.threads import single_threaded
from leanmodel_routing.walk import Walk

BALANCED_METRIC = "balanced-accuracy"


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
        return document(self.policy, self.evaluation, self.notes)


def document(policy: Policy, evaluation: PolicyEvaluation, notes: Sequence[str]) -> dict[str, Any]:
    """The evaluation's keys with the input's notes before its own, and the policy under `policy`; plain JSON."""
    found = evaluation.model_dump(mode="json")
    found["notes"] = [*notes, *found["notes"]]
    found["policy"] = policy.model_dump(mode="json")
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
    given = prepare(
        records,
        retain,
        confidence,
        seed,
        parts=parts,
        metric=metric,
        aggregate=aggregate,
        scope=scope,
        looks=looks,
    )
    policy = calibrate_tables(
        given.fit, given.certify, given.report, retain, confidence, seed,
        scope=given.scope, method=method, looks=looks,
    )  # fmt: skip
    evaluation = evaluate_table(policy, given.report, part="report")
    certificate = policy.certificate.model_copy(update={"label_free": evaluation.label_free})
    policy = policy.model_copy(
        update={
            "certificate": certificate,
            "expected_large_share": evaluation.large_share,
            "curve": evaluation.curve,
        }
    ).sealed()
    return CalibrationResult(policy, evaluation.model_copy(update={"certificate": certificate}), given.notes)


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
    certify = same_strata(fit, certify)
    chosen, walk, method = choose(fit, len(certify), retain, risk, seed, candidates, method)
    scores = table_confidences(chosen.predictor, certify)
    sizes = PartSizes(fit=len(fit), certify=len(certify), report=len(report))
    terms = Terms(retain, confidence, risk, looks, seed)
    found = certify_walk(walk, method, certify, scores, terms, sizes)
    decision = found.decision
    return Policy(
        kind=decision.kind,
        predictor=chosen.predictor,
        threshold={"all-large": 1.0, "all-lean": 0.0}.get(
            decision.kind, float(walk.thresholds[decision.step or 0])
        ),
        scope=scope or Scope(aggregate=certify.aggregate),
        certificate=found.certificate,
        expected_large_share=1.0 if decision.kind == "all-large" else 0.0,
        seed=seed,
    )


@dataclass(frozen=True)
class Prepared:
    """The three parts as tables, the scope to be certified, and notes on the input."""

    fit: Table
    certify: Table
    report: Table
    scope: Scope
    notes: tuple[str, ...]


def prepare(
    records: Sequence[Record],
    retain: float,
    confidence: float,
    seed: int,
    *,
    parts: Parts | None,
    metric: str,
    aggregate: Aggregate | None,
    scope: Scope | None,
    looks: int,
) -> Prepared:
    """Check what was asked for and split the records; arguments and errors as `calibrate`'s."""
    _check(retain, confidence, looks)
    if parts is None:
        parts = split(records, seed)
    parts = parts.checked()
    how: Aggregate = aggregate or (scope.aggregate if scope else None) or "mean"
    if aggregate is None and metric == BALANCED_METRIC:
        how = "balanced"
    named = (scope or Scope()).model_copy(
        update={
            "metric": metric if metric != "quality" or scope is None else scope.metric,
            "aggregate": how,
            "data_digest": data_digest([*parts.fit, *parts.certify, *parts.report]),
            "response_format": asked_format([*parts.fit, *parts.certify, *parts.report]),
        }
    )
    fit, certify, report = (
        Table.of(part, how, named.hold_back) for part in (parts.fit, parts.certify, parts.report)
    )
    return Prepared(fit, certify, report, named, parts.notes)


def asked_format(records: Sequence[Record]) -> Literal["json_schema"] | None:
    """What all records asked for; None where none did.

    Raises InputError where some did: a certificate over both would speak of a mix that nobody keeps to.
    """
    asking = sum(record.response_schema is not None for record in records)
    if 0 < asking < len(records):
        raise one(
            InputError, "records.response_schema", f"{asking} of {len(records)} records have one",
            "calibrate requests with a JSON schema and those without one apart",
        )  # fmt: skip
    return "json_schema" if asking else None


@dataclass(frozen=True)
class Terms:
    """What is promised, and the risk that this one certificate may spend."""

    retain: float
    confidence: float
    risk: float
    looks: int
    seed: int


@dataclass(frozen=True)
class Certified:
    """What a walk has shown: the case, its certificate, and every certified step with its p-value, in order."""

    decision: Decision
    certificate: Certificate
    steps: dict[int, float]


def certify_walk(
    walk: Walk,
    method: Method,
    certify: Table,
    scores: Floats,
    terms: Terms,
    sizes: PartSizes,
    spend: Spend | None = None,
    before: Certified | None = None,
) -> Certified:
    """Take a walk on the certify part (scores [n]) and name what it shows.

    `before`: what a higher promise has certified of the same thresholds, which is certified for this one too.
    """
    retain, risk, seed = terms.retain, terms.risk, terms.seed
    result = take_walk(walk, certify, scores, retain, risk, method, seed)
    if before is not None:
        known = before.steps
        result = WalkResult({**known, **result.p_values}, (*known, *result.certified))
    decision = decide_case(walk, result, certify, scores, retain, risk, method, seed, spend)
    decision = with_total(decision, len(certify), sizes.fit + sizes.certify + sizes.report)
    balanced = certify.aggregate == "balanced"
    blocks = np.bincount(certify.stratum, minlength=len(certify.strata)).min() if balanced else None
    certificate = Certificate(
        retain=retain,
        confidence=terms.confidence,
        method=method,
        n=len(certify),
        p_value=min(decision.p_value, 1.0),
        certified=decision.step is not None,
        outcome=decision.outcome,
        message=decision.message,
        threshold_index=decision.step,
        steps=len(walk.thresholds),
        tested=len(result.p_values) - len(before.steps if before is not None else ()),
        start=walk.start,
        looks=terms.looks,
        blocks=None if blocks is None else int(blocks),
        parts=sizes,
        needed=decision.needed,
        quality_large=min(figures.quality_of(certify, certify.large), 1.0),
    )
    return Certified(decision, certificate, {step: result.p_values[step] for step in result.certified})


def same_strata(fit: Table, certify: Table) -> Table:
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
