"""From gates and certificate to what is done with the lean model. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from leanmodel_api.evaluation import Routing
from leanmodel_api.policy import Certificate, PolicyKind
from leanmodel_api.report import GateResult, Verdict

from .gates import PAIR_GATES


def decide(
    gates: Sequence[GateResult], kind: PolicyKind, certificate: Certificate, routing: Routing
) -> tuple[Verdict, str]:
    """Return the verdict and its reason, with what to do.

    A failed gate on the lean model alone outweighs all else. Where nothing could be certified the pair is
    the large model alone, and its own gates (a saving of nothing) say no more than that.
    """
    failed = [gate for gate in gates if not gate.passed]
    alone = [gate for gate in failed if gate.metric not in PAIR_GATES]
    if alone:
        return "GateFailed", _failed(alone, failed)
    if routing.strategy == "Fixed" and routing.fixed == "Large":
        return (
            "LargeOnly",
            "The gates passed; routing.strategy is Fixed to Large, so the large model answers everything.",
        )
    if routing.strategy == "Fixed":
        if failed:
            return "GateFailed", _failed(failed, failed)
        return "LeanTakesAll", (
            "The gates passed; routing.strategy is Fixed to Lean, so the lean model answers everything, without a "
            f"promise. What the certificate would say: {sentence(certificate.message)}"
        )
    if kind == "all-large":
        return (
            "LargeOnly",
            f"The large model answers everything and the lean one is not used. {sentence(certificate.message)}",
        )
    if failed:
        return "GateFailed", _failed(failed, failed)
    if kind == "all-lean":
        return "LeanTakesAll", f"The lean model answers everything. {sentence(certificate.message)}"
    return (
        "Routed",
        f"The lean model answers what it is sure of, the large one the rest. {sentence(certificate.message)}",
    )


def sentence(message: str) -> str:
    """Return a message, such as a certificate's, as a sentence."""
    return message[:1].upper() + message[1:] + ("" if message.endswith(".") else ".")


def _failed(named: Sequence[GateResult], failed: Sequence[GateResult]) -> str:
    more = len(failed) - len(named)
    text = "The lean model gets no traffic: " + "; and ".join(gate.message for gate in named) + "."
    return text + (f" {more} more gate{'s' if more > 1 else ''} on the pair failed too." if more else "")
