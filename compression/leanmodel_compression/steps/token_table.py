"""The token table in 8 bits, one scale per token: in a small model it is much of the bytes, and rounding it costs little.

Written as compressed-tensors writes 8 bits (integers under the table's own name, ``weight_scale`` beside them) with a
group of its own in the configuration. A head that is the same table is stored once, as before. vLLM reads it with our
plugin (``leanmodel_serving.engines.eight_bits``): its own reader of such tables needs Triton, so a GPU, and knows no
head that shares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leanmodel_api.eight_bits import BITS, TABLE_GROUP

from .. import hf
from ..shapes import ModelShape
from . import grid

ROWS = 4096
"""Rows that are rounded at once: their float32 is all that it takes beside the table."""


def put_on_grid(model: Any, shape: ModelShape) -> None:
    """Replace the table of a model by integers and scales, the head's too where it is the same table.

    Args:
        model: its floats in bf16, as they will be stored.
        shape: the model's.
    """
    import torch

    table = model.get_submodule(shape.decoder.table)
    rows, columns = table.weight.shape
    numbers = torch.empty(rows, columns, dtype=torch.int8)
    scales = torch.empty(rows, 1, dtype=torch.bfloat16)
    for begin in range(0, rows, ROWS):
        part = table.weight.data[begin : begin + ROWS].float()
        scale = grid.scales(part, BITS)
        numbers[begin : begin + ROWS] = (grid.on_grid(part, scale, BITS) / scale).round_()
        scales[begin : begin + ROWS] = scale
    hf.replace_weight(table, torch.nn.Parameter(numbers, requires_grad=False))
    table.weight_scale = torch.nn.Parameter(scales, requires_grad=False)
    if shape.tied:
        hf.replace_weight(model.get_output_embeddings(), table.weight)


def enter(folder: Path, shape: ModelShape) -> None:
    """Tell a saved folder's configuration of the table's integers.

    Raises:
        ValueError: the configuration is not that of a quantised model.
    """
    config = hf.read_json(folder / hf.CONFIG)
    quantization = config.get("quantization_config")
    if not isinstance(quantization, dict):
        raise ValueError("the configuration has no quantization_config")
    quantization["config_groups"][TABLE_GROUP] = group(shape.decoder.table)
    hf.write_json(folder / hf.CONFIG, config)


def group(table: str) -> Mapping[str, Any]:
    """Return the configuration's group of the table."""
    weights = {
        "num_bits": BITS, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False,
        "group_size": None, "observer": "memoryless_minmax", "observer_kwargs": {},
    }  # fmt: skip
    # By its name: a pattern for all embeddings would take GPT-2's positions, too.
    return {
        "targets": [table],
        "weights": weights,
        "input_activations": None,
        "output_activations": None,
        "format": "int-quantized",
    }


def saved_bytes(shape: ModelShape) -> int:
    """Return by how many bytes the stored model shrinks: of two bytes a number one, less a bf16 scale per row."""
    return shape.vocabulary * (shape.hidden - 2)
