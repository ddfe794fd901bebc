"""The machine-readable progress line of a Job, one JSON object per line on standard output."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import Part

PREFIX = "leanmodel-progress "


class ProgressLine(Part):
    """Where a Job stands; an operator follows the last one.

    ``done`` and ``total`` count the step's own units (optimiser steps, layers, requests, bytes).
    """

    job: Literal["compress-large", "compress-lean", "prove", "serve"] = Field(description="Which Job.")
    step: str = Field(
        description="Step, such as fetch, finetune, prune, distill, quantize, ask-large, calibrate."
    )
    state: Literal["started", "running", "finished", "cached", "failed"] = Field(
        description="The step's state."
    )
    done: float = Field(0, description="Units done.")
    total: float = Field(0, description="Units in all; 0 when unknown.")
    percent: int = Field(0, ge=0, le=100, description="Per cent of the whole Job.")
    eta_seconds: float | None = Field(None, description="Seconds until the Job ends, as estimated.")
    message: str = Field("", description="A word for people.")

    def line(self) -> str:
        """Return the line as it is printed."""
        return PREFIX + self.to_json()


def parse(line: str) -> ProgressLine | None:
    """Return the progress that a line of output carries, or None when it is ordinary output."""
    if not line.startswith(PREFIX):
        return None
    try:
        return ProgressLine.model_validate_json(line[len(PREFIX) :])
    except ValueError:
        return None
