"""How the models are served, what they cost, where artifacts live, and how a new revision comes in."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from .base import DecimalString, Duration, Fraction, Name, Part, Quantity
from .ledger import Ledger

Dtype = Literal["Auto", "Float32", "BFloat16", "Float16"]


class Resources(Part):
    """What one replica gets."""

    cpu: Quantity = Field("1", description="Cores. Default 1.")
    memory: Quantity = Field("4Gi", description="Memory limit. Default 4Gi.")
    gpu: int = Field(0, ge=0, le=64, description="GPUs. Default 0.")


class ModelServing(Part):
    """One model's replicas and engine."""

    engine: Literal["vLLM", "ONNXRuntime"] = Field(
        "vLLM",
        description="Engine that runs the model: vLLM for task text-generation, ONNXRuntime for text-classification and text-embedding. Default vLLM.",
    )
    min_replicas: int = Field(
        1, ge=0, le=1000, description="Replicas at least; 0 lets the model sleep (reserved). Default 1."
    )
    max_replicas: int = Field(
        1,
        ge=1,
        le=1000,
        description="Replicas at most; more than minReplicas scales with load (reserved). Default 1.",
    )
    resources: Resources = Field(default_factory=Resources, description="What one replica gets.")
    max_model_length: int = Field(
        1024, ge=16, le=1_000_000, description="Tokens of prompt and answer together at most. Default 1024."
    )
    kv_cache: Quantity = Field(
        "512Mi", description="Memory for the key-value cache of a replica on CPU. Default 512Mi."
    )
    dtype: Dtype = Field(
        "Auto",
        description="Precision of computation; Auto takes the fastest that the hardware has. Default Auto.",
    )


class Tracing(Part):
    """Where the router sends its spans."""

    endpoint: str = Field(
        pattern=r"^https?://[^/\s]+(/[^\s]*)?$",
        max_length=1024,
        description="Address of an OpenTelemetry collector for OTLP over HTTP, without /v1/traces, such as "
        "http://otel-collector.monitoring:4318.",
    )
    sampling: Fraction = Field(
        "0.1",
        description="Share of the requests that are traced; one that comes with a trace context goes by that. Default 0.1.",
    )


class Timeouts(Part):
    """How long the router waits for a model. Each is above 0."""

    connect: Duration = Field("5s", description="Until the connection stands. Default 5s.")
    first_token: Duration = Field(
        "2m", description="Until the first event of a stream, from sending. Default 2m."
    )
    between_tokens: Duration = Field("1m", description="Between two events of a stream. Default 1m.")
    answer: Duration = Field(
        "5m", description="Until the end of an answer that is not streamed, from sending. Default 5m."
    )


class BreakerSettings(Part):
    """When a model that fails is left alone for a while."""

    failures: int = Field(3, ge=1, le=1000, description="Failures in a row that open it. Default 3.")
    open_for: Duration = Field(
        "5s", description="How long it stays open, above 0; then one request tries again. Default 5s."
    )


class TrafficLimits(Part):
    """What the router takes at once, and how long it waits."""

    concurrency: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Requests under way at once in a replica of the router; more wait in its queue. Default: no limit.",
    )
    queue: int | None = Field(
        None,
        ge=0,
        le=100_000,
        description="Requests that may wait for a place; more are answered 429. Default: four times concurrency.",
    )
    queue_timeout: Duration = Field(
        "10s",
        description="How long a request waits for a place at most, then it is answered 429. Default 10s.",
    )
    max_body: Quantity = Field(
        "4Mi",
        description="Largest body of a request, from 1Ki to 1Gi; a longer one is answered 413. Default 4Mi.",
    )
    body_timeout: Duration = Field(
        "60s",
        description="How long a request may take to send its body, then it is answered 408. Default 60s.",
    )
    send_timeout: Duration | None = Field(
        None,
        description="How long a client may take nothing of its answer: then it is held to be gone, and the engine stops. "
        "Default: 60s.",
    )
    request_timeout: Duration | None = Field(
        None,
        description="How long a request may take from its body to its last byte: then it is answered 504, or its stream "
        "ends with an error. Default: no limit but those between an engine's bytes.",
    )


