"""From judged records to the router's rule: the manifest's strategy, calibrated and certified, or fixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leanmodel_api.base import number
from leanmodel_api.classification import EMBEDDING
from leanmodel_api.errors import InputError, one
from leanmodel_api.plan import ProvePlan
from leanmodel_api.policy import PolicyEvaluation, Record, Scope
from leanmodel_api.routing_policy import RoutingPolicy, Strategy
from leanmodel_routing.evaluate import evaluate_policy
from leanmodel_routing.parts import Parts
from leanmodel_routing.predictors.candidates import PROMPT_RECORDS
from leanmodel_routing.routing_calibration import calibrate_routing

STRATEGIES: dict[str, tuple[Strategy, ...]] = {
    "Auto": ("fixed", "predictive", "cascade", "combined"),
    "Predictive": ("predictive",),
    "Cascade": ("cascade",),
    # Where no cut on the prompt saves anything, what is left of it is the cascade.
    "Combined": ("cascade", "combined"),
    # Nothing is certified of a fixed route, but the report says what a cascade could have kept.
    "Fixed": ("cascade",),
}
"""What the fit part chooses among, by the manifest's spec.routing.strategy."""


@dataclass(frozen=True)
class Calibrated:
    """A sealed policy, its evaluation on the report part, and notes on the records."""

    policy: RoutingPolicy
    evaluation: PolicyEvaluation
    notes: tuple[str, ...]


def calibrated(
    plan: ProvePlan, scope: Scope, listed: Mapping[str, Sequence[Record]], look: int
) -> Calibrated:
    """Return the policy of the manifest's strategy.

    Args:
        scope: what the certificate shall hold for.
        listed: the records by part: fit, certify and report.
        look: which look at this certify part it is; the risk is divided by it.

    Raises:
        InputError: the strategy cannot be learnt from these records.
    """
    promise, strategy, second = plan.routing.promise, plan.routing.strategy, plan.routing.under_pressure
    try:
        result = calibrate_routing(
            retain=number(promise.retain),
            confidence=1 - number(promise.risk),
            seed=plan.seed,
            parts=Parts(tuple(listed["fit"]), tuple(listed["certify"]), tuple(listed["report"])),
            metric=scope.metric,
            aggregate=scope.aggregate,
            scope=scope,
            looks=look,
            # A vector has no log-probabilities to cut by: what can be certified is the lean model alone.
            strategies=("fixed",) if plan.task == EMBEDDING else STRATEGIES[strategy],
            usd_per_second=number(plan.routing.usd_per_second or "0"),
            per_group=plan.data_set.group is not None,
            under_pressure=number(second.retain) if second is not None and strategy != "Fixed" else None,
        )
    except InputError as error:
        if error.issues[0].field != "strategies":
            raise
        raise one(
            InputError, "spec.routing.strategy", f"found {strategy}, which cannot be learnt from {len(listed['fit'])} records",
            f"write Cascade or Auto, or give the data set's fit part at least {PROMPT_RECORDS} records",
        ) from error  # fmt: skip
    if strategy != "Fixed":
        return Calibrated(result.policy, result.evaluation, result.notes)
    policy = fixed(result.policy, lean=plan.routing.fixed == "Lean")
    return Calibrated(policy, evaluate_policy(policy, listed["report"], part="report"), result.notes)


def fixed(policy: RoutingPolicy, *, lean: bool) -> RoutingPolicy:
    """Return the policy that sends everything one way.

    Nothing is certified of it: the certificate says so, keeps what was tested, and leaves nothing to be watched.
    """
    certificate = policy.certificate.model_copy(
        update={"certified": False, "threshold_index": None, "label_free": None}
    )
    changes: dict[str, Any] = {
        "kind": "all-lean" if lean else "all-large", "threshold": 0.0 if lean else 1.0, "scores": None,
        "certificate": certificate, "expected_large_share": 0.0 if lean else 1.0,
    }  # fmt: skip
    found = policy.model_copy(update=changes)
    return found.model_copy(update={"digest": found.computed_digest()})
