"""What is there to look at with GET: the model, the router's health, and the document of all addresses."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from leanmodel_api.base import Part
from leanmodel_api.external import Permission
from leanmodel_api.router import Broken, RouterSettings

from .ask import PATHS, TASK_ENDPOINTS
from .errors import ApiError, not_found, other_task

Lookup = Literal["models", "model", "health", "document"]
MODEL = "/v1/models/{model}"
LOOKUPS: dict[str, Lookup] = {
    "/v1/models": "models",
    MODEL: "model",
    "/healthz": "health",
    "/health": "health",
    "/openapi.json": "document",
}
"""All that GET and HEAD find, by address; those below /v1 need a key where keys are asked for."""
READS = ("GET", "HEAD")


class ModelObject(Part):
    """A model as OpenAI's API lists it."""

    id: str = Field(description="What clients write in model.")
    object: Literal["model"] = Field("model", description="Always model.")
    created: int = Field(0, description="Always 0: OpenAI's form wants it.")
    # OpenAI writes its fields with underscores, the contract does not.
    owned_by: str = Field("leanmodel", serialization_alias="owned_by", description="Always leanmodel.")


class ModelList(Part):
    """All models that are served here: one."""

    object: Literal["list"] = Field("list", description="Always list.")
    data: list[ModelObject] = Field(description="The models.")


class Health(Part):
    """How the router is, and by what it decides."""

    status: Literal["ready", "warming up"] = Field(description="Ready once an answer has come through it.")
    generation: int = Field(description="Generation of the settings in force.")
    large: str = Field(description="The large model's revision.")
    lean: str | None = Field(description="The lean model's revision.")
    strategy: str = Field(description="Cascade, AllLarge or AllLean.")
    policy: str | None = Field(description="Digest of the policy, as in the header x-leanmodel-policy.")
    certificate: str = Field(description="What it promises, as in the header x-leanmodel-certificate.")
    certificate_under_pressure: str | None = Field(description="What its second point promises.")
    pressure: str | None = Field(description="Why that is in force in this replica.")
    broken: Broken = Field(description="What the monitors have found broken.")
    watch_error: str | None = Field(description="Why the monitors' state cannot be kept.")
    settings_error: str | None = Field(description="Why the newest settings were refused.")
    external: Permission = Field(description="Whether the external provider may be asked.")
    external_error: str | None = Field(description="Why it cannot be asked although it may.")


def listed(settings: RouterSettings) -> ModelObject:
    """Return the model that is served."""
    return ModelObject(id=settings.model)


def found(path: str, method: str, settings: RouterSettings) -> Lookup:
    """Return what lies at an address that nothing is asked of by POST.

    Raises:
        ApiError: 404 where there is nothing, 405 for another method than it takes.
    """
    kind = LOOKUPS.get(path) or ("model" if path == MODEL.format(model=settings.model) else None)
    if kind is None or path == MODEL:
        endpoint = next((name for name, place in PATHS.items() if place == path), None)
        own = TASK_ENDPOINTS[settings.task]
        if endpoint in own:
            raise ApiError(405, f"{path} takes POST", code="method_not_allowed", headers={"allow": "POST"})
        if endpoint is not None:
            raise other_task(path, [PATHS[name] for name in own])
        raise not_found(path)
    if method not in READS:
        raise ApiError(
            405, f"{path} takes GET", code="method_not_allowed", headers={"allow": ", ".join(READS)}
        )
    return kind


def to_wire(part: Part) -> dict[str, Any]:
    """Return an object as it is sent, with what is not known as null."""
    return part.model_dump(mode="json", by_alias=True)
