"""What the resource can say but this version does not do: refused by name, never ignored."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from .errors import Issue
from .resource import LeanModel, Spec
from .sources import SCHEMES, SUPPORTED_SCHEMES, Source

ADVICE = "not supported yet"
Place = Literal["Machine", "Cluster"]
"""One machine, where the local runner acts; or a cluster, where the operator does."""


def unsupported_issues(model: LeanModel, place: Place = "Machine") -> list[Issue]:
    """Return an issue for each thing that is declared and not built yet.

    Args:
        place: where the resource is to be carried out.
    """
    spec = model.spec
    found = [*_plain(spec), *_sources(spec)]
    return found if place == "Cluster" else [*found, *_on_one_machine(spec)]


def _plain(spec: Spec) -> Iterable[Issue]:
    serving = spec.serving
    reserved: list[tuple[bool, str, object, str]] = [
        (spec.large.external is not None, "spec.large.external", "an external provider", "give large.source"),
        (spec.evaluation.metric == "Perplexity", "spec.evaluation.metric", "Perplexity", "use Perplexity as a gate; the promise needs a quality per answer"),
        (serving.pool is not None, "spec.serving.pool", serving.pool, "remove it"),
        (bool(spec.rollout.steps), "spec.rollout.steps", f"{len(spec.rollout.steps)} steps", "remove them: a proven revision takes all traffic at once"),
        (spec.rollout.max_error_rate is not None, "spec.rollout.maxErrorRate", spec.rollout.max_error_rate, "remove it"),
        (spec.rollout.on_failure != "Rollback", "spec.rollout.onFailure", spec.rollout.on_failure, "write Rollback"),
        (spec.store is not None and spec.store.credentials_secret is not None, "spec.store.credentialsSecret", "a secret", "remove it"),
    ]  # fmt: skip
    for declared, field, found, remedy in reserved:
        if declared:
            yield Issue(field, f"found {found}: {ADVICE}", remedy)


def _on_one_machine(spec: Spec) -> Iterable[Issue]:
    """Yield what takes a cluster: KubeRay scales replicas and finds GPUs, and its volumes hold the store."""
    here = f"{ADVICE} on one machine"
    if spec.serving.overrides is not None:
        yield Issue("spec.serving.overrides", f"found overrides: {here}", "remove it")
    if spec.serving.router.state is not None:
        yield Issue(
            "spec.serving.router.state",
            f"found {spec.serving.router.state}: {here}",
            "remove it: the ledger lies in the run's folder",
        )
    if spec.store is not None and not spec.store.uri.startswith("file:"):
        yield Issue("spec.store.uri", f"found {spec.store.uri}: {here}", "write file:PATH")
    for name in ("large", "lean"):
        model = getattr(spec.serving, name)
        if (model.min_replicas, model.max_replicas) != (1, 1):
            yield Issue(
                f"spec.serving.{name}.maxReplicas",
                f"found {model.min_replicas} to {model.max_replicas} replicas: {here}",
                "write 1 for both",
            )
        if model.resources.gpu:
            yield Issue(
                f"spec.serving.{name}.resources.gpu", f"found {model.resources.gpu}: {here}", "write 0"
            )


def _sources(spec: Spec) -> Iterable[Issue]:
    lean = spec.lean.source if spec.lean else None
    places: list[tuple[str, Source | None]] = [
        ("spec.large.source", spec.large.source),
        ("spec.lean.source", lean),
    ]
    places += [(f"spec.dataSets[{i}].source", data.source) for i, data in enumerate(spec.data_sets)]
    for field, source in places:
        if source is None or source.scheme in SUPPORTED_SCHEMES:
            continue
        if source.scheme in SCHEMES:
            yield Issue(
                f"{field}.uri",
                f"found {source.uri!r}: {source.scheme} is {ADVICE}",
                "write hf://, pypi: or file:",
            )
        else:
            yield Issue(
                f"{field}.uri",
                f"found {source.uri!r}",
                f"write one of {', '.join(scheme + ':' for scheme in SUPPORTED_SCHEMES)}",
            )
