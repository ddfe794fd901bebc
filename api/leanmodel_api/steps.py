"""Compression steps as they are written in a manifest: a type beside its members."""

from __future__ import annotations

import functools
import operator
import typing
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, Field

from . import techniques
from .base import DecimalString, Fraction, Name, Part
from .teacher import Answers

Objective = Literal["Logits", "Hidden", "Attention", "Embeddings"]


def _logits() -> list[Objective]:
    return ["Logits"]


DATA = "Name of the data set whose train and validation parts are used. Default: the only one."


class EarlyStopping(Part):
    """End a training when the validation part has not been answered better for a while, and keep the best weights."""

    patience: int = Field(
        ge=1, le=1000, description="Looks in a row without a smaller loss, after which training ends."
    )
    every_steps: int | None = Field(
        None, ge=1, description="Optimiser steps between two looks. Default: one pass over the train part."
    )


class LayerPair(Part):
    """A layer of the student and the teacher's layer that it is held against; both count from 0."""

    student: int = Field(ge=0, le=1000, description="Layer of the student.")
    teacher: int = Field(ge=0, le=1000, description="Layer of the teacher.")


class TrainingFields(Part):
    """What every training step has in common."""

    data_set: Name | None = Field(None, description=DATA)
    answers: Answers | None = Field(
        None,
        description="Whose answers are learned: the data set's own (DataSet), or those that the external teacher gives to the prompts of the train part (Teacher, see spec.teacher). Default DataSet.",
    )
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
    early_stopping: EarlyStopping | None = Field(
        None,
        description="End before the last epoch, by the loss on the validation part. Default: train all epochs and keep the last weights.",
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


class AwareFields(TrainingFields):
    """What a training can have that knows how its weights will be quantised."""

    quantization_aware: Literal["W4A16", "W8A8", "W8A16"] | None = Field(
        None,
        description="Compute with weights (W8A8: and activations) rounded as the Quantize step that follows at once will store them: scheme and groupSize as here, algorithm RTN. Default: train with unrounded weights.",
    )
    group_size: int | None = Field(
        None,
        ge=1,
        description="Columns that share a scale (quantizationAware: W4A16). Default: the largest of 128, 64, 32 that divides every layer's input width.",
    )


WEIGHT_METHODS = ("Magnitude", "Wanda", "SparseGPT")
"""Methods of a Prune step that set single weights to zero; every one leaves the shapes as they are."""
STRUCTURE_METHODS = ("Neurons", "Heads", "Width")
"""Methods of a Prune step that cut the same number of units out of every layer: its tensors become smaller."""


class Prune(Part):
    """Remove whole layers, neurons or attention heads, or set single weights to zero (which makes nothing smaller)."""

    type: Literal["Prune"]
    method: Literal["Depth", "Neurons", "Heads", "Magnitude", "Wanda", "SparseGPT", "Width"] = Field(
        "Depth",
        description="Depth removes layers. Neurons narrows every MLP, and Heads removes key-value groups with their query heads, as many in each layer: those that add least to its output (arXiv 2312.11983). Width narrows the hidden state of the whole model, token table included (arXiv 2407.14679). Magnitude (the smallest), Wanda (arXiv 2306.11695) and SparseGPT (arXiv 2301.00774) set weights to zero: as many bytes, no faster here. Default Depth.",
    )
    keep_layers: int | None = Field(None, ge=1, description="Layers that stay (Depth). Either this or ratio.")
    ratio: Fraction | None = Field(
        None,
        description="Share that goes, such as 0.3: of the layers (Depth, instead of keepLayers), or of each layer's neurons, key-value groups, channels or weights.",
    )
    structure: Literal["Unstructured", "2:4", "Block"] | None = Field(
        None,
        description='Where zeros may stand: anywhere, "2:4" (in quotes), two of every four columns, which needs no ratio, or whole blocks (Block, method Magnitude). Default Unstructured.',
    )
    block_size: int | None = Field(
        None,
        ge=2,
        le=1024,
        description="Rows, and columns, of a block that goes as a whole (structure: Block); must divide both of every layer.",
    )
    selection: Literal["Influence", "First", "Alternate"] = Field(
        "Influence",
        description="Influence keeps the layers that change the hidden state most, measured on the data set (Block Influence, arXiv 2403.03853); First keeps the first ones; Alternate keeps layers evenly spread, such as every second (DistilBERT, arXiv 1910.01108; task text-classification). Default Influence.",
    )
    protect_first: int = Field(1, ge=0, description="First layers that always stay. Default 1.")
    protect_last: int = Field(0, ge=0, description="Last layers that always stay. Default 0.")
    samples: int = Field(
        64,
        ge=1,
        le=65536,
        description="Rows of the train part on which influence is measured, or on which Neurons, Heads, Width, Wanda and SparseGPT calibrate. Default 64.",
    )
    # None where another field would have its default: plans made before these fields keep their keys.
    max_length: int | None = Field(
        None,
        ge=8,
        le=131072,
        description="Tokens per row at most (Neurons, Heads, Width, Wanda, SparseGPT). Default 512.",
    )
    data_set: Name | None = Field(None, description=DATA)
    targets: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="Layer classes or re:patterns whose weights are pruned. Default [Linear]."
    )
    ignore: list[str] | None = Field(
        None, description="Layers left as they are, whatever targets says. Default [lm_head]."
    )


