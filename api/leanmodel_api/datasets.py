"""Data sets: rows of a file, the prompt made of each, the wanted answer, and who may see which part."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import Fraction, Name, Part
from .sources import Source

PARTS = ("train", "validation", "fit", "certify", "report", "test")


class Prompt(Part):
    """How a row becomes a request; {column} is replaced by the row's value. Either user or text."""

    system: str | None = Field(None, max_length=8192, description="System message of a chat; fixed text.")
    user: str | None = Field(
        None, max_length=8192, description="User message of a chat (/v1/chat/completions), such as {msg}."
    )
    text: str | None = Field(
        None, max_length=8192, description="Raw prompt (/v1/completions), such as 'SMS: {msg}\\nLabel:'."
    )


class Split(Part):
    """Shares of the rows per part, drawn once by seed and stratified by answer; together at most 1.

    Training sees train and validation. The router's rule is fitted on fit and certified on certify; gates
    and the report's figures come from report; test is shown and decides nothing.
    """

    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of the draw. Default 0.")
    train: Fraction = Field("0.4", description="Share for training steps. Default 0.4.")
    validation: Fraction = Field("0.05", description="Share for early stopping. Default 0.05.")
    fit: Fraction = Field("0.1", description="Share on which the router's confidence is fitted. Default 0.1.")
    certify: Fraction = Field("0.25", description="Share on which the promise is tested. Default 0.25.")
    report: Fraction = Field("0.1", description="Share for gates and the report's figures. Default 0.1.")
    test: Fraction = Field("0.1", description="Share that is only shown, never decided on. Default 0.1.")


class DataSet(Part):
    """A named file of rows."""

    name: Name = Field(description="Name by which steps and evaluation refer to it.")
    source: Source = Field(description="Where the file comes from.")
    format: Literal["TSV", "CSV", "JSONL", "Text"] = Field(
        "JSONL", description="TSV and CSV have a header line; JSONL one object a line; Text one row (column "
        "text) per paragraph. Default JSONL."
    )  # fmt: skip
    prompt: Prompt = Field(description="How a row becomes a request.")
    answer: str | None = Field(
        None, max_length=4096, description="Wanted answer, such as {label}. Default: none, quality is then "
        "agreement with the large model."
    )  # fmt: skip
    choices: list[str] | None = Field(
        None, min_length=2, max_length=1000, description="The answers that are allowed, for classification."
    )
    group: str | None = Field(
        None,
        max_length=4096,
        description="Kind of request of a row, such as {topic}: the promise is then kept for each kind, and requests say "
        "theirs in the header x-leanmodel-group. Default: one promise for all.",
    )
    positive: str | None = Field(
        None, max_length=256, description="The choice whose F1 is reported. Default: the rarest."
    )
    drop_duplicates: bool = Field(
        True,
        description="Remove rows with the same prompt (white space folded) before splitting. Default true.",
    )
    max_rows: int | None = Field(
        None,
        ge=1,
        le=10_000_000,
        description="Use at most so many rows, drawn by the split's seed. Default: all.",
    )
    split: Split = Field(default_factory=Split, description="Shares of the parts.")
