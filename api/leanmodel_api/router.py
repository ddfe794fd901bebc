"""What the router is started with: backends, prices and the policy, in one watched file.

The supervisor (or the operator) writes a :class:`RouterSettings` as JSON beside the file and renames it over it;
the router looks every quarter of a second and swaps the whole at once. Requests under way finish with the
settings they began with, so weights and policies change without a restart and without a lost request.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from .base import DecimalString, Digest, Name, Part
from .policy import Policy
from .serving import Price

CostBasis = Literal["tokens", "throughput", "wall-time", "none"]
"""How a request's cost was found: price per token; replica-hour by measured throughput; replica-hour by the
seconds the request took (before there is a measurement); no price, no cost."""


class Backend(Part):
    """One model revision that the router can ask."""

    revision: Name = Field(
        description="Revision, such as lean-1a2b3c4d: the engine serves the model under this name, and the body's "
        "model field of an answer says it."
    )
    url: str = Field(
        pattern=r"^https?://[^/\s]+(/[^\s]*)?$",
        max_length=1024,
        description="Base address of the engine's application, without /v1, such as "
        "http://127.0.0.1:8000/engines/lean-1a2b3c4d.",
    )
    artifact: Digest | None = Field(
        None,
        description="Digest of its weights, held against the certificate's. Default: not known, not checked.",
    )
    price: Price | None = Field(
        None, description="What the model costs. Default: unknown, no cost is reported."
    )
    tokens_per_second: DecimalString | None = Field(
        None,
        description="Tokens a second (prompt and answer together) of one replica as measured in the proof, at the "
        "proof's concurrency; turns usdPerHour into a price per token. Default: not measured yet.",
    )

    @model_validator(mode="after")
    def _rate_is_positive(self) -> Backend:
        if self.tokens_per_second is not None and float(self.tokens_per_second) <= 0:
            raise ValueError(
                f"tokensPerSecond: found {self.tokens_per_second}, expected above 0 (leave it out before it is "
                "measured)"
            )
        return self


class RouterLimits(Part):
    """What the router lets through; durations are seconds."""

    max_body_bytes: int = Field(
        4 * 2**20, ge=1024, le=2**30, description="Request body at most, bytes. Default 4 MiB."
    )
    connect_timeout: float = Field(
        5.0, gt=0, le=600, description="Seconds until an engine's connection stands. Default 5."
    )
    first_byte_timeout: float = Field(
        300.0, gt=0, le=86400, description="Seconds until an engine's first byte. Default 300."
    )
    idle_timeout: float = Field(
        120.0, gt=0, le=86400, description="Seconds between two chunks of a stream. Default 120."
    )
    internal_concurrency: int = Field(
        32,
        ge=1,
        le=4096,
        description="Requests under way on the internal route; more are answered 429. Default 32.",
    )
    internal_requests_per_second: float = Field(
        1000.0, gt=0, le=1e6, description="Rate of the internal route; more are answered 429. Default 1000."
    )


class RouterSettings(Part):
    """The whole of what the router decides by."""

    version: Literal["1"] = Field("1", description="Version of this format.")
    generation: int = Field(
        0, ge=0, description="Counts up with every change; /healthz says the one in force."
    )
    model: Name = Field(description="The LeanModel's name: what clients write in model.")
    large: Backend = Field(description="The large model: fallback of everything.")
    lean: Backend | None = Field(
        None, description="The lean revision that may answer. Default: none, all goes large."
    )
    dark: list[Backend] = Field(
        default_factory=list,
        max_length=16,
        description="Further revisions, reachable on the internal route alone (large and lean always are).",
    )
    strategy: Literal["Cascade", "AllLarge", "AllLean"] = Field(
        "AllLarge",
        description="Cascade: by the policy (which may itself be all-large or all-lean). AllLarge, AllLean: fixed, "
        "without a promise. Default AllLarge.",
    )
    policy: Policy | None = Field(None, description="The certified rule; needed by Cascade.")
    limits: RouterLimits = Field(default_factory=RouterLimits, description="What is let through.")

    @model_validator(mode="after")
    def _strategy_has_what_it_needs(self) -> RouterSettings:
        if self.strategy != "AllLarge" and self.lean is None:
            raise ValueError(f"lean: missing, expected a backend because strategy is {self.strategy}")
        if self.strategy == "Cascade" and self.policy is None:
            raise ValueError("policy: missing, expected one because strategy is Cascade (or write AllLarge)")
        names = [backend.revision for backend in self.backends()]
        if len(names) != len(set(names)):
            raise ValueError(
                f"dark: revisions are named more than once among {', '.join(names)}; name each once"
            )
        return self

    def backends(self) -> list[Backend]:
        """Every revision that the internal route reaches: large, lean, then the dark ones."""
        return [self.large, *([self.lean] if self.lean else []), *self.dark]

    def backend(self, revision: str) -> Backend | None:
        """Return the backend of a revision, or None when there is none of that name."""
        return next((backend for backend in self.backends() if backend.revision == revision), None)