class Distill(AwareFields):
    """Train the lean model to answer as the frozen large one does."""

    type: Literal["Distill"]
    objectives: list[Objective] = Field(
        default_factory=_logits,
        min_length=1,
        description="What is matched: Logits, the distribution over the answers; Hidden, the cosine between hidden states of student and teacher; Attention, the relations of queries, keys and values among tokens (MiniLM, arXiv 2012.15828). Embeddings, the vectors of whole texts, is for task text-embedding. Default [Logits].",
    )
    temperature: DecimalString = Field("1", description="Softening of both distributions. Default 1.")
    label_weight: Fraction = Field(
        "0.5",
        description="Share of the loss that comes from the data set's own answers; the rest is the teacher's. Default 0.5.",
    )
    hidden_weight: DecimalString | None = Field(
        None, description="Weight of Hidden beside the rest of the loss, which counts 1. Default 1."
    )
    attention_weight: DecimalString | None = Field(
        None, description="Weight of Attention beside the rest of the loss, which counts 1. Default 1."
    )
    relation_heads: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Heads into which Attention cuts queries, keys and values; must divide both models' widths. Default: the student's heads.",
    )
    layer_map: Annotated[list[LayerPair], Field(min_length=1, max_length=256)] | None = Field(
        None,
        description="Layers that Hidden and Attention hold against each other. Default: Hidden all of the student's, evenly spread over the teacher's; Attention the last one of each.",
    )


MADE_FOR = {"SmoothQuant": "W8A8", "AWQ": "W4A16"}
"""The scheme of Quantize that an algorithm is for; RTN and GPTQ take any."""


class Quantize(Part):
    """Store (and, for W8A8, compute) linear layers in fewer bits."""

    type: Literal["Quantize"]
    scheme: Literal["W8A8", "W4A16", "W8A16"] = Field(
        "W8A8",
        description="Bits of weights and activations. W8A16: 8-bit weights, nothing of the activations is rounded. Default W8A8.",
    )
    algorithm: Literal["RTN", "GPTQ", "AWQ", "SmoothQuant"] = Field(
        "RTN",
        description="RTN rounds to nearest; GPTQ corrects the error layer by layer on calibration data (arXiv 2210.17323); SmoothQuant (W8A8, arXiv 2211.10438) and AWQ (W4A16, arXiv 2306.00978) scale channels on calibration data before rounding. Default RTN.",
    )
    group_size: int | None = Field(
        None,
        ge=1,
        description="Columns that share a scale (W4A16); must divide every layer's input width. Default: the largest of 128, 64, 32 that does.",
    )
    samples: int = Field(
        128, ge=1, le=65536, description="Calibration rows of the train part (all but RTN). Default 128."
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
    ignore_sensitive: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Leave so many decoder layers as they are, too: those that raise the loss most when they alone are rounded to nearest (measured on calibration rows). Default: none.",
    )

    embeddings: Literal["Int8"] | None = Field(
        None,
        description="Store the token table in 8 bits, too, with one scale per token; a head that is the same table computes with it. Default: it stays in bf16.",
    )

    @property
    def sees_rows(self) -> bool:
        """Whether rows of a data set are looked at."""
        return self.algorithm != "RTN" or self.ignore_sensitive is not None


class Heal(AwareFields):
    """Train what pruning left, a little, on the large model's distribution and the data; zeros stay zeros."""

    type: Literal["Heal"]
    method: Literal["Full", "LoRA"] = Field(
        "Full",
        description="All weights but the token table, or low-rank adapters merged at the end. Default Full.",
    )
    lora_rank: int = Field(16, ge=1, le=1024, description="Rank of the adapters. Default 16.")
    temperature: DecimalString = Field("1", description="Softening of both distributions. Default 1.")
    label_weight: Fraction = Field(
        "0.5",
        description="Share of the loss that comes from the data set's own answers; the rest is the teacher's, and with 1 none is asked. Default 0.5.",
    )
    prune_to: Fraction | None = Field(
        None,
        description="Share of each layer's weights that is zero in the end: they go bit by bit during the training, on a cubic schedule (arXiv 1710.01878). Default: no weight goes.",
    )
    prune_by: Literal["Magnitude", "Movement"] | None = Field(
        None,
        description="Which weights go (pruneTo): the smallest, or those that the training moves towards zero, which may come back until its end (arXiv 2005.07683). Default Magnitude.",
    )


