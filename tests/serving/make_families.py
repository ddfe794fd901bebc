"""Makes a tiny model of each family, whole and compressed, and what transformers says: ``make_families.py FOLDER``.

Run by the compression environment's Python. Each model is random and small; ``expected.json`` beside its weights holds
a prompt's log-probs and the greedy answer.
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

from leanmodel_api.steps import Prune, Quantize  # noqa: E402
from leanmodel_compression import hf  # noqa: E402
from leanmodel_compression.batches import Row, Rows  # noqa: E402
from leanmodel_compression.shapes import from_config  # noqa: E402
from leanmodel_compression.steps import step_of  # noqa: E402
from leanmodel_compression.steps.protocol import Place, Task  # noqa: E402

SIZES = {
    "vocab_size": 128, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64, "initializer_range": 0.2, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GPT2 = {
    "vocab_size": 128, "n_embd": 64, "n_inner": 128, "n_layer": 3, "n_head": 2, "n_positions": 64,
    "initializer_range": 0.2, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
# A window that is shorter than the prompt, so that layers with and without one differ.
GEMMA3 = {
    **SIZES, "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}  # fmt: skip
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM", GEMMA3),
    "GPT2": ("GPT2Config", "GPT2LMHeadModel", GPT2),
    "Phi3": ("Phi3Config", "Phi3ForCausalLM", SIZES),
}
CUT = [
    Prune(type="Prune", keep_layers=2, selection="First"),
    Prune(type="Prune", method="Neurons", ratio="0.5"),
]
STEPS: dict[str, list[Any]] = {
    "Gemma3": [*CUT, Quantize(type="Quantize", scheme="W8A8")],
    # vLLM takes it in floats alone.
    "GPT2": CUT,
    "Phi3": [*CUT, Quantize(type="Quantize", scheme="W8A8")],
}
PROMPT = [(5 * at + 11) % 128 for at in range(20)]
ANSWER = 4


def main(folder: Path) -> None:
    for number, (name, (config, model, sizes)) in enumerate(MODELS.items()):
        whole = folder / f"{name}-whole"
        whole.mkdir(parents=True)
        torch.manual_seed(number)
        made = getattr(transformers, model)(getattr(transformers, config)(**sizes))
        for parameter in made.parameters():
            # transformers begins with norms and biases of ones and zeros, which would hide one that is lost.
            if parameter.ndim == 1:
                parameter.data += 0.2 * torch.randn(parameter.shape)
        hf.save_model(made, whole)
        say(whole)
        say(compressed(folder, name, whole))


def compressed(folder: Path, name: str, place: Path) -> Path:
    """Take a model through the steps themselves and return the last one's folder."""
    rows = Rows(tuple(Row(tuple((7 * row + 3 * at) % 128 for at in range(24)), 1) for row in range(8)), ())
    for index, spec in enumerate(STEPS[name]):
        last = index == len(STEPS[name]) - 1
        target = folder / (f"{name}-lean" if last else f"between-{name}-{index}")
        target.mkdir()
        task = Task(spec, f"spec.lean.steps[{index}]", from_config(hf.read_json(place / hf.CONFIG)), 0, rows)
        scratch = folder / f"scratch-{name}-{index}"
        step_of(spec).run(task, Place(place, target, scratch, None, "a" * 64, lambda *_: None))
        place = target
    return place


def say(folder: Path) -> None:
    """Write what transformers says beside the weights."""
    model, answer = hf.load_model(folder), list[int]()
    with torch.no_grad():
        logprobs = model(torch.tensor([PROMPT])).logits[0].log_softmax(-1)
        for _ in range(ANSWER):
            answer.append(int(model(torch.tensor([[*PROMPT, *answer]])).logits[0, -1].argmax()))
    said = [float(logprobs[at, token]) for at, token in enumerate(PROMPT[1:])]
    expected = {"prompt": PROMPT, "logprobs": said, "answer": answer}
    (folder / "expected.json").write_text(json.dumps(expected))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
