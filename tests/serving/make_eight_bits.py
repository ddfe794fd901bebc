"""Makes models with weights in 8 bits and what transformers says of a prompt: ``make_eight_bits.py FOLDER``.

Run by the compression environment's Python. Each model is random and small, in W8A16, of which nothing but weights is
rounded; some have their token table in 8 bits, too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from leanmodel_compression.__main__ import settle

settle(1)

import torch  # noqa: E402
import transformers  # noqa: E402

from leanmodel_api.steps import Quantize  # noqa: E402
from leanmodel_compression import hf  # noqa: E402
from leanmodel_compression.shapes import from_config  # noqa: E402
from leanmodel_compression.steps import step_of  # noqa: E402
from leanmodel_compression.steps.protocol import Place, Task  # noqa: E402

SIZES = {
    "vocab_size": 128, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64, "initializer_range": 0.2, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
# Its width is no whole number of the kernel's blocks; its window is shorter than the prompt.
GEMMA3 = {**SIZES, "hidden_size": 72, "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 8}
MODELS: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "tied": ("Llama", {**SIZES, "tie_word_embeddings": True}, {"embeddings": "Int8"}),
    "apart": ("Llama", {**SIZES, "tie_word_embeddings": False}, {"embeddings": "Int8"}),
    "odd": ("Gemma3", {**GEMMA3, "tie_word_embeddings": True}, {"embeddings": "Int8"}),
    "weights": ("Qwen2", {**SIZES, "tie_word_embeddings": True}, {}),
}
PROMPT = [(5 * at + 11) % 128 for at in range(20)]


def main(folder: Path) -> None:
    for name, (family, sizes, more) in MODELS.items():
        whole, lean = folder / f"{name}-whole", folder / name
        lean.mkdir(parents=True)
        text = "Text" if family == "Gemma3" else ""
        config = getattr(transformers, f"{family}{text}Config")(**sizes)
        torch.manual_seed(3)
        hf.save_model(getattr(transformers, f"{family}ForCausalLM")(config), whole)
        shape = from_config(hf.read_json(whole / hf.CONFIG))
        spec = Quantize.model_validate({"type": "Quantize", "scheme": "W8A16", **more})
        task = Task(spec, "spec.lean.steps[0]", shape, 0, None)
        place = Place(whole, lean, folder / f"scratch-{name}", None, "a" * 64, lambda *_: None)
        step_of(task.spec).run(task, place)
        with torch.no_grad():
            logprobs = hf.load_model(lean)(torch.tensor([PROMPT])).logits[0].log_softmax(-1)
            plain = hf.load_model(whole)(torch.tensor([PROMPT])).logits[0].log_softmax(-1)
        said = [float(logprobs[at, token]) for at, token in enumerate(PROMPT[1:])]
        other = [float(plain[at, token]) for at, token in enumerate(PROMPT[1:])]
        expected = {"prompt": PROMPT, "logprobs": said, "whole": other, "next": int(logprobs[-1].argmax())}
        (lean / "expected.json").write_text(json.dumps(expected))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
