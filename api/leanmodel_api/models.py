"""The two models of a LeanModel: the large one, which is the promise's measure, and the lean one."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import DecimalString, Part, Quantity
from .external import External
from .sources import Source
from .steps import Finetune, Step


class Large(Part):
    """Teacher and fallback: own weights (source), or an external provider."""

    source: Source | None = Field(None, description="Own weights. Either this or external.")
    external: External | None = Field(
        None,
        description="An OpenAI-compatible provider in place of weights. Reserved: not supported yet; as a fallback it is "
        "declared in spec.routing.fallback. Either this or source.",
    )
    finetune: Finetune | None = Field(
        None, description="Adapt the model to a data set before anything else. Default: served as it is."
    )


class SearchBudget(Part):
    """What the lean model may cost at most. Reserved: not supported yet."""

    bytes: Quantity | None = Field(None, description="Weights as stored, such as 90Mi.")
    usd_per_thousand_requests: DecimalString | None = Field(
        None, description="US dollars per 1,000 requests."
    )


class Search(Part):
    """Let the lean model be found: candidates are tried, the cheapest that passes is kept. Reserved."""

    budget: SearchBudget = Field(default_factory=SearchBudget, description="Upper bounds.")
    max_candidates: int = Field(8, ge=1, le=1000, description="Candidates at most. Default 8.")


class Lean(Part):
    """The cheap model: brought along (source), made from the large one (steps), or found (search)."""

    source: Source | None = Field(
        None, description="A small model of your own. One of source, steps, search."
    )
    steps: Annotated[list[Step], Field(min_length=1, max_length=20)] | None = Field(
        None,
        description="Steps that make it from the large model, in this order. One of source, steps, search.",
    )
    search: Search | None = Field(None, description="Let it be found. One of source, steps, search.")
