"""Shapes: parameters as counted by hand, layers matched by patterns, group sizes that fit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanmodel_api.steps import Prune, Quantize
from leanmodel_compression import memory
from leanmodel_compression.keys import step_key
from leanmodel_compression.shapes import (
    ModelShape,
    from_config,
    from_gguf,
    groups_that_fit,
    matches,
    targeted,
)
from leanmodel_compression.steps.kept import group_of
from leanmodel_compression.steps.prune import choose, kept_count, prune_config
from leanmodel_compression.steps.quantize import group_size

SMOLLM2 = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64, "vocab_size": 49152,
    "tie_word_embeddings": True, "max_position_embeddings": 8192,
}  # fmt: skip


def test_smollm2_has_as_many_parameters_as_its_card_says() -> None:
    shape = from_config(SMOLLM2)
    assert shape.parameters == 134_515_008
    assert shape.with_layers(3).parameters == 38_932_416
    assert len(shape.linears()) == 7 * 30 + 1
    assert memory.weights_bytes(shape) == 4 * shape.parameters


REAL = {
    "gemma-3-270m": (268_098_176, {
        "architectures": ["Gemma3ForCausalLM"], "hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18,
        "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 262144,
    }),
    "gpt2": (124_439_808, {
        "architectures": ["GPT2LMHeadModel"], "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12,
        "n_positions": 1024, "vocab_size": 50257,
    }),
    "Phi-3-mini-4k": (3_821_079_552, {
        "architectures": ["Phi3ForCausalLM"], "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32064, "tie_word_embeddings": False,
    }),
}  # fmt: skip
"""Parameters, and the configuration that the hub has: what it leaves out is the family's."""


@pytest.mark.parametrize("name", REAL)
def test_real_models_have_as_many_parameters_as_their_weights_say(name: str) -> None:
    parameters, config = REAL[name]
    assert from_config(config).parameters == parameters


def test_thin_layers_are_counted_as_two() -> None:
    ranks = {"model.layers.0.mlp.up_proj": 100, "model.layers.7.self_attn.k_proj": 10}
    whole, thin = from_config(SMOLLM2), from_config({**SMOLLM2, "low_rank": ranks})
    gone = (576 * 1536 - 100 * (576 + 1536)) + (576 * 192 - 10 * (576 + 192))
    assert whole.parameters - thin.parameters == gone
    assert len(thin.linears()) == len(whole.linears()) + 2
    assert [(one.columns, one.rows) for one in thin.linears() if ".up_proj." in one.name] == [
        (576, 100),
        (100, 1536),
    ]


def test_a_gguf_header_says_the_same_as_the_configuration() -> None:
    fields = {
        "general.architecture": "llama", "llama.embedding_length": 576, "llama.feed_forward_length": 1536,
        "llama.block_count": 30, "llama.attention.head_count": 9, "llama.attention.head_count_kv": 3,
        "llama.context_length": 8192, "tokenizer.ggml.tokens": 49152,
    }  # fmt: skip
    assert from_gguf(fields, tied=True) == from_config(SMOLLM2)


def test_a_quantised_configuration_is_recognised() -> None:
    config = {**SMOLLM2, "quantization_config": {"quant_method": "compressed-tensors"}}
    assert from_config(config).quantised == "compressed-tensors"
    with pytest.raises(KeyError):
        from_config({"architectures": ["BertModel"]})


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("Linear", "model.layers.0.mlp.up_proj", True),
        ("re:.*mlp.*", "model.layers.0.mlp.up_proj", True),
        ("re:mlp", "model.layers.0.mlp.up_proj", False),
        ("lm_head", "lm_head", True),
        ("up_proj", "model.layers.0.mlp.up_proj", True),
        ("proj", "model.layers.0.mlp.up_proj", False),
    ],
)
def test_a_pattern_means_these_layers(pattern: str, name: str, fits: bool) -> None:
    assert matches(name, pattern) is fits


def test_group_sizes_of_smollm2() -> None:
    shape = from_config(SMOLLM2)
    spec = Quantize(type="Quantize", scheme="W4A16")
    assert group_size(spec, shape) == 64
    linears = targeted(shape, spec.targets, spec.ignore)
    assert len(linears) == 210 and groups_that_fit(linears, (128, 96, 64, 32)) == [96, 64, 32]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=40), st.data())
def test_the_layers_that_stay_are_the_protected_and_the_most_influential(
    scores: list[float], data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, len(scores)))
    first = data.draw(st.integers(0, count))
    last = data.draw(st.integers(0, count - first))
    kept = choose(scores, count, first, last)
    assert len(kept) == count and kept == sorted(set(kept))
    assert set(range(first)) <= set(kept) and set(range(len(scores) - last, len(scores))) <= set(kept)
    free = [index for index in kept if first <= index < len(scores) - last]
    gone = [index for index in range(len(scores)) if index not in kept]
    assert not free or not gone or min(scores[i] for i in free) >= max(scores[i] for i in gone)


@given(st.integers(2, 100), st.integers(0, 1000))
def test_a_ratio_leaves_the_rest(layers: int, share: int) -> None:
    spec = Prune(type="Prune", ratio=f"{share / 1000:.3f}")
    assert abs(layers - kept_count(spec, layers) - layers * share / 1000) <= 0.5


def test_a_pruned_configuration_keeps_lists_that_are_not_per_layer() -> None:
    config: dict[str, Any] = {
        "num_hidden_layers": 4, "layer_types": ["a", "b", "c", "d"], "eos_token_id": [1, 2, 3, 4],
        "max_window_layers": 3, "no_rope_layers": [1, 1, 0, 1],
    }  # fmt: skip
    assert prune_config(config, [0, 2, 3], 4) == {
        "num_hidden_layers": 3, "layer_types": ["a", "c", "d"], "eos_token_id": [1, 2, 3, 4],
        "max_window_layers": 2, "no_rope_layers": [1, 0, 1],
    }  # fmt: skip


@given(st.sampled_from(["type", "version", "settings", "source", "teacher", "data", "seed", "libraries"]))
def test_a_key_changes_with_every_part(name: str) -> None:
    parts: dict[str, Any] = {
        "type": "Prune", "version": 1, "settings": {"keep": 3}, "source": "a", "teacher": "b", "data": "c", "seed": 1,
        "libraries": {"torch": "2"},
    }  # fmt: skip
    other: dict[str, Any] = {
        "type": "Distill", "version": 2, "settings": {"keep": 4}, "source": "x", "teacher": None, "data": None,
        "seed": 2, "libraries": {"torch": "3"},
    }  # fmt: skip
    assert step_key(**parts) == step_key(**dict(reversed(parts.items())))
    assert step_key(**parts) != step_key(**{**parts, name: other[name]})


def test_gptq_keeps_a_decoder_layer_together() -> None:
    assert (
        group_of("model.layers.12.mlp.up_proj")
        == group_of("model.layers.12.self_attn.q_proj")
        == "layer-00012"
    )
    assert group_of("lm_head") == "lm_head"


@given(st.integers(1, 60), st.integers(1, 4096), st.integers(1, 300))
def test_estimates_grow_with_what_is_held(layers: int, tokens: int, answers: int) -> None:
    small = ModelShape("LlamaForCausalLM", layers, 64, 128, 4, 2, 16, 1000, True, 512)
    large = small.with_layers(layers + 1)
    assert memory.training_bytes(
        large, large.parameters, tokens, answers, layers + 1
    ) > memory.training_bytes(small, small.parameters, tokens, answers, layers)
    assert memory.forward_bytes(small, 2 * tokens, answers) >= memory.forward_bytes(small, tokens, answers)
