"""From gates and certificate to what is done with the lean model. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from leanmodel_api.evaluation import Routing
from leanmodel_api.policy import Certificate
from leanmodel_api.report import GateResult, Verdict
from leanmodel_api.routing_policy import AnyPolicy, RoutingPolicy, RuleKind

from .gates import PAIR_GATES


def decide(
    gates: Sequence[GateResult], kind: RuleKind, certificate: Certificate, routing: Routing, second: str = ""
) -> tuple[Verdict, str]:
    """Return the verdict and its reason, with what to do.

    Args:
        second: what the router does under pressure, as a sentence; empty where it does nothing else.

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
    if kind == "all-large" and second:
        if failed:
            return "GateFailed", _failed(failed, failed)
        return "Routed", (
            f"Without pressure the large model answers everything. {sentence(certificate.message)} {second}"
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
    told = (
        "The lean model answers what the prompt shows it can"
        if kind == "predictive"
        else "The lean model answers what it is sure of"
    )
    words = f"{told}, the large one the rest. {sentence(certificate.message)}"
    return "Routed", f"{words} {second}".strip()


def overall(policy: AnyPolicy) -> RuleKind:
    """Return what a policy does with requests as a whole: with rules for groups, what those do that use the lean model."""
    groups = policy.groups if isinstance(policy, RoutingPolicy) else {}
    if not groups:
        return policy.kind
    kinds = {rule.kind for rule in groups.values()} - {"all-large"}
    # Whatever the lean model takes of one group, the others' requests go to the large one.
    return "all-large" if not kinds else "predictive" if kinds == {"predictive"} else "cascade"


def second_words(policy: AnyPolicy) -> str:
    """Return what the router does under pressure, as a sentence; empty where it does nothing else."""
    relaxed = policy.relaxed() if isinstance(policy, RoutingPolicy) else None
    return "" if relaxed is None else f"Under pressure: {sentence(relaxed.certificate.message)}"


def sentence(message: str) -> str:
    """Return a message, such as a certificate's, as a sentence."""
    return message[:1].upper() + message[1:] + ("" if message.endswith(".") else ".")


def _failed(named: Sequence[GateResult], failed: Sequence[GateResult]) -> str:
    more = len(failed) - len(named)
    text = "The lean model gets no traffic: " + "; and ".join(gate.message for gate in named) + "."
    return text + (f" {more} more gate{'s' if more > 1 else ''} on the pair failed too." if more else "")
