"""What a search's budget must hold: bounds that mean something, and that can be measured for the task. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from .base import milliseconds, number, quantity, size
from .errors import Issue
from .footprint import engine_bytes
from .plan import CompressPlan, ReplicaPlan
from .resource import Spec
from .search import SearchBudget

FIELD = "spec.lean.search.budget"
CLASSIFIES = "text-classification"


def budget_issues(spec: Spec, budget: SearchBudget) -> Iterable[Issue]:
    """Yield what is wrong with a budget."""
    measured = spec.task == CLASSIFIES
    if not budget.model_fields_set or budget == SearchBudget():
        names = [name for name in ("bytes", "sizeRatio", "latency", "usdPerThousandRequests", "device")
                 if measured or name not in ("latency", "usdPerThousandRequests")]  # fmt: skip
        yield Issue(FIELD, f"has none of {', '.join(names)}", 'write one of them, such as sizeRatio: "0.6"')
    if budget.bytes is not None and quantity(budget.bytes) < 1:
        yield Issue(f"{FIELD}.bytes", f"found {budget.bytes}", "write a size, such as 90Mi")
    if budget.size_ratio is not None and not 0 < number(budget.size_ratio) < 1:
        yield Issue(f"{FIELD}.sizeRatio", f"found {budget.size_ratio}", "write a share between 0 and 1")
    yield from _latency(spec, budget)
    yield from _dollars(spec, budget)
    yield from _device(spec, budget)


def _latency(spec: Spec, budget: SearchBudget) -> Iterable[Issue]:
    field, asked = f"{FIELD}.latency", budget.latency
    if asked is None:
        return
    if spec.task != CLASSIFIES:
        yield _unmeasured(spec, field, asked, "ThroughputRatio")
    elif not milliseconds(asked) > 0:
        yield Issue(field, f"found {asked}", "write a time above 0, such as 20ms")
    else:
        yield from _cores(spec, field)


def _dollars(spec: Spec, budget: SearchBudget) -> Iterable[Issue]:
    field, asked = f"{FIELD}.usdPerThousandRequests", budget.usd_per_thousand_requests
    if asked is None:
        return
    if spec.task != CLASSIFIES:
        yield _unmeasured(spec, field, asked, "Saving")
        return
    if not number(asked) > 0:
        yield Issue(field, f"found {asked}", 'write dollars above 0, such as "0.002"')
    yield from _cores(spec, field)
    if spec.pricing is None:
        advice = "write spec.pricing.lean.usdPerHour (and large's), or another budget"
        yield Issue("spec.pricing", f"is missing, and {field} needs a replica's price per hour", advice)
    elif spec.pricing.lean.input_usd_per_million_tokens is not None:
        found = f"found {asked} with a price per token, by which a request to any candidate costs the same"
        yield Issue(field, found, "write spec.pricing.lean.usdPerHour, or a gate on Saving instead")
    elif spec.pricing.lean.usd_per_hour is not None and not number(spec.pricing.lean.usd_per_hour) > 0:
        found = f"found {asked} with spec.pricing.lean.usdPerHour {spec.pricing.lean.usd_per_hour}: all cost nothing"
        yield Issue(field, found, "write a price above 0, or another budget")


def _unmeasured(spec: Spec, field: str, asked: str, gate: str) -> Issue:
    found = f"found {asked} with task {spec.task}, whose speed is known when vLLM has answered, and the compress Job has no vLLM"
    return Issue(field, found, f"write bytes, sizeRatio or device, and a gate on {gate} for the proof")


def _cores(spec: Spec, field: str) -> Iterable[Issue]:
    """Yield that a replica has less than the one core that is measured with."""
    cpu = spec.serving.lean.resources.cpu
    if quantity(cpu) < 1:
        found = f"found {cpu}, and {field} is measured with whole cores"
        yield Issue("spec.serving.lean.resources.cpu", found, "write 1 or more, or another budget")


def _device(spec: Spec, budget: SearchBudget) -> Iterable[Issue]:
    if budget.device is None:
        return
    field, asked = f"{FIELD}.device", budget.device.memory
    lean = spec.serving.lean
    if lean.resources.gpu:
        found = f"found {lean.resources.gpu}, and {field} is a machine without GPU"
        yield Issue("spec.serving.lean.resources.gpu", found, "write 0, or another budget")
    cache = int(quantity(lean.kv_cache)) if lean.engine == "vLLM" else 0
    least = engine_bytes(lean.engine) + cache
    if quantity(asked) <= least:
        words = f" with spec.serving.lean.kvCache {lean.kv_cache}" if cache else ""
        found = f"found {asked}, and {lean.engine} alone takes about {size(least)}{words}"
        yield Issue(f"{field}.memory", found, "write more" + (", or a smaller kvCache" if cache else ""))


def untold_issues(plan: CompressPlan) -> list[Issue]:
    """Return what a plan's budget asks and the plan does not tell: whatever wrote it, it fails closed."""
    if plan.search is None:
        return []
    budget, replica = plan.search.budget, plan.replica or ReplicaPlan()
    priced = replica.threads is not None and replica.usd_per_hour is not None
    placed = replica.kv_cache_bytes is not None and replica.dtype is not None
    wanted = [
        ("latency", budget.latency, replica.threads is not None),
        ("usdPerThousandRequests", budget.usd_per_thousand_requests, priced),
        ("device", budget.device, placed),
    ]
    words = "the plan does not say how the lean model is served"
    found = [
        Issue(f"{FIELD}.{name}", words, "give its replica")
        for name, asked, told in wanted
        if asked is not None and not told
    ]
    if plan.task != CLASSIFIES and (budget.latency or budget.usd_per_thousand_requests):
        words = f"the Job has an engine for task {CLASSIFIES} alone, and can measure no other's speed"
        found.append(Issue(FIELD, words, "write bytes, sizeRatio or device"))
    return found
