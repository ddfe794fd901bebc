"""Policies of version 2 that are simple enough to compute beside the router."""

from __future__ import annotations

from typing import Any

from leanmodel_api.policy import (
    Certificate,
    LabelFreeBound,
    LinearHead,
    PartSizes,
    Predictor,
    Scope,
    SignalSpec,
)
from leanmodel_api.routing_policy import RoutingPolicy
from leanmodel_api.scores import ScoreReference
from leanmodel_routing.signals import SIGNALS

LENGTH_AT = 3.0
"""`log_prompt_words` of the predictor that reads the prompt: long prompts are doubtful."""


def certificate(bound: float | None = 0.02) -> Certificate:
    label_free = None
    if bound is not None:
        label_free = LabelFreeBound(
            estimate=bound / 2, upper=bound, confidence=0.9, n=1000, part="report", shadow_accepted=600
        )
    return Certificate(
        retain=0.95, confidence=0.9, n=1000, p_value=0.01, certified=True, outcome="cascade-certified",
        message="for the tests", parts=PartSizes(fit=1, certify=1000, report=1), label_free=label_free,
    )  # fmt: skip


def by_prompt() -> Predictor:
    """Its confidence is the sigmoid of LENGTH_AT minus log(1 + words): short prompts are sure."""
    spec = SignalSpec(name="prompt-ngrams")
    names = SIGNALS["prompt-ngrams"].feature_names(spec.params)
    return Predictor(
        kind="fine", name="length of the prompt", signals=(spec,), feature_names=names,
        means=(0.0,) * len(names), scales=(1.0,) * len(names),
        heads=(LinearHead(intercept=LENGTH_AT, coefficients=(*(0.0,) * (len(names) - 1), -1.0)),),
    )  # fmt: skip


def by_answer() -> Predictor:
    """Its confidence is the sigmoid of the answer's mean log-probability."""
    return Predictor(
        kind="fine", name="mean log-prob", signals=(SignalSpec(name="mean-logprob"),), feature_names=("mean_logprob",),
        means=(0.0,), scales=(1.0,), heads=(LinearHead(intercept=0.0, coefficients=(1.0,)),),
    )  # fmt: skip


def made(
    kind: str, *, scope: Scope | None = None, bound: float | None = 0.02, **changes: Any
) -> RoutingPolicy:
    """A sealed policy of version 2."""
    given = {
        "kind": kind, "threshold": 0.4, "ask_at": 0.5, "predictor": by_answer(), "before": by_prompt(),
        "scope": scope or Scope(), "certificate": certificate(bound), "expected_large_share": 0.5,
        "scores": ScoreReference.of([index / 500 for index in range(500)]),
    }  # fmt: skip
    if kind == "predictive":
        given["predictor"] = None
    found = RoutingPolicy(**{**given, **changes})
    return found.model_copy(update={"digest": found.computed_digest()})
