"""What the Ray cluster should run: from who gets traffic (now and next) to the RayService. Pure.

An application that is up is kept word for word: a change of its arguments would restart it. One that has lost its
traffic goes only after the router has said that it no longer sends any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from leanmodel_api.plan import RevisionRef
from leanmodel_api.resource import LeanModel
from leanmodel_api.router import Backend, RouterSettings

from ..desired import Role, Served
from . import names, rayservice
from .candidate import pinned_image, service_port
from .children import serving
from .children.owner import Owner
from .observed import Observed
from .settings import Settings


@dataclass(frozen=True)
class Serving:
    """The RayService, and what of the manifest does not land in it.

    Attributes:
        held: in words, each with what to do.
    """

    body: dict[str, Any]
    held: tuple[str, ...]


def ray_service(
    owner: Owner, model: LeanModel, seen: Observed, settings: Settings, following: RouterSettings
) -> Serving:
    """Return the RayService for the traffic of now and of next.

    Args:
        following: the router's next settings.
    """
    serve = seen.serve
    renew = model.metadata.annotations.get(names.ANNOTATION_RENEW, "")
    pinned = serve is not None and serve.annotations.get(names.ANNOTATION_RENEW, "") == renew
    config = dict(serve.config) if serve is not None and pinned and serve.config else None
    image = pinned_image(config, settings)
    have = serve.applications if serve is not None and pinned else {}
    entries: dict[str, dict[str, Any]] = {}
    needed: dict[str, Role] = {}
    held: list[str] = []
    for backend in _backends(seen.router, following):
        role: Role = "Large" if backend.revision.startswith("large-") else "Lean"
        fresh = serving.engine_application(_served(model, backend, role), image)
        known = have.get(backend.revision)
        if known is not None and serve is not None and serve.running(backend.revision):
            spec = model.spec.serving.large if role == "Large" else model.spec.serving.lean
            entries[backend.revision] = rayservice.rescaled(known, spec.min_replicas, spec.max_replicas)
            held += _held(backend.revision, role, entries[backend.revision], fresh)
        else:
            entries[backend.revision] = fresh
            needed[_group(fresh)] = role
    for name, entry in have.items():  # no longer wanted, and the router has not confirmed yet
        if name not in entries and name != serving.ROUTER_APPLICATION and not _released(seen, following):
            entries[name] = entry
    groups = [
        rayservice.worker_group(group, serving.worker_template(owner, model, role, settings))
        for group, role in needed.items()
    ]
    if config is None:
        redis = (settings.redis_address, settings.redis_secret) if settings.redis_address else None
        config = rayservice.cluster_config(
            settings.ray_version, serving.head_template(owner, model, settings), groups,
            {"cpu": settings.autoscaler_cpu, "memory": settings.autoscaler_memory}, settings.image_pull_policy, redis,
        )  # fmt: skip
    else:
        config = rayservice.appended(config, groups)
        held += _held_templates(owner, model, settings, config, image)
    annotations = {names.ANNOTATION_RENEW: renew} if renew else None
    labels = {**names.labels(owner.name, "serving"), **owner.queue_label()}
    meta = names.meta(names.rayservice(owner.name), owner.namespace, labels, owner.reference(), annotations)
    mounted, replicas = rayservice.head_mounts(config), model.spec.serving.router.replicas
    applications = [
        *entries.values(),
        serving.router_application(mounted, replicas, serving.ledger_redis(owner, model)),
    ]
    port = service_port(model, serve)
    if port != model.spec.serving.router.port:
        held.append(
            f"spec.serving.router.port: the Service keeps port {port}, since KubeRay does not change it; to have "
            f"{model.spec.serving.router.port}, delete this LeanModel and apply it anew"
        )
    body = rayservice.ray_service(meta, serving.service(owner, port), config, applications)
    return Serving(body, tuple(held))


def _backends(now: RouterSettings | None, following: RouterSettings) -> list[Backend]:
    """Return the revisions with traffic, now or next, then the dark ones of next; each once."""
    found = {backend.revision: backend for backend in (now.backends()[: 2 if now.lean else 1] if now else [])}
    for backend in following.backends():
        found.setdefault(backend.revision, backend)
    return list(found.values())


def _released(seen: Observed, following: RouterSettings) -> bool:
    """Return whether the router runs with the next settings, so that what they leave out gets no request."""
    return seen.router == following and seen.facts.router_generation == following.generation


def _served(model: LeanModel, backend: Backend, role: Role) -> Served:
    spec = model.spec.serving.large if role == "Large" else model.spec.serving.lean
    return Served(role, revision_ref(backend), spec, backend.price)


def revision_ref(backend: Backend) -> RevisionRef:
    """Return a backend as a revision; its size is not in the router's settings."""
    return RevisionRef(name=backend.revision, artifact=backend.artifact or "", bytes=0)


def _group(entry: Mapping[str, Any]) -> str:
    return str(next(iter(entry["deployments"][0]["ray_actor_options"]["resources"])))


def _held(revision: str, role: Role, kept: Mapping[str, Any], fresh: Mapping[str, Any]) -> list[str]:
    """Return which edits of a model's settings wait, because its revision is up."""
    before, after = kept.get("args", {}), fresh["args"]
    changed = [key for key in after if before.get(key) != after[key] and key not in ("model", "revision")]
    if _group(kept) != _group(fresh):
        changed.append("resources")
    if not changed:
        return []
    return [
        f"spec.serving.{role.lower()}: {', '.join(changed)} will not change for {revision} while it serves (it would "
        "be restarted): they hold for the next revision, or for all after the annotation "
        f"{names.ANNOTATION_RENEW} got a new value"
    ]


def _held_templates(
    owner: Owner, model: LeanModel, settings: Settings, config: Mapping[str, Any], image: str
) -> list[str]:
    """Return that the pods' template has changed, when it has: it would build a second whole cluster."""
    head = serving.head_template(owner, model, settings)
    kept = config.get("headGroupSpec", {}).get("template", {})
    if covers(kept, head):
        return []
    new = head["spec"]["containers"][0]["image"]
    what = (
        f"image {new} instead of {image}"
        if new != image
        else "another pod template (an override, the router's resources or ledger, or spec.routing.fallback.external.apiKeySecret)"
    )
    return [
        f"the Ray cluster keeps the pods it was made with; {what} would need a second cluster beside it: to have it, "
        f"set the annotation {names.ANNOTATION_RENEW} to a new value"
    ]


def covers(present: Any, wanted: Any) -> bool:
    """Return whether all that is wanted is there already, whatever else is (the API server's defaults, for one).

    Empty objects and lists count as left out, as the API server leaves them out.
    """
    if isinstance(wanted, Mapping):
        if not isinstance(present, Mapping):
            return not wanted and present is None
        return all(covers(present.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list | tuple):
        if not wanted and present is None:
            return True
        if not isinstance(present, list | tuple) or len(present) != len(wanted):
            return False
        return all(covers(a, b) for a, b in zip(present, wanted, strict=True))
    return bool(present == wanted)
