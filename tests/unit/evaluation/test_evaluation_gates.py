"""Gates and verdict, by tables."""

import pytest

from leanmodel_api.errors import InputError
from leanmodel_api.evaluation import Gate, Routing
from leanmodel_api.policy import Certificate, PartSizes
from leanmodel_api.report import Estimate, GateResult
from leanmodel_evaluation.gates import ADVICE, hold
from leanmodel_evaluation.verdict import decide

FIGURE = Estimate(value=0.90, low=0.86, high=0.94, n=100)


@pytest.mark.parametrize(
    ("bounds", "use", "passed", "found"),
    [
        ({"min": "0.9"}, "Estimate", True, 0.90),
        ({"min": "0.901"}, "Estimate", False, 0.90),
        ({"max": "0.9"}, "Estimate", True, 0.90),
        ({"max": "0.899"}, "Estimate", False, 0.90),
        ({"min": "0.86"}, "Bound", True, 0.86),
        ({"min": "0.87"}, "Bound", False, 0.86),
        ({"max": "0.94"}, "Bound", True, 0.94),
        ({"max": "0.93"}, "Bound", False, 0.94),
        ({"min": "9e-1"}, "Estimate", True, 0.90),
    ],
)
def test_gate(bounds: dict[str, str], use: str, passed: bool, found: float) -> None:
    gate = Gate.model_validate({"metric": "LeanQuality", "use": use, **bounds})
    (result,) = hold([gate], {"LeanQuality": FIGURE})
    assert result.passed is passed
    assert result.found == found
    assert next(iter(bounds.values())) in result.bound
    assert (ADVICE["LeanQuality"] in result.message) is not passed


def test_an_unknown_figure_is_an_error_that_names_the_gate() -> None:
    gates = [
        Gate(metric="LeanQuality", min="0.5"),
        Gate(metric="Saving", min="0.1"),
        Gate(metric="MemoryRatio", max="1"),
    ]
    with pytest.raises(InputError) as caught:
        hold(gates, {"LeanQuality": FIGURE, "Saving": None})
    message = str(caught.value)
    assert "spec.evaluation.gates[1].metric" in message and "spec.pricing" in message
    assert "spec.evaluation.gates[2].metric" in message
    assert "gates[0]" not in message


def test_every_gate_metric_has_advice() -> None:
    from typing import get_args

    from leanmodel_api.evaluation import GateMetric

    assert set(ADVICE) == set(get_args(GateMetric))


def certificate(certified: bool, message: str = "the pair keeps it") -> Certificate:
    return Certificate(
        retain=0.98, confidence=0.9, n=300, p_value=0.01, certified=certified,
        outcome="cascade-certified" if certified else "promise-not-shown", message=message,
        parts=PartSizes(fit=1, certify=1, report=1),
    )  # fmt: skip


def result(metric: str, passed: bool) -> GateResult:
    return GateResult(
        metric=metric, bound=">= 1", found=0.5, used="Estimate", passed=passed, message=f"{metric} says so"
    )


FIXED_LEAN = Routing(strategy="Fixed", fixed="Lean")
FIXED_LARGE = Routing(strategy="Fixed", fixed="Large")


@pytest.mark.parametrize(
    ("gates", "kind", "routing", "verdict"),
    [
        ([], "cascade", Routing(), "Routed"),
        ([], "all-lean", Routing(), "LeanTakesAll"),
        ([], "all-large", Routing(), "LargeOnly"),
        ([("LeanQuality", True)], "cascade", Routing(), "Routed"),
        ([("LeanQuality", False)], "cascade", Routing(), "GateFailed"),
        ([("LeanQuality", False)], "all-large", Routing(), "GateFailed"),
        ([("Saving", False)], "cascade", Routing(), "GateFailed"),
        ([("Saving", False)], "all-large", Routing(), "LargeOnly"),
        ([("PairQualityRetained", False)], "all-lean", Routing(), "GateFailed"),
        ([], "all-lean", FIXED_LEAN, "LeanTakesAll"),
        ([("SizeRatio", False)], "all-lean", FIXED_LEAN, "GateFailed"),
        ([], "all-large", FIXED_LARGE, "LargeOnly"),
    ],
)
def test_verdict(gates: list[tuple[str, bool]], kind: str, routing: Routing, verdict: str) -> None:
    found, reason = decide([result(*gate) for gate in gates], kind, certificate(kind != "all-large"), routing)  # type: ignore[arg-type]
    assert found == verdict
    for metric, passed in gates:
        if not passed and verdict == "GateFailed":
            assert f"{metric} says so" in reason
    if verdict in ("Routed", "LargeOnly") and routing.strategy == "Cascade":
        assert "he pair keeps it." in reason
