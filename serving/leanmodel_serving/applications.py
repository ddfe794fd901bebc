"""Desired state: which Serve applications there are, as serveConfigV2 has it. Pure; no Ray is imported.

Each model revision is an application of its own below ``/engines/<revision>``, the router is one at ``/``. Serve
leaves applications alone whose description did not change, so adding a lean revision restarts nothing.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from leanmodel_api.base import Name, Part
from leanmodel_api.ledger import RedisAt

from .engines.base import ENGINES, EngineSettings

ENGINE_PREFIX = "/engines"
ROUTER_APPLICATION = "router"


class RouterArgs(Part):
    """What the router application is started with; all that may change later stands in the settings file."""

    settings_file: str = Field(min_length=1, description="RouterSettings as JSON, watched.")
    engine_token_file: str = Field(min_length=1, description="Token between router and engines.")
    internal_token_file: str = Field(min_length=1, description="Token of the internal route (proving).")
    reports_folder: str | None = Field(
        None, description="Folder with the pages of proofs, shown on the internal route. Default: none are."
    )
    state_file: str | None = Field(
        None,
        description="Where the monitors' state and pinned conversations are kept for replicas beside and after this "
        "one, and the ledger beside it. Default: nowhere, they live as long as the replica.",
    )
    keys_folder: str | None = Field(
        None, description="Folder of the API keys' entries, watched. Default: there are no keys."
    )
    redis: RedisAt | None = Field(
        None, description="Redis that keeps the ledger. Default: it lies beside the state file."
    )
    replicas: int = Field(1, ge=1, description="Replicas. Default 1.")
    max_ongoing_requests: int = Field(
        2000, ge=1, description="Requests a replica holds at once. Default 2000."
    )


def engine_prefix(revision: Name) -> str:
    """Return the route prefix of a revision's application."""
    return f"{ENGINE_PREFIX}/{revision}"


def engine_application(settings: EngineSettings, engine: str = "vLLM") -> dict[str, Any]:
    """Return the serveConfigV2 entry of one engine.

    Raises:
        KeyError: no engine of that name.
    """
    return {
        "name": settings.revision,
        "import_path": ENGINES[engine],
        "route_prefix": engine_prefix(settings.revision),
        "args": settings.model_dump(mode="json", by_alias=True),
    }


def router_application(args: RouterArgs) -> dict[str, Any]:
    """Return the serveConfigV2 entry of the router; without a Redis it is the one that it was before there were any."""
    without = None if args.redis is not None else {"redis"}
    return {
        "name": ROUTER_APPLICATION,
        "import_path": "leanmodel_serving.router.deployment:build",
        "route_prefix": "/",
        "args": args.model_dump(mode="json", by_alias=True, exclude=without),
    }


def desired_state(engines: list[dict[str, Any]], router: dict[str, Any] | None) -> dict[str, Any]:
    """Return the desired-state document: the engines in the order given, then the router."""
    return {"applications": [*engines, *([router] if router else [])]}
