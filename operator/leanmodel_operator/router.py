"""From what should be to what the router is told. Pure."""

from __future__ import annotations

from collections.abc import Callable

from leanmodel_api.base import fmt
from leanmodel_api.report import ProveReport
from leanmodel_api.resource import LeanModel
from leanmodel_api.router import Backend, RouterSettings

from .desired import Desired, Served


def router_settings(
    model: LeanModel, wanted: Desired, report: ProveReport | None, url: Callable[[str], str], generation: int
) -> RouterSettings | None:
    """Return the router's settings; None while there is no large model yet.

    Args:
        report: the proof, whose measured throughput turns hours into a price per token.
        url: the engine's address by revision name.
        generation: number of these settings; it goes up with every change.
    """
    backends = {served.role: _backend(served, report, url) for served in wanted.served}
    if "Large" not in backends:
        return None
    lean = backends.get("Lean")
    routed = lean is not None and wanted.policy is not None
    return RouterSettings(
        generation=generation, model=model.metadata.name, large=backends["Large"],
        lean=lean if routed else None, dark=[lean] if lean is not None and not routed else [],
        strategy="Cascade" if routed else "AllLarge", policy=wanted.policy if routed else None,
    )  # fmt: skip


def _backend(served: Served, report: ProveReport | None, url: Callable[[str], str]) -> Backend:
    speed = report.speed.get(served.role.lower()) if report is not None else None
    measured = fmt(speed.tokens_per_second, 3) if speed is not None and speed.tokens_per_second > 0 else None
    return Backend(
        revision=served.revision.name,
        artifact=served.revision.artifact,
        url=url(served.revision.name),
        price=served.price,
        tokens_per_second=measured,
    )
