"""Makes low-rank models of every family and what transformers says of a prompt: ``make_low_rank.py FOLDER``.

Run by the compression environment's Python. Each model is random and small, factorised by the step itself, with one
kind of layer left whole; ``expected.json`` beside its weights holds the prompt's log-probs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from leanmodel_compression.__main__ import settle

settle(1)

import torch  # noqa: E402
import transformers  # noqa: E402

from leanmodel_api.low_rank import FAMILIES  # noqa: E402
from leanmodel_api.steps import Factorize  # noqa: E402
from leanmodel_compression import hf  # noqa: E402
from leanmodel_compression.batches import Row, Rows  # noqa: E402
from leanmodel_compression.shapes import from_config  # noqa: E402
from leanmodel_compression.steps.factorize import Factorizing  # noqa: E402
from leanmodel_compression.steps.protocol import Place, Task  # noqa: E402

SIZES = {
    "vocab_size": 128, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 32, "max_position_embeddings": 64, "initializer_range": 0.2,
}  # fmt: skip


def main(folder: Path) -> None:
    for number, family in enumerate(FAMILIES):
        whole, thin = folder / f"whole-{family}", folder / family
        thin.mkdir(parents=True)
        config = getattr(transformers, f"{family}Config")(**SIZES, tie_word_embeddings=family == "Llama")
        torch.manual_seed(number)
        model = getattr(transformers, f"{family}ForCausalLM")(config)
        for name, parameter in model.named_parameters():
            # transformers begins with biases of zero, which would hide one that is lost.
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.5)
        hf.save_model(model, whole)
        rows = Rows(
            tuple(Row(tuple((7 * row + 3 * at) % 128 for at in range(24)), 1) for row in range(16)), ()
        )
        spec = Factorize(type="Factorize", ratio="0.3", ignore=["re:.*layers[.]1[.].*k_proj", "o_proj"])
        shape = from_config(hf.read_json(whole / hf.CONFIG))
        task = Task(spec, "spec.lean.steps[0]", shape, 0, rows)
        place = Place(whole, thin, folder / f"scratch-{family}", None, "a" * 64, lambda *_: None)
        Factorizing().run(task, place)
        prompt = [(5 * at + 11) % 128 for at in range(20)]
        with torch.no_grad():
            logprobs = hf.load_model(thin)(torch.tensor([prompt])).logits[0].log_softmax(-1)
            plain = hf.load_model(whole)(torch.tensor([prompt])).logits[0].log_softmax(-1)
        said = [float(logprobs[at, token]) for at, token in enumerate(prompt[1:])]
        other = [float(plain[at, token]) for at, token in enumerate(prompt[1:])]
        expected = {"prompt": prompt, "logprobs": said, "whole": other, "next": int(logprobs[-1].argmax())}
        (thin / "expected.json").write_text(json.dumps(expected))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
