"""Numbers as people read them."""

from __future__ import annotations

from leanmodel_api.report import Estimate
from leanmodel_api.routing_policy import AnyPolicy, RoutingPolicy


def quality(value: float) -> str:
    """Return a quality with as many digits as tell two good models apart."""
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"


def percent(value: float) -> str:
    """Return a share in per cent: one digit below ten and above ninety, where it matters."""
    share = value * 100
    return f"{share:.0f}%" if 10 <= share <= 90 or abs(share - round(share)) < 1e-9 else f"{share:.1f}%"


def times(value: float) -> str:
    """Return a ratio such as 2.4×."""
    return f"{value:.2f}×" if value < 10 else f"{value:.1f}×"


def usd(value: float) -> str:
    """Return an amount of money with three significant digits."""
    return f"${value:,.2f}" if value >= 10 or value == 0 else f"${value:.3g}"


def megabytes(count: float) -> str:
    """Return bytes in decimal megabytes."""
    return f"{count / 1e6:,.1f} MB"


def interval(estimate: Estimate, form: object) -> str:
    """Return 'low to high' in the form given (one of the functions above)."""
    assert callable(form)
    return f"{form(estimate.low)} to {form(estimate.high)}"


def rule_words(policy: AnyPolicy) -> list[tuple[str, str]]:
    """Return the policy's rule, and the strategies it was chosen among, as rows of a table."""
    limit, before = f"{policy.threshold:.4g}", policy.ask_at if isinstance(policy, RoutingPolicy) else 0.0
    if isinstance(policy, RoutingPolicy) and policy.kind == "predictive":
        limit = f"{before:.4g} of the prompt"
    elif isinstance(policy, RoutingPolicy) and policy.kind == "combined":
        limit = f"{before:.4g} of the prompt, then {limit} of the answer"
    rows = [("Confidence threshold", f"{limit} ({policy.kind})")]
    if isinstance(policy, RoutingPolicy) and policy.groups:
        rows = [
            ("Confidence threshold", "each group's own; a request that says none goes to the large model")
        ]
    considered = policy.considered if isinstance(policy, RoutingPolicy) else ()
    if len(considered) > 1:
        told = [
            f"{item.strategy}{' (chosen)' if item.chosen else ''}: large calls {item.large_share:.1%}, "
            f"cost {item.cost:.4g} {'US dollars' if item.basis == 'usd' else 'large calls'} a request"
            for item in considered
        ]
        rows.append(("Strategies, as the fit part predicts them", "; ".join(told)))
    return rows
