"""From what should be to what the router is told. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from leanmodel_api.base import fmt, number, quantity, seconds
from leanmodel_api.classification import task_of
from leanmodel_api.evaluation import Monitoring, Routing
from leanmodel_api.external import ANSWER_S, ExternalAccess, ExternalTimeouts, Patience, Provider
from leanmodel_api.report import ProveReport
from leanmodel_api.resource import LeanModel, Spec
from leanmodel_api.router import Backend, Resilience, RouterLimits, RouterSettings, Watching
from leanmodel_api.serving import Price, Timeouts, TrafficLimits

from .desired import Desired, Served


def router_settings(
    model: LeanModel,
    wanted: Desired,
    report: ProveReport | None,
    url: Callable[[str], str],
    generation: int,
    key_file: Callable[[str], str],
) -> RouterSettings | None:
    """Return the router's settings; None while there is no large model yet.

    Args:
        report: the proof, whose measured throughput turns hours into a price per token.
        url: the engine's address by revision name.
        generation: number of these settings; it goes up with every change.
        key_file: where the router finds the key of a Secret by its name.
    """
    backends = {served.role: _backend(served, report, url) for served in wanted.served}
    if "Large" not in backends:
        return None
    lean = backends.get("Lean")
    routed = lean is not None and wanted.policy is not None
    return RouterSettings(
        generation=generation, model=model.metadata.name, task=task_of(model.spec), large=backends["Large"],
        lean=lean if routed else None, dark=[lean] if lean is not None and not routed else [],
        strategy="Cascade" if routed else "AllLarge", policy=wanted.policy if routed else None,
        watching=_watching(model.spec.routing.monitoring or Monitoring()),
        overrides=model.spec.routing.overrides == "Allowed", **declared(model.spec, key_file),
    )  # fmt: skip


def declared(spec: Spec, key_file: Callable[[str], str]) -> dict[str, Any]:
    """Return what of the settings is the manifest's word alone, whatever is being made or served.

    What is as by default is left out where a router of before would not know the field.
    """
    router = spec.serving.router
    heartbeat = seconds(router.heartbeat) if router.heartbeat else None
    limits = RouterLimits(**_waits(router.timeouts), **_taken(router.limits), heartbeat=heartbeat)
    if limits.answer_timeout == ANSWER_S:
        limits = limits.model_copy(update={"answer_timeout": None})
    resilience = Resilience(
        failures=router.breaker.failures,
        open_seconds=seconds(router.breaker.open_for),
        retries=number(router.retries),
    )
    return {
        "limits": limits, "resilience": resilience if resilience != Resilience() else None,
        "external": external_access(spec.routing, key_file),
        "budget": spec.routing.budget, "access": "Keys" if router.access == "Keys" else None, "tracing": router.tracing,
        "pressure": spec.routing.under_pressure.when if spec.routing.under_pressure else None,
    }  # fmt: skip


def external_access(routing: Routing, key_file: Callable[[str], str]) -> ExternalAccess | None:
    """Return the provider that the router may ask; None unless the manifest allows it: it is then not even told."""
    fallback = routing.fallback
    if routing.external_providers != "Allowed" or fallback is None:
        return None
    secret = fallback.external.api_key_secret
    provider = Provider(
        base_url=fallback.external.base_url,
        model=fallback.external.model,
        key_file=key_file(secret) if secret else None,
        price=Price.model_validate(fallback.price.model_dump()),
        accepts=fallback.accepts,
        max_model_length=fallback.max_model_length,
        patience=Patience(**_waits(fallback.timeouts)),
    )
    return ExternalAccess(permission="Allowed", provider=provider)


def _waits(timeouts: Timeouts | ExternalTimeouts) -> dict[str, float]:
    return {
        "connect_timeout": seconds(timeouts.connect),
        "first_byte_timeout": seconds(timeouts.first_token),
        "idle_timeout": seconds(timeouts.between_tokens),
        "answer_timeout": seconds(timeouts.answer),
    }


def _taken(given: TrafficLimits | None) -> dict[str, Any]:
    """Return what is taken at once; what is not said is left to the defaults."""
    if given is None:
        return {}
    return {
        "max_body_bytes": int(quantity(given.max_body)), "concurrency": given.concurrency, "queue": given.queue,
        "queue_timeout": seconds(given.queue_timeout), "body_timeout": seconds(given.body_timeout),
        "send_timeout": seconds(given.send_timeout) if given.send_timeout else None,
        "request_timeout": seconds(given.request_timeout) if given.request_timeout else None,
    }  # fmt: skip


def _watching(monitoring: Monitoring) -> Watching:
    return Watching(shadowing=number(monitoring.shadowing), false_alarms=number(monitoring.false_alarms))


def _backend(served: Served, report: ProveReport | None, url: Callable[[str], str]) -> Backend:
    speed = report.speed.get(served.role.lower()) if report is not None else None
    measured = fmt(speed.tokens_per_second, 3) if speed is not None and speed.tokens_per_second > 0 else None
    return Backend(
        revision=served.revision.name,
        artifact=served.revision.artifact,
        url=url(served.revision.name),
        max_model_length=served.serving.max_model_length,
        price=served.price,
        tokens_per_second=measured,
    )
