"""A decoder as one GGUF file: weights, sizes and vocabulary, as llama.cpp reads them.

The format and its keys are ggml's (docs/gguf.md of ggml). Norms and biases stay float32, as in llama.cpp's own
converter; matrices are written in the precision asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leanmodel_api.steps import GGUF_FILE

from .. import families, hf
from ..shapes import ModelShape
from . import vocabulary

NAME = GGUF_FILE
TYPES = {"Float32": "F32", "Float16": "F16", "Int8": "Q8_0"}
"""ggml's name of each precision of a manifest."""
FILE_TYPES = {"F32": 0, "F16": 1, "Q8_0": 7}
BLOCK = 32
"""Columns that share a scale in Q8_0."""
BITS = {"F32": 32.0, "F16": 16.0, "Q8_0": 8.5}
"""Bits of a weight, scales included: Q8_0 has one of 16 bits for each 32 weights."""
FAMILIES = {one.architecture: one.gguf for one in families.FAMILIES.values() if one.gguf}
"""llama.cpp's name of each architecture; those that tests/compression put through it."""
INTERLEAVED = ("llama",)
"""Families for which llama.cpp turns neighbouring columns of a head, and transformers its two halves."""


def expected_bytes(shape: ModelShape, precision: str) -> int:
    """Return about how large the file becomes."""
    return int(shape.parameters * BITS[TYPES[precision]] / 8) + 64 * shape.vocabulary


def write(source: Path, path: Path, shape: ModelShape, precision: str) -> int:
    """Write the model in a folder (safetensors, float) as a GGUF file. Equal models give equal bytes.

    Args:
        source: folder of the model.
        path: file to write.
        shape: of the model; its architecture is one of FAMILIES.
        precision: a key of TYPES.

    Returns:
        The tensors written.

    Raises:
        vocabulary.UnsuitedError: llama.cpp has no tokenizer like the model's.
    """
    import gguf
    from safetensors import safe_open

    family, kind = FAMILIES[shape.architecture], TYPES[precision]
    config = hf.read_json(source / hf.CONFIG)
    # First, because it may refuse.
    words = vocabulary.read(source, config)
    writer = gguf.GGUFWriter(str(path), family)
    describe(writer, shape, config)
    writer.add_file_type(FILE_TYPES[kind])
    vocabulary.add(writer, words)
    architecture = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == family)
    names = gguf.get_tensor_name_map(architecture, shape.layers)
    count = 0
    with safe_open(str(source / hf.WEIGHTS), framework="pt") as file:
        for name in sorted(file.keys()):
            if shape.tied and name == "lm_head.weight":
                continue
            known = names.get_name(name, try_suffixes=(".weight", ".bias"))
            if known is None:
                raise ValueError(f"llama.cpp's {family} has no tensor for {name}")
            value = file.get_tensor(name).float()
            # llama.cpp has every linear layer rows × columns.
            value = value.T.contiguous() if shape.decoder.turned(name) else value
            value = arranged(name, value, shape, family in INTERLEAVED).numpy()
            stored = gguf.GGMLQuantizationType[kind if value.ndim > 1 else "F32"]
            writer.add_tensor(known, gguf.quants.quantize(value, stored), raw_dtype=stored)
            count += 1
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return count


def describe(writer: Any, shape: ModelShape, config: Mapping[str, Any]) -> None:
    """Write the model's sizes."""
    writer.add_context_length(shape.positions)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.intermediate)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    # Written out: after heads were pruned the width of one does not follow from hidden / heads.
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_vocab_size(shape.vocabulary)
    if shape.decoder.positions:
        writer.add_layer_norm_eps(float(config["layer_norm_epsilon"]))
        return
    writer.add_rope_dimension_count(shape.head_dim)
    positions = config.get("rope_parameters") or {}
    writer.add_rope_freq_base(float(positions.get("rope_theta", config.get("rope_theta", 10000.0))))
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))


def arranged(name: str, value: Any, shape: ModelShape, interleaved: bool) -> Any:
    """Return a tensor with rows of queries and keys in llama.cpp's order: halves of a head become neighbours."""
    at = name.rpartition(".")[0]
    if not interleaved or not at.endswith((".q_proj", ".k_proj")):
        return value
    heads = shape.heads if at.endswith(".q_proj") else shape.kv_heads
    halves = value.reshape(heads, 2, shape.head_dim // 2, *value.shape[1:])
    return halves.swapaxes(1, 2).reshape(value.shape).contiguous()
