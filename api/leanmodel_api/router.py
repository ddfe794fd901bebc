"""What the router is started with: backends, prices and the policy, in one watched file.

The supervisor (or the operator) writes a :class:`RouterSettings` as JSON beside the file and renames it over it;
the router looks every quarter of a second and swaps the whole at once. Requests under way finish with the
settings they began with, so weights and policies change without a restart and without a lost request.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from .base import DecimalString, Digest, Name, Part
from .budget import Budget
from .classification import Task
from .external import ExternalAccess, Patience
from .pressure import Strain
from .routing_policy import AnyPolicy
from .serving import Price, Tracing

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
    max_model_length: int | None = Field(
        None,
        ge=1,
        description="Tokens that its engine takes, prompt and answer together. Default: not known, not looked at.",
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


class RouterLimits(Patience):
    """What the router lets through; durations are seconds."""

    max_body_bytes: int = Field(
        4 * 2**20, ge=1024, le=2**30, description="Request body at most, bytes. Default 4 MiB."
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
    # Without a value they are left out of the file: a router of an earlier version must be able to read it.
    concurrency: int | None = Field(
        None, ge=1, description="Requests under way at once in a replica; more wait. Default: no limit."
    )
    queue: int | None = Field(
        None, ge=0, description="Requests that wait; more are answered 429. Default: four times concurrency."
    )
    queue_timeout: float | None = Field(
        None, gt=0, le=86400, description="Seconds that a request waits at most. Default 10."
    )
    body_timeout: float | None = Field(
        None, gt=0, le=86400, description="Seconds until a request's body is read. Default 60."
    )
    send_timeout: float | None = Field(
        None,
        gt=0,
        le=86400,
        description="Seconds for which a client may take nothing of its answer; then it is held to be gone. Default 60.",
    )
    request_timeout: float | None = Field(
        None, gt=0, le=86400, description="Seconds from the body to the last byte. Default: no limit."
    )
    heartbeat: float | None = Field(
        None,
        gt=0,
        le=86400,
        description="Seconds of silence before a stream's first token after which it is kept alive by a comment. "
        "Default: it is not.",
    )


class Resilience(Part):
    """When a backend is left alone for a while, and how often a request is tried again."""

    failures: int = Field(
        3, ge=1, le=1000, description="Failures in a row that open a backend's breaker. Default 3."
    )
    open_seconds: float = Field(
        5.0,
        gt=0,
        le=3600,
        description="Seconds that it stays open until one request may try again. Default 5.",
    )
    retries: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of the requests that may be tried a second time before their first byte is out. 0: none. "
        "Default 0.1.",
    )


class Watching(Part):
    """How the router watches the policy's promise."""

    shadowing: float = Field(
        0.02,
        ge=0,
        le=1,
        description="Share of accepted requests shadowed to the large model. 0: none. Default 0.02.",
    )
    false_alarms: float = Field(
        0.05, gt=0, le=0.5, description="Chance of ever a false alarm of any monitor. Default 0.05."
    )
    period_seconds: float = Field(
        60.0,
        gt=0,
        le=86400,
        description="Seconds whose counts, of all replicas, are folded into the monitors at once. Default 60.",
    )


class Broken(Part):
    """A promise that monitors have found broken."""

    policy: str = Field(
        max_length=128, description="Digest of the policy that made it; empty: none is watched."
    )
    alarms: dict[str, str] = Field(
        default_factory=dict,
        description="What they found, in words, by monitor: label-free, score-drift. Default: nothing.",
    )

    def about(self, policy: AnyPolicy | None) -> bool:
        """Return whether it is this policy's promise, and really broken."""
        return bool(self.alarms) and policy is not None and policy.name == self.policy


class RouterSettings(Part):
    """The whole of what the router decides by."""

    version: Literal["1"] = Field("1", description="Version of this format.")
    generation: int = Field(
        0, ge=0, description="Counts up with every change; /healthz says the one in force."
    )
    model: Name = Field(description="The LeanModel's name: what clients write in model.")
    task: Task | None = Field(None, description="What the models do. Default: they generate text.")
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
        description="Cascade: by the policy, of whatever kind it is. AllLarge, AllLean: fixed, without a promise. "
        "Default AllLarge.",
    )
    policy: AnyPolicy | None = Field(None, description="The certified rule; needed by Cascade.")
    broken: Broken | None = Field(
        None,
        description="What was found broken before: while that policy is in force all requests go to the large model. "
        "Default: nothing.",
    )
    watching: Watching = Field(default_factory=Watching, description="How the policy's promise is watched.")
    overrides: bool = Field(
        False, description="Whether a request's headers may choose its route. Default false."
    )
    limits: RouterLimits = Field(default_factory=RouterLimits, description="What is let through.")
    tracing: Tracing | None = Field(None, description="Where spans are sent. Default: nowhere.")
    # Left out of the file where the manifest does not say it: a router of before would not know them.
    resilience: Resilience | None = Field(None, description="Breakers and retries. Default: their defaults.")
    external: ExternalAccess | None = Field(
        None, description="The external provider, and whether it may be asked. Default: none may."
    )
    budget: Budget | None = Field(None, description="What may be spent. Default: no limit.")
    pressure: Strain | None = Field(
        None,
        description="What puts the policy's second promise into force. Default: nothing, the first always is.",
    )
    access: Literal["Keys"] | None = Field(
        None, description="Keys: requests need an API key of the keys folder. Default: none is asked for."
    )

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