class RouterServing(Part):
    """The router's replicas and address, who may ask it for how much, and what it does about models that fail."""

    replicas: int = Field(
        1,
        ge=1,
        le=100,
        description="Processes of the router (in a cluster all in the head's pod): one takes one core. They share "
        "budgets, keys' bounds, monitors and pinned conversations; the bounds in limits are each one's own. Default 1.",
    )
    port: int = Field(8000, ge=1024, le=65535, description="Port of the endpoint. Default 8000.")
    resources: Resources = Field(default_factory=Resources, description="What one replica gets.")
    tracing: Tracing | None = Field(
        None,
        description="Where spans of the requests are sent; nothing of prompts or answers is in them. Default: nowhere.",
    )
    timeouts: Timeouts = Field(default_factory=Timeouts, description="How long a model is waited for.")
    breaker: BreakerSettings = Field(
        default_factory=BreakerSettings, description="When a failing model is left alone."
    )
    retries: Fraction = Field(
        "0.1",
        description="Share of the requests that may be tried a second time, before their first byte is out. 0: none. "
        "Default 0.1.",
    )
    access: Literal["Open", "Keys"] = Field(
        "Open",
        description="Open: whoever reaches the endpoint may ask it. Keys: requests need an API key, made by `leanmodel "
        "keys create` and kept as a salted hash in the Secret lm-NAME-keys (on one machine in the run's folder keys/); "
        "without any key there, all are refused. Default Open.",
    )
    limits: TrafficLimits | None = Field(
        None, description="What is taken at once. Default: bodies of 4Mi, no other limit."
    )
    heartbeat: Duration | None = Field(
        None,
        description="How long a stream may be silent before its first token until it is answered 200 and kept alive by "
        "comments, one after each such time, above 0, such as 15s: for proxies that cut silent connections. Its headers "
        "are out then, and what they would have said follows as comments. Default: no comments.",
    )
    state: str | None = Field(
        None,
        max_length=512,
        description="pvc://CLAIM[/FOLDER]: where a cluster's router keeps its ledger, its monitors' state and its pinned "
        "conversations, so that they outlive the head's pod. Block storage (ReadWriteOnce) is right, a network file "
        "system is not. Default: in that pod, and they begin anew with it.",
    )
    ledger: Ledger | None = Field(
        None,
        description="Where budgets and keys' bounds are counted. Default: in a file beside the monitors' state.",
    )


class Serving(Part):
    """The data plane."""

    large: ModelServing = Field(default_factory=ModelServing, description="The large model.")
    lean: ModelServing = Field(default_factory=ModelServing, description="The lean model.")
    router: RouterServing = Field(default_factory=RouterServing, description="The router.")
    pool: Name | None = Field(None, description="Name of a shared cluster. Reserved.")
    overrides: dict[str, Any] | None = Field(None, description="Untyped changes to pod templates. Reserved.")


class Price(Part):
    """What a model costs: per hour of a replica, or per million tokens."""

    usd_per_hour: DecimalString | None = Field(
        None,
        description="US dollars per replica-hour; a request's share follows the throughput measured in the proof.",
    )
    input_usd_per_million_tokens: DecimalString | None = Field(
        None, alias="inputUSDPerMillionTokens", description="US dollars per million prompt tokens."
    )
    output_usd_per_million_tokens: DecimalString | None = Field(
        None, alias="outputUSDPerMillionTokens", description="US dollars per million answer tokens."
    )


class Pricing(Part):
    """Prices of both models, on one basis."""

    large: Price = Field(description="The large model's price.")
    lean: Price = Field(description="The lean model's price.")


class Store(Part):
    """Where artifacts live."""

    uri: str = Field(
        min_length=1,
        max_length=1024,
        description="file:PATH here; s3://, gs:// and pvc:// are reserved. Default: the operator's store.",
    )
    credentials_secret: Name | None = Field(None, description="Secret with the credentials. Reserved.")


class Pause(Part):
    """How long a rollout step lasts."""

    duration: Duration = Field("10m", description="Such as 30s, 10m, 1h30m. Default 10m.")


class RolloutStep(Part):
    """A share of traffic and how long it is watched."""

    weight: int = Field(ge=0, le=100, description="Per cent of eligible traffic for the new revision.")
    pause: Pause = Field(default_factory=Pause, description="How long it is watched.")


class Rollout(Part):
    """How a proven revision takes traffic. Steps and analysis are reserved: it takes all at once."""

    steps: list[RolloutStep] = Field(default_factory=list, max_length=20, description="Reserved.")
    max_error_rate: Fraction | None = Field(
        None, description="Reserved: share of failed requests that triggers a rollback."
    )
    on_failure: Literal["Rollback", "Pause"] = Field(
        "Rollback", description="What happens when a new revision fails. Default Rollback; Pause is reserved."
    )
