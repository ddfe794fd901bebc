"""The external provider in a cluster: its key's Secret, and permission that a refused manifest takes back. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leanmodel_api.external import KEY_FIELD
from leanmodel_api.resource import LeanModel
from leanmodel_api.router import RouterSettings

from . import names
from .children import config
from .children.owner import Owner
from .observed import Observed


def key_secret(model: LeanModel | None) -> str | None:
    """Return the Secret that the router needs to ask the provider; None where it needs none."""
    if model is None or model.spec.routing.external_providers != "Allowed":
        return None
    fallback = model.spec.routing.fallback
    return fallback.external.api_key_secret if fallback is not None else None


ROUTER = ("spec.routing.fallback", "so the provider is not asked")


def key_missing(
    found: Mapping[str, Any] | None, secret: str, namespace: str, what: tuple[str, str] = ROUTER
) -> str:
    """Return that a Secret has no key, in words; empty when it has one.

    Args:
        found: the Secret as the API server has it; None when there is none.
        what: the provider's place in the manifest, and what comes of it.
    """
    if found is not None and (found.get("data") or {}).get(KEY_FIELD):
        return ""
    place, so = what
    return (
        f"{place}.external.apiKeySecret: Secret {secret} with a key {KEY_FIELD} is not in namespace {namespace}, {so}: "
        "create it"
    )


def closed(body: Mapping[str, Any], seen: Observed) -> tuple[dict[str, Any], ...]:
    """Return the router's ConfigMap without a provider that a refused manifest does not allow; nothing where it does."""
    settings, meta = withdrawn(body.get("spec"), seen.router), body["metadata"]
    if settings is None:
        return ()
    queue = (meta.get("labels") or {}).get(names.QUEUE_LABEL, "")
    owner = Owner(str(meta["name"]), str(meta["namespace"]), seen.uid, queue)
    return (config.router_config(owner, settings),)


def withdrawn(spec: object, now: RouterSettings | None) -> RouterSettings | None:
    """Return the settings without the provider that a manifest no longer names or allows; None where all is as it was.

    It is for a manifest that is refused: nothing of one is carried out, but to go on sending requests outside that it
    forbids would be no way to fail.

    Args:
        spec: as the API server has it, checked by nobody.
    """
    if now is None or now.external is None:
        return None
    routing = _field(spec, "routing")
    url = _field(_field(_field(routing, "fallback"), "external"), "baseUrl")
    if _field(routing, "externalProviders") == "Allowed" and url == now.external.provider.base_url:
        return None
    return now.model_copy(update={"external": None, "generation": now.generation + 1})


def _field(part: object, name: str) -> object:
    return part.get(name) if isinstance(part, Mapping) else None