class Trim(Part):
    """Cut the vocabulary to the tokens that a domain uses, with bytes and special tokens; no text becomes unwritable."""

    type: Literal["Trim"]
    data_set: Name | None = Field(None, description=DATA)
    min_vocabulary: int | None = Field(
        None,
        ge=1,
        description="Tokens that stay at least: those that the train part uses, then the commonest others. Default: those that it uses.",
    )


class Export(Part):
    """Write the model for another runtime, checked there against the weights that it was made from; the last step."""

    type: Literal["Export"]
    format: Literal["ONNX", "GGUF"] = Field(
        "ONNX",
        description="ONNX is what ONNX Runtime serves (task text-classification). GGUF is a file for llama.cpp on small devices, beside the weights that vLLM serves (task text-generation). Default ONNX.",
    )
    precision: Literal["Float32", "Float16", "Int8"] = Field(
        "Float32",
        description="Int8 stores weights in 8 bits, embeddings included (GGUF: Q8_0), and quantises activations as they come; Float16 is GGUF's F16. Default Float32.",
    )


GGUF_FILE = "model.gguf"
"""The file that an Export to GGUF puts into its artifact, beside the weights that vLLM serves."""


class Linear(Part):
    """Train TF-IDF with logistic regression as the lean model (text-classification); it stands alone and is served as it is."""

    type: Literal["Linear"]
    data_set: Name | None = Field(None, description=DATA)
    ngrams: int = Field(2, ge=1, le=4, description="Words in a row that make a feature, at most. Default 2.")
    max_features: int = Field(
        50000, ge=2, le=2_000_000, description="Features at most: the commonest. Default 50000."
    )
    strength: DecimalString | None = Field(
        None,
        description="Inverse of the weight of the L2 penalty, as C in scikit-learn. Default: the best of 1, 10 and 100, with and without class weights, by balanced accuracy on the validation part.",
    )


class Factorize(Part):
    """Put two thin linear layers where a wide one was (low rank): fewer parameters and less to compute."""

    type: Literal["Factorize"]
    ratio: Fraction | None = Field(
        None, description="Share of each layer's parameters that goes, such as 0.2. Either this or energy."
    )
    energy: Fraction | None = Field(
        None,
        description="Share of each layer's output on the data (as squares) that stays, such as 0.99; a layer that would not become smaller stays whole.",
    )
    samples: int = Field(
        128, ge=1, le=65536, description="Rows of the train part to calibrate on. Default 128."
    )
    max_length: int = Field(512, ge=8, le=131072, description="Tokens per row at most. Default 512.")
    data_set: Name | None = Field(None, description=DATA)
    targets: list[str] = Field(
        default_factory=lambda: ["Linear"],
        min_length=1,
        description="Layer classes or re:patterns to factorise, within the decoder's layers. Default [Linear].",
    )
    ignore: list[str] = Field(
        default_factory=list, description="Layers left as they are; the head always is. Default none."
    )


class Share(Part):
    """Give neighbouring layers one set of weights (ALBERT): fewer parameters, a smaller artifact; engines get a copy."""

    type: Literal["Share"]
    layers_per_group: int = Field(
        2, ge=2, description="Neighbouring layers that share their weights. Default 2."
    )
    init: Literal["Mean", "First"] = Field(
        "Mean",
        description="What a group's layers begin with: the mean of their weights, or the first one's. Default Mean.",
    )
    protect_first: int = Field(1, ge=0, description="First layers that keep their own weights. Default 1.")
    protect_last: int = Field(1, ge=0, description="Last layers that keep their own weights. Default 1.")


class Scratch(Part):
    """Begin anew: a model of the large one's family in another size, its weights random, which the steps after it teach."""

    type: Literal["Scratch"]
    layers: int = Field(ge=1, le=1000, description="Layers.")
    hidden_size: int = Field(
        ge=8, le=16384, description="Width of the hidden state; for task text-embedding the large model's."
    )
    intermediate_size: int = Field(ge=8, le=65536, description="Neurons of each layer's MLP.")
    heads: int = Field(ge=1, le=256, description="Attention heads; must divide hiddenSize.")
    kv_heads: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Heads of keys and values of a decoder; must divide heads. Default: heads.",
    )


Ours = Prune | Distill | Heal | Trim | Factorize | Share | Quantize | Export | Linear | Scratch
if TYPE_CHECKING:
    Step = Annotated[Ours, Field(discriminator="type")]
else:
    Step = Annotated[functools.reduce(operator.or_, techniques.fields(), Ours), Field(discriminator="type")]
STEP_TYPES: dict[str, type[BaseModel]] = {
    model.__name__: model for model in typing.get_args(typing.get_args(Step)[0])
}
"""Every kind of step by the type that stands in a manifest; those of others too (see techniques)."""
