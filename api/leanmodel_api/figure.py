"""A measured figure with its interval."""

from __future__ import annotations

from pydantic import Field

from .base import Part


class Estimate(Part):
    """A figure with its 95% interval; floats, for machines (the status has them as strings)."""

    value: float
    low: float
    high: float
    n: int = Field(0, description="Records (or runs) behind it.")
