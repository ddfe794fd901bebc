"""Makes a small random model of every family, and messages for them: ``make_small_models.py FOLDER``.

Run by the compression environment's Python. Decoders stand in FOLDER/ARCHITECTURE, encoders in FOLDER/FAMILY and, as
sentence-transformers stores one, in FOLDER/FAMILY-sentences; the messages are FOLDER/messages.tsv.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

# In the place of this folder, which has a conftest of its own.
sys.path[0] = str(Path(__file__).parents[1] / "compression")

from conftest import make_model  # noqa: E402
from decoder_making import CLASSES, messages  # noqa: E402
from encoder_making import FAMILIES, make_encoder, sentence_encoder  # noqa: E402

ROWS = 480
DECODERS = ("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma3", "GPT2", "Phi3")
"""What transformers' names of them begin with."""
# vLLM's attention on a processor knows no narrower head.
SIZES: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 32}
OWN_SIZES: dict[str, dict[str, Any]] = {
    "GPT2": {"n_embd": 64, "n_inner": 128},
    # Its width of a head is hidden / heads.
    "Phi3": {"hidden_size": 64, "intermediate_size": 128},
    "Gemma3": {**SIZES, "query_pre_attn_scalar": 32},
}
RAW = ("GPT2",)
"""Families whose models have no chat template."""


def main(folder: Path) -> None:
    """Write everything."""
    texts = messages(ROWS)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"{label}\t{text}\n" for label, text in texts]
    (folder / "messages.tsv").write_text("".join(["label\tmsg\n", *rows]))
    for name in DECODERS:
        place = folder / CLASSES.get(name, f"{name}ForCausalLM")
        make_model(place, texts, name, **OWN_SIZES.get(name, SIZES))
        if name in RAW:
            (place / "chat_template.jinja").unlink()
    for name in FAMILIES:
        make_encoder(folder / name, texts, name, layers=4)
        sentence_encoder(folder / f"{name}-sentences", texts, family=name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
