"""Somebody else's model behind an OpenAI-compatible API: as the manifest declares it, and as the router is told."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from .base import DecimalString, Duration, Name, Part
from .serving import Price

KEY_FIELD = "apiKey"
"""Key of the Secret, and so name of the file, that holds a provider's key."""
URL_PATTERN = r"^https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?$"
"""An address without a user, a query or a fragment: nobody writes a key into one by habit."""
PLAIN_PATTERN = (
    r"^http://(localhost|127[.][0-9.]+|[A-Za-z0-9.-]+[.]svc([.]cluster[.]local)?)(:[0-9]+)?(/.*)?$"
)
"""Where http is good enough: on this machine, or at a Service of the same cluster."""
Url = Annotated[str, Field(pattern=URL_PATTERN, min_length=8, max_length=1024)]
ANSWER_S = 300.0
Ability = Literal["Tools", "Images"]
Permission = Literal["Forbidden", "Allowed"]


class External(Part):
    """A model of somebody else's, behind an OpenAI-compatible API."""

    base_url: Url = Field(
        description="Base address, such as https://api.example.com/v1, without user, query or fragment; http:// only "
        "on this machine or for a Service of the same cluster."
    )
    model: str = Field(min_length=1, max_length=256, description="Model name at the provider.")
    api_key_secret: Name | None = Field(
        None,
        description="Secret that holds the key under apiKey, in the LeanModel's namespace; with `leanmodel up` it is "
        "the file secrets/NAME/apiKey in ~/.leanmodel (LEANMODEL_HOME). Default: the provider wants none.",
    )


class TokenPrice(Part):
    """What a provider charges."""

    input_usd_per_million_tokens: DecimalString = Field(
        alias="inputUSDPerMillionTokens", description="US dollars per million prompt tokens."
    )
    output_usd_per_million_tokens: DecimalString = Field(
        alias="outputUSDPerMillionTokens", description="US dollars per million answer tokens."
    )


class ExternalTimeouts(Part):
    """How long a provider is waited for. Each is above 0."""

    connect: Duration = Field("5s", description="Until the connection stands. Default 5s.")
    first_token: Duration = Field(
        "30s", description="Until the first event of a stream, from sending. Default 30s."
    )
    between_tokens: Duration = Field("30s", description="Between two events of a stream. Default 30s.")
    answer: Duration = Field(
        "2m", description="Until the end of an answer that is not streamed, from sending. Default 2m."
    )


def _tools() -> list[Ability]:
    return ["Tools"]


class Fallback(Part):
    """Who answers when the large model cannot."""

    external: External = Field(description="The provider.")
    price: TokenPrice = Field(description="What the provider charges; counted with each answer.")
    accepts: Annotated[list[Ability], Field(max_length=2)] = Field(
        default_factory=_tools,
        description="What the provider's model can do beyond text: Tools, Images. A request that needs another ability "
        "is not sent there. Default [Tools].",
    )
    max_model_length: int | None = Field(
        None,
        ge=16,
        le=100_000_000,
        description="Tokens of prompt and answer together that the provider's model takes, guessed at 4 bytes a token; a "
        "longer request is not sent there. Default: not looked at.",
    )
    timeouts: ExternalTimeouts = Field(
        default_factory=ExternalTimeouts, description="How long the provider is waited for."
    )


class Patience(Part):
    """How long the router waits for a backend; seconds."""

    connect_timeout: float = Field(
        5.0, gt=0, le=600, description="Seconds until a connection stands. Default 5."
    )
    first_byte_timeout: float = Field(
        120.0, gt=0, le=86400, description="Seconds until the first event of a stream. Default 120."
    )
    idle_timeout: float = Field(
        60.0, gt=0, le=86400, description="Seconds between two events of a stream. Default 60."
    )
    answer_timeout: float | None = Field(
        None,
        gt=0,
        le=86400,
        description="Seconds until the end of an answer that is not streamed. Default: 300.",
    )

    @property
    def whole(self) -> float:
        """Seconds until the end of an answer that is not streamed."""
        return self.answer_timeout or ANSWER_S


class Provider(Part):
    """A provider as the router asks it."""

    base_url: Url = Field(description="Base address; /chat/completions or /completions is put behind it.")
    model: str = Field(min_length=1, max_length=256, description="What the body's model field says there.")
    key_file: str | None = Field(
        None, max_length=1024, description="File with the key, read at each request. Default: no key is sent."
    )
    price: Price | None = Field(
        None, description="Price per token; a price per hour is of no use here. Default: unknown."
    )
    accepts: list[Ability] = Field(default_factory=list, description="What it can do beyond text.")
    max_model_length: int | None = Field(
        None, ge=1, description="Tokens that it takes. Default: not looked at."
    )
    patience: Patience = Field(default_factory=Patience, description="How long it is waited for.")

    @model_validator(mode="after")
    def _is_not_asked_in_the_clear(self) -> Provider:
        if in_the_clear(self.base_url):
            raise ValueError(
                f"baseUrl: found {self.base_url}, which would carry prompts unencrypted; write https://"
            )
        return self


class ExternalAccess(Part):
    """Whether requests may leave, and for where."""

    permission: Permission = Field(
        "Forbidden", description="Only Allowed lets anything leave. Default Forbidden."
    )
    provider: Provider = Field(description="Where a request may go.")


def in_the_clear(url: str) -> bool:
    """Return whether an address would carry prompts and key unencrypted over a network that is not one's own."""
    return url.startswith("http://") and re.fullmatch(PLAIN_PATTERN.strip("^$"), url) is None
