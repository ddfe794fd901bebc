"""A large model of somebody else's that teaches by its answers: where it is, and what asking it may cost."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import DECIMAL_PATTERN, DecimalString, Duration, Part
from .external import External, Permission, TokenPrice

Answers = Literal["DataSet", "Teacher"]
"""Whose answers a training step learns."""
Dollars = Annotated[str, Field(pattern=DECIMAL_PATTERN, max_length=32)]


class Teacher(Part):
    """An external model whose answers training steps learn (answers: Teacher), within a number of calls and dollars."""

    external: External = Field(description="The provider.")
    price: TokenPrice = Field(description="What the provider charges; the bound in dollars is kept by it.")
    max_calls: int = Field(
        ge=1,
        le=100_000_000,
        description="Calls at most, over all runs of this LeanModel: restarts, other settings and other data count together.",
    )
    max_usd: Dollars = Field(
        alias="maxUSD",
        description="US dollars at most, over all runs of this LeanModel. Before a call the most that it can cost is set aside, so that the bound is never passed.",
    )
    when_exhausted: Literal["Fail", "Train"] = Field(
        "Fail",
        description="What happens when a bound is reached before every prompt is answered. Fail: the Job ends, what was answered is kept, and a larger bound goes on from there. Train: the step learns what was answered. Default Fail.",
    )
    system: str | None = Field(
        None,
        max_length=8192,
        description="System message for the teacher, such as 'Answer with one word: ham or spam.', in place of the data set's. Default: the data set's own.",
    )
    max_tokens: int = Field(
        256,
        ge=1,
        le=32768,
        description="Tokens of an answer at most. An answer that is cut there is not learned. Default 256.",
    )
    temperature: DecimalString = Field("0", description="0 to 2; 0 is greedy. Default 0.")
    concurrency: int = Field(4, ge=1, le=256, description="Calls under way at once. Default 4.")
    timeout: Duration = Field("2m", description="How long one answer is waited for. Above 0. Default 2m.")
    retry_for: Duration = Field(
        "10m",
        description="How long a prompt is asked again after 429, 5xx or a broken connection. Above 0. Default 10m.",
    )


class TeacherAccess(Part):
    """A teacher as a Job is told of it: nothing is asked unless the permission says Allowed."""

    permission: Permission = Field(
        "Forbidden",
        description="spec.routing.externalProviders; only Allowed lets a prompt leave. Default Forbidden.",
    )
    teacher: Teacher = Field(description="Whom to ask, and within what bounds.")
