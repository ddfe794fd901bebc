"""The two models of a LeanModel: the large one, which is the promise's measure, and the lean one."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import Part
from .external import External
from .search import Search
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


class Lean(Part):
    """The cheap model: brought along (source), made from the large one or from the source (steps), or found (search)."""

    source: Source | None = Field(
        None,
        description="A small model of your own; with steps beside it, what they begin with, while the large model teaches. One of source, steps, search, or source and steps.",
    )
    steps: Annotated[list[Step], Field(min_length=1, max_length=20)] | None = Field(
        None,
        description="Steps that make it from the large model, or from source where there is one, in this order.",
    )
    search: Search | None = Field(
        None,
        description="Let it be found: the cheapest model within a budget that keeps a promise. Stands alone.",
    )
