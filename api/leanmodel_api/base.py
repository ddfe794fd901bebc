"""Conventions of the resource: strict camelCase objects, and numbers that travel as strings.

Kubernetes objects carry no floats (they do not round-trip between clients), so fractions and money are
decimal strings; :func:`number` turns one into a float where arithmetic is done.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Part(BaseModel):
    """A strict, immutable object of the contract; fields are snake_case here and camelCase on the wire."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, strict=False
    )

    def to_json(self, *, indent: int | None = None) -> str:
        """Return the object as JSON with camelCase keys; unset optional fields are left out."""
        return self.model_dump_json(by_alias=True, exclude_none=True, indent=indent)


DECIMAL_PATTERN = r"^[0-9]+(\.[0-9]+)?([eE]-?[0-9]+)?$"
FRACTION_PATTERN = r"^(0(\.[0-9]+)?|1(\.0+)?)$"
DURATION_PATTERN = r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$"
LATENCY_PATTERN = r"^[0-9]+(\.[0-9]+)?(ms|s)$"
NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DIGEST_PATTERN = r"^sha256:[0-9a-f]{64}$"
QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"

DecimalString = Annotated[str, Field(pattern=DECIMAL_PATTERN)]
Fraction = Annotated[str, Field(pattern=FRACTION_PATTERN)]
Duration = Annotated[str, Field(pattern=DURATION_PATTERN, min_length=2)]
Latency = Annotated[str, Field(pattern=LATENCY_PATTERN)]
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=63)]
Digest = Annotated[str, Field(pattern=DIGEST_PATTERN)]
Quantity = Annotated[str, Field(pattern=QUANTITY_PATTERN)]

_UNITS = {
    "": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40,
}  # fmt: skip


def number(text: str) -> float:
    """Return a decimal string of the contract as a float."""
    return float(Decimal(text))


def quantity(text: str) -> float:
    """Return a Kubernetes quantity (``500m``, ``4Gi``) in its base unit (cores, bytes).

    Raises:
        ValueError: the text is not a quantity.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([A-Za-z]*)", text)
    if match is None or match[2] not in _UNITS:
        raise ValueError(f"{text!r} is not a quantity such as 500m, 2 or 4Gi")
    return float(match[1]) * _UNITS[match[2]]


def seconds(text: str) -> float:
    """Return a duration such as ``1h30m`` in seconds."""
    parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    if parts is None or not text:
        raise ValueError(f"{text!r} is not a duration such as 30s, 10m or 1h30m")
    hours, minutes, secs = (int(part or 0) for part in parts.groups())
    return hours * 3600.0 + minutes * 60.0 + secs


def milliseconds(text: str) -> float:
    """Return the time that a request may take, such as ``20ms`` or ``1.5s``, in milliseconds."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s)", text)
    if match is None:
        raise ValueError(f"{text!r} is not a time such as 20ms or 1.5s")
    return float(match[1]) * (1.0 if match[2] == "ms" else 1e3)


def size(count: float) -> str:
    """Return bytes in words: MB, and kB where there are few."""
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"


def digits(value: float) -> str:
    """Return a figure with three digits that count, whole from 100 on, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{float(f'{value:.3g}'):.10f}".rstrip("0").rstrip(".")


def fmt(value: float, digits: int = 4) -> str:
    """Return a float as a decimal string of the contract, without an exponent, rounded to ``digits``."""
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
