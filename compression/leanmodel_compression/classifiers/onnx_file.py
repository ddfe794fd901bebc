"""A classifier as an ONNX file: written by torch's exporter, quantised and run by ONNX Runtime."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .pooling import Pooling

NAME = "model.onnx"
LOGITS, EMBEDDINGS = "logits", "embeddings"
INPUTS = ("input_ids", "attention_mask")
# Sizes of the example that is traced; neither may be 1, which would be taken for a constant.
TRACED = (2, 8)


def export(model: Any, path: Path, pooling: Pooling | None = None) -> int:
    """Write the classifier's logits as a function of ids and mask, both (texts × tokens) of any size.

    With a pooling it is a text's vector that is written, under the name ``embeddings``.

    Equal models give equal bytes: what the exporter notes of source files and of itself is taken out.

    Returns:
        How many operators the file has.
    """
    import onnx
    import torch

    class Logits(torch.nn.Module):  # type: ignore[misc]  # torch is Any to mypy
        """The one output that is served."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            if pooling is not None:
                states = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
                return pooling.of(states, attention_mask)
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits

    ids = torch.arange(TRACED[0] * TRACED[1]).reshape(TRACED) % 5
    any_size = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Logits().eval(), (ids, torch.ones_like(ids)), dynamo=True, verbose=False, output_names=[LOGITS if pooling is None else EMBEDDINGS],
            input_names=list(INPUTS), dynamic_shapes=dict.fromkeys(INPUTS, any_size),
        )  # fmt: skip
        assert program is not None
        program.save(str(path), external_data=False)
    found = onnx.load(str(path))
    del found.graph.value_info[:]
    del found.metadata_props[:]
    found.producer_name = found.producer_version = found.doc_string = found.graph.doc_string = ""
    del found.graph.metadata_props[:]
    for node in found.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    path.write_bytes(found.SerializeToString(deterministic=True))
    return len(found.graph.node)


def quantise(source: Path, target: Path) -> int:
    """Write the file with 8-bit weights, embeddings included; activations are quantised as they come.

    Returns:
        How many operators compute or look up in 8 bits.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # It advises a preprocessing that has nothing to do here: shapes are known from the exporter.
    logging.disable(logging.WARNING)
    try:
        # A scale for each column costs no time and half a percent of the bytes, and halves the error.
        quantize_dynamic(str(source), str(target), weight_type=QuantType.QInt8, per_channel=True)
    finally:
        logging.disable(logging.NOTSET)
    found = onnx.load(str(target))
    found.producer_name = found.producer_version = ""
    target.write_bytes(found.SerializeToString(deterministic=True))
    kinds = ("MatMulInteger", "ConvInteger", "DequantizeLinear")
    return sum(node.op_type in kinds for node in found.graph.node)


def parameters(path: Path) -> int:
    """Return the weights that a file stores: its tensors of more than one dimension."""
    import onnx

    found = onnx.load(str(path))
    return sum(math.prod(tensor.dims) for tensor in found.graph.initializer if len(tensor.dims) > 1)


def session(path: Path, served_threads: int | None = None) -> Any:
    """Return an ONNX Runtime session on the processor, with as many threads as the Job has.

    Args:
        path: of the file.
        served_threads: so many threads instead, and all else as the serving engine sets it.

    Raises:
        RuntimeError: ONNX Runtime does not load the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = served_threads or int(os.environ.get("OMP_NUM_THREADS") or 1)
    if served_threads is not None:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def logits(session: Any, ids: Any, mask: Any) -> Any:
    """Return the one output (texts × labels, or × width; torch) that a session gives for torch ids and mask."""
    import torch

    found = session.run(None, {INPUTS[0]: ids.numpy(), INPUTS[1]: mask.numpy()})[0]
    return torch.from_numpy(found)


def run(session: Any, texts: Sequence[Sequence[int]], pad: int) -> Any:
    """Return the one output (texts × labels; numpy) for texts of any lengths, padded as the serving engine does.

    Args:
        session: of a file.
        texts: the tokens of each.
        pad: the padding's number.
    """
    import numpy as np

    ids = np.full((len(texts), max(map(len, texts))), pad, dtype=np.int64)
    mask = np.zeros_like(ids)
    for line, text in enumerate(texts):
        ids[line, : len(text)] = text
        mask[line, : len(text)] = 1
    return session.run(None, {INPUTS[0]: ids, INPUTS[1]: mask})[0]
