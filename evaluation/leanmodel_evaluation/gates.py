"""Gates: measured figures held against the manifest's bounds. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from leanmodel_api.base import number
from leanmodel_api.errors import InputError, Issue
from leanmodel_api.evaluation import Gate
from leanmodel_api.report import Estimate, GateResult

PAIR_GATES = frozenset({"PairQualityRetained", "Saving"})
"""Gates on the routed pair; the others are about the lean model alone (or the large one)."""

ADVICE = {
    "LeanQuality": "train the lean model longer, keep more layers or bits, or lower the gate",
    "LeanQualityRetained": "train the lean model longer, keep more layers or bits, or lower the gate",
    "LargeQuality": "the large model itself is not good enough: fine-tune it, take a better one, or lower the gate",
    "PairQualityRetained": "escalate more by a higher spec.routing.promise.retain, or improve the lean model",
    "SizeRatio": "remove more layers, use fewer bits, or raise the gate",
    "MemoryRatio": "remove more layers, use fewer bits or a smaller kvCache, or raise the gate",
    "ThroughputRatio": "remove more layers or use a scheme that this hardware computes faster, or lower the gate",
    "Saving": "make the lean model cheaper or surer of its answers, or lower the gate or the promise",
    "LeanOverBaseline": "serve TF-IDF with logistic regression instead, improve the lean model, or lower the gate",
    "Perplexity": "distil longer, keep more layers or bits, or raise the gate",
}
WHY_UNKNOWN = {
    "Saving": "it needs spec.pricing.large and spec.pricing.lean",
    "MemoryRatio": "the engine's metrics do not give its memory",
    "LeanOverBaseline": "the baseline needs choices and a train part of the data set",
    "Perplexity": "the engine gave no log-probabilities of the prompt",
}


def hold(gates: Sequence[Gate], figures: Mapping[str, Estimate | None]) -> list[GateResult]:
    """Return how each gate came out, in the manifest's order.

    Args:
        figures: by gate metric; None or missing where it could not be measured.

    Raises:
        InputError: a gate's figure is not known, so that it can neither pass nor fail.
    """
    unknown = [
        Issue(
            f"spec.evaluation.gates[{index}].metric",
            f"{gate.metric} was not measured: {WHY_UNKNOWN.get(gate.metric, 'the proof has no such figure')}",
            "remove the gate, or give what it needs",
        )
        for index, gate in enumerate(gates)
        if figures.get(gate.metric) is None
    ]
    if unknown:
        raise InputError(unknown)
    return [_held(gate, figure) for gate in gates if (figure := figures.get(gate.metric)) is not None]


def _held(gate: Gate, figure: Estimate) -> GateResult:
    """Return how one gate came out; with use Bound the unfavourable end of the interval must pass."""
    least = gate.min is not None
    limit = number(gate.min if gate.min is not None else gate.max or "0")
    found = figure.value if gate.use == "Estimate" else figure.low if least else figure.high
    passed = found >= limit if least else found <= limit
    bound = f"{'>=' if least else '<='} {gate.min if least else gate.max}"
    which = "which" if gate.use == "Estimate" else f"whose {'lower' if least else 'upper'} end"
    message = (
        f"{gate.metric} is {figure.value:.4g} (95% interval {figure.low:.4g} to {figure.high:.4g}), "
        f"{which} {'keeps' if passed else 'misses'} {bound}"
    )
    if not passed:
        message += f": {ADVICE[gate.metric]}"
    return GateResult(
        metric=gate.metric, bound=bound, found=found, used=gate.use, passed=passed, message=message
    )
