"""Tiny random decoders of every family with a tokenizer of their own, and messages of two kinds for them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch

TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WORDS = [
    "win",
    "free",
    "prize",
    "cash",
    "call",
    "now",
    "hello",
    "lunch",
    "later",
    "home",
    "ok",
    "thanks",
    "see",
]


CONFIGS = {"Gemma3": "Gemma3TextConfig"}
CLASSES = {"GPT2": "GPT2LMHeadModel"}
"""transformers' names, where they are not the family's with Config and ForCausalLM behind."""
# A window that is shorter than a row, so that layers with and without one differ.
OWN_SIZES: dict[str, dict[str, Any]] = {
    "Gemma3": {
        "sliding_window": 8, "query_pre_attn_scalar": 16, "pad_token_id": 0,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "Phi3": {"pad_token_id": 0, "head_dim": None},
    # What is None here has another name there.
    "GPT2": {
        **dict.fromkeys(("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")),
        **dict.fromkeys(("num_key_value_heads", "max_position_embeddings", "head_dim")),
        "n_embd": 32, "n_inner": 64, "n_layer": 4, "n_head": 2, "n_positions": 256,
    },
}  # fmt: skip
"""What a family has besides, or otherwise."""


def messages(count: int = 240) -> list[tuple[str, str]]:
    """Return messages of two kinds that differ by their words."""
    draw = random.Random(7)
    rows = []
    for number in range(count):
        spam = number % 3 == 0
        words = draw.sample(WORDS[:7] if spam else WORDS[6:], k=draw.randint(3, 6))
        rows.append(("spam" if spam else "ham", f"{' '.join(words)} {number}"))
    return rows


def save_tokenizer(folder: Path, texts: list[tuple[str, str]]) -> int:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    inner.train_from_iterator([text for _, text in texts] + ["spam", "ham", "user", "assistant"], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|im_end|>", bos_token="<|im_start|>", chat_template=TEMPLATE
    )
    tokenizer.save_pretrained(str(folder))
    return int(inner.get_vocab_size())


def make_model(folder: Path, texts: list[tuple[str, str]], family: str = "Llama", **sizes: Any) -> Path:
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = save_tokenizer(folder, texts)
    config_class = getattr(transformers, CONFIGS.get(family, f"{family}Config"))
    settings: dict[str, Any] = {
        "vocab_size": vocabulary, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 256, "head_dim": 16,
        "initializer_range": 0.1, "tie_word_embeddings": True, "eos_token_id": 2, "bos_token_id": 1,
    }  # fmt: skip
    settings = {k: v for k, v in {**settings, **OWN_SIZES.get(family, {})}.items() if v is not None}
    config = config_class(**{**settings, **sizes})
    torch.manual_seed(1)
    model = getattr(transformers, CLASSES.get(family, f"{family}ForCausalLM"))(config)
    model.to(torch.bfloat16).save_pretrained(str(folder))
    return folder
