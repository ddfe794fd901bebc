"""API keys: what is given out once, and what is kept of it.

A key is ``lm-ID-SECRET``: ten hex digits by which its entry is found, and 32 random bytes. The entry keeps a salted
SHA-256 of the secret part. A slow hash would add nothing: it protects words that people think of, and nobody can try
2^256 secrets; a fast one needs no cache of clear keys and cannot be used to keep the router busy.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from datetime import datetime
from typing import Annotated

from pydantic import Field, field_validator

from .base import NAME_PATTERN, Part
from .budget import Budget, amount_problem

SUFFIX = ".json"
"""An entry's file is ID.json: in a folder, or a key of a Secret that is mounted as one."""
_KEY = re.compile(r"lm-([0-9a-f]{10})-([A-Za-z0-9_-]{43})")
ID_PATTERN = r"^[0-9a-f]{10}$"
KeyId = Annotated[str, Field(pattern=ID_PATTERN)]


class KeyLimits(Part):
    """What a key may use; all replicas of the router count together."""

    requests_per_minute: int | None = Field(
        None, ge=1, le=10**7, description="Requests a minute, a bucket of as many. Default: no limit."
    )
    tokens_per_minute: int | None = Field(
        None,
        ge=1,
        le=10**10,
        description="Tokens a minute, prompt and answer together, a bucket of as many. Default: no limit.",
    )
    concurrency: int | None = Field(
        None, ge=1, le=10**5, description="Requests under way at once. Default: no limit."
    )
    budget: Budget | None = Field(None, description="What may be spent with it. Default: no limit.")


class KeyEntry(Part):
    """What is kept of a key; the key itself cannot be told from it."""

    version: str = Field("1", pattern="^1$", description="Version of this format.")
    id: KeyId = Field(description="Ten hex digits, the second part of the key.")
    tenant: str = Field(
        pattern=NAME_PATTERN, max_length=63, description="Whose it is: lower case, digits, dashes."
    )
    salt: str = Field(pattern=r"^[0-9a-f]{32}$", description="16 random bytes in hex.")
    hash: str = Field(pattern=r"^sha256:[0-9a-f]{64}$", description="SHA-256 of salt and secret.")
    created: str = Field(max_length=40, description="When it was made (RFC 3339).")
    expires: str | None = Field(
        None, max_length=40, description="When it ends to be valid (RFC 3339). Default: never."
    )
    limits: KeyLimits = Field(default_factory=KeyLimits, description="What it may use.")

    @field_validator("created", "expires")
    @classmethod
    def _is_a_time(cls, text: str | None) -> str | None:
        if text is not None and datetime.fromisoformat(text).tzinfo is None:
            raise ValueError(
                f"found {text!r}, expected a time with its zone, such as 2027-01-31T00:00:00+00:00"
            )
        return text

    @field_validator("limits")
    @classmethod
    def _budget_is_one(cls, limits: KeyLimits) -> KeyLimits:
        if limits.budget is not None:
            if not limits.budget.limits():
                raise ValueError("budget: has neither usdPerHour nor usdPerDay; write one of them, or both")
            for name, text in limits.budget.limits():
                if problem := amount_problem(text):
                    raise ValueError(f"budget.{name}: found {text}, {problem}")
        return limits

    def valid_at(self, now: float) -> bool:
        """Return whether the key may still be used at a time in seconds since the epoch."""
        return self.expires is None or now < datetime.fromisoformat(self.expires).timestamp()

    def is_of(self, secret: str) -> bool:
        """Return whether a secret is this entry's; takes as long for a wrong one as for the right one."""
        return hmac.compare_digest(self.hash, digest(self.salt, secret))


def digest(salt: str, secret: str) -> str:
    """Return what an entry keeps of a secret."""
    return f"sha256:{hashlib.sha256(bytes.fromhex(salt) + secret.encode()).hexdigest()}"


def split(key: str) -> tuple[str, str] | None:
    """Return a key's id and secret; None where it has not a key's form."""
    found = _KEY.fullmatch(key)
    return (found[1], found[2]) if found else None


def issue(tenant: str, limits: KeyLimits, created: str, expires: str | None = None) -> tuple[str, KeyEntry]:
    """Make a key: returns it, to be shown once, and its entry.

    Args:
        tenant: whose it is.
        limits: what it may use.
        created: now (RFC 3339).
        expires: when it ends (RFC 3339); None for never.

    Raises:
        ValueError: name or times are none.
    """
    name, secret, salt = secrets.token_hex(5), secrets.token_urlsafe(32), secrets.token_hex(16)
    entry = KeyEntry(
        id=name, tenant=tenant, salt=salt, hash=digest(salt, secret), created=created, expires=expires, limits=limits
    )  # fmt: skip
    return f"lm-{name}-{secret}", entry
