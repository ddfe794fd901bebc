"""Words about a key-value cache that does not hold one request."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from leanmodel_serving.engines.kv_cache import needed_bytes, too_small

SIZE = st.integers(1, 64)


def test_smollm2_needs_what_its_configuration_says() -> None:
    # 30 layers, 3 heads of 64 numbers, keys and values in two bytes: 23,040 bytes a token.
    assert needed_bytes(30, 3, 64, 2, 512, 16) == 512 * 23_040


@given(SIZE, SIZE, SIZE, st.sampled_from([1, 2, 4]), st.integers(1, 10_000), st.integers(1, 128))
def test_whole_blocks_that_hold_all_tokens(
    layers: int, heads: int, size: int, value: int, tokens: int, block: int
) -> None:
    token = needed_bytes(layers, heads, size, value, 1, 1)
    needed = needed_bytes(layers, heads, size, value, tokens, block)
    assert token * tokens <= needed < token * (tokens + block)
    assert needed % (token * block) == 0


def test_the_words_name_the_field_and_an_amount_that_is_enough() -> None:
    needed = needed_bytes(30, 3, 64, 4, 512, 16)
    words = too_small("lean-1a2b3c4d", 2**20, needed, 512)
    assert words.startswith("spec.serving.lean.kvCache: found 1Mi") and "needs 23Mi" in words
    assert too_small("lean-1a2b3c4d", 23 * 2**20, needed, 512) == ""
    assert "spec.serving.large.kvCache" in too_small("large-1a2b3c4d", 2**20, needed, 512)
