"""Compression steps as they are written in a manifest: a type beside its members."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import DecimalString, Fraction, Name, Part

Objective = Literal["Logits", "Hidden", "Attention"]


def _logits() -> list[Objective]:
    return ["Logits"]


DATA = "Name of the data set whose train and validation parts are used. Default: the only one."


class TrainingFields(Part):
    """What every training step has in common."""

    data_set: Name | None = Field(None, description=DATA)
    epochs: DecimalString = Field("1", description="Passes over the train part. Default 1.")
    learning_rate: DecimalString = Field(
        "0.0001", description="Peak learning rate (AdamW, linear decay with warm-up). Default 0.0001."
    )
    batch_size: int = Field(16, ge=1, le=4096, description="Examples per optimiser step. Default 16.")
    max_length: int = Field(
        512,
        ge=8,
        le=131072,
        description="Tokens per example at most; longer ones are cut at the front of the prompt. Default 512.",
    )
    max_examples: int | None = Field(
        None, ge=1, description="Use at most so many examples of the train part. Default: all."
    )
    max_imbalance: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Use at most so many examples of each answer for one of the rarest answer (3 thins ham to 3 per spam). Default: all, as they come.",
    )
    checkpoint_steps: int = Field(
        20,
        ge=1,
        description="Optimiser steps between two checkpoints: what a killed run repeats at most. Default 20.",
    )


class Finetune(TrainingFields):
    """Adapt the large model to a data set; the result is an artifact of its own and the one served."""

    method: Literal["Full", "LoRA"] = Field(
        "Full", description="All weights, or low-rank adapters merged at the end. Default Full."
    )
    lora_rank: int = Field(16, ge=1, le=1024, description="Rank of the adapters. Default 16.")
    train_layers: int | None = Field(
        None,
        ge=1,
        description="Train only the last so many layers (and the final norm), which is cheaper. Default: all.",
    )


class Prune(Part):
    """Remove whole layers, chosen by how little the hidden state changes across them."""

    type: Literal["Prune"]
    method: Literal["Depth", "Width", "Heads", "Unstructured"] = Field(
        "Depth",
        description="Depth removes layers; Width, Heads and Unstructured are reserved. Default Depth.",
    )
    keep_layers: int | None = Field(None, ge=1, description="Layers that stay. Either this or ratio.")
    ratio: Fraction | None = Field(
        None, description="Share of the layers that goes, such as 0.3. Either this or keepLayers."
    )
    selection: Literal["Influence", "First"] = Field(
        "Influence",
        description="Influence keeps the layers that change the hidden state most, measured on the data set (Block Influence, arXiv 2403.03853); First keeps the first ones. Default Influence.",
    )
    protect_first: int = Field(1, ge=0, description="First layers that always stay. Default 1.")
    protect_last: int = Field(0, ge=0, description="Last layers that always stay. Default 0.")
    samples: int = Field(
        64, ge=1, le=65536, description="Rows of the train part on which influence is measured. Default 64."
    )
    data_set: Name | None = Field(None, description=DATA)


class Distill(TrainingFields):
    """Train the lean model to answer as the frozen large one does."""

    type: Literal["Distill"]
    objectives: list[Objective] = Field(
        default_factory=_logits,
        min_length=1,
        description="What is matched; Hidden and Attention are reserved. Default [Logits].",
    )
    temperature: DecimalString = Field("1", description="Softening of both distributions. Default 1.")
    label_weight: Fraction = Field(
        "0.5",
        description="Share of the loss that comes from the data set's own answers; the rest is the teacher's. Default 0.5.",
    )


class Quantize(Part):
    """Store (and, for W8A8, compute) linear layers in fewer bits."""

    type: Literal["Quantize"]
    scheme: Literal["W8A8", "W4A16", "W8A16"] = Field(
        "W8A8", description="Bits of weights and activations; W8A16 is reserved. Default W8A8."
    )
    algorithm: Literal["RTN", "GPTQ", "AWQ", "SmoothQuant"] = Field(
        "RTN",
        description="RTN rounds to nearest; GPTQ corrects the error layer by layer on calibration data (arXiv 2210.17323); AWQ and SmoothQuant are reserved. Default RTN.",
    )
    group_size: int | None = Field(
        None,
        ge=1,
        description="Columns that share a scale (W4A16); must divide every layer's input width. Default: the largest of 128, 64, 32 that does.",
    )
    samples: int = Field(
        128, ge=1, le=65536, description="Calibration rows of the train part (GPTQ). Default 128."
    )
    max_length: int = Field(
        512, ge=8, le=131072, description="Tokens per calibration row at most. Default 512."
    )
    data_set: Name | None = Field(None, description=DATA)
    targets: list[str] = Field(
        default_factory=lambda: ["Linear"],
        min_length=1,
        description="Layer classes or re:patterns to quantise. Default [Linear].",
    )
    ignore: list[str] = Field(
        default_factory=lambda: ["lm_head"], description="Layers left as they are. Default [lm_head]."
    )


Step = Annotated[Prune | Distill | Quantize, Field(discriminator="type")]
STEP_TYPES = ("Prune", "Distill", "Quantize")
RESERVED_STEP_TYPES = ("Factorize", "Share", "Heal", "Trim", "Export")
