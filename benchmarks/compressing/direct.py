"""llm-compressor called directly, under the compression environment: ``direct.py INPUT``, JSON.

The input names ``model``, ``target``, ``threads``, ``scheme``, ``algorithm``, ``group`` and a file of calibration
``rows`` (token ids). With ``make: rows`` that file is written instead, from the plan that our own Job is given.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main(source: Path) -> None:
    """Do what the input says."""
    from leanmodel_compression.__main__ import settle

    asked = json.loads(source.read_text(encoding="utf-8"))
    settle(int(asked["threads"]))
    if asked.get("make") == "rows":
        write_rows(asked)
    else:
        compress(asked)


def write_rows(asked: dict[str, Any]) -> None:
    """Write the calibration rows of a plan's one step, as its Job sees them."""
    from leanmodel_api.plan import CompressPlan
    from leanmodel_compression import encode, hf
    from leanmodel_store import datasets
    from leanmodel_store.artifacts import Store

    plan = CompressPlan.model_validate_json(Path(asked["plan"]).read_text(encoding="utf-8"))
    (step,) = plan.steps
    parts = datasets.load(plan.data_sets[0], Path("."), Store(Path(asked["store"])))
    tokenizer = hf.load_tokenizer(Path(asked["model"]))
    rows = encode.encode_all(tokenizer, parts.train, step.max_length)[: step.samples]  # type: ignore[union-attr]
    Path(asked["rows"]).write_text(json.dumps([list(row.ids) for row in rows]), encoding="utf-8")


def compress(asked: dict[str, Any]) -> None:
    """Load, compress in one shot, save: what its documentation shows, with our recipe's values."""
    import torch
    from llmcompressor import oneshot
    from torch.utils.data import DataLoader
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if asked["algorithm"] == "AWQ" and not torch.cuda.is_available():
        # It pins memory without asking whether there is a device, and fails on a machine that has none.
        from llmcompressor.pipelines.cache import IntermediatesCache

        IntermediatesCache.pin_memory = lambda *_: None
    model = AutoModelForCausalLM.from_pretrained(asked["model"], dtype=torch.float32)
    rows = json.loads(Path(asked["rows"]).read_text(encoding="utf-8"))
    data: Any = [{"input_ids": torch.tensor([row], dtype=torch.long)} for row in rows]
    oneshot(
        model=model,
        dataset=DataLoader(data, batch_size=None, shuffle=False),
        recipe=recipe(asked),
        pipeline="sequential",
    )
    model.save_pretrained(asked["target"], save_compressed=True)
    AutoTokenizer.from_pretrained(asked["model"]).save_pretrained(asked["target"])


def recipe(asked: dict[str, Any]) -> list[Any]:
    """Return llm-compressor's modifiers for an algorithm."""
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

    if asked["scheme"] == "W8A8":
        weights = QuantizationArgs(num_bits=8, strategy="channel", symmetric=True)
        inputs = QuantizationArgs(num_bits=8, strategy="token", symmetric=True, dynamic=True)
        scheme = QuantizationScheme(targets=["Linear"], weights=weights, input_activations=inputs)
    else:
        weights = QuantizationArgs(num_bits=4, strategy="group", group_size=asked["group"], symmetric=True)
        scheme = QuantizationScheme(targets=["Linear"], weights=weights)
    arguments: dict[str, Any] = {"config_groups": {"group_0": scheme}, "ignore": ["lm_head"]}
    if asked["algorithm"] == "GPTQ":
        return [GPTQModifier(**arguments)]
    before = (
        SmoothQuantModifier(smoothing_strength=0.5)
        if asked["algorithm"] == "SmoothQuant"
        else AWQModifier(n_grid=20)
    )
    return [before, QuantizationModifier(**arguments)]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
