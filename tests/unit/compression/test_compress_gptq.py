"""Which layers share a matrix of inputs: those that read the very same tensor, every time."""

from __future__ import annotations

import pytest
import torch

from leanmodel_compression.steps.gptq import Twins


def test_readers_of_one_tensor_share_the_first_ones_sums() -> None:
    twins = Twins()
    for _ in range(3):
        state, inner = torch.ones(2), torch.ones(2)
        assert [twins.first(name, state) for name in ("q", "k", "v")] == ["q", "q", "q"]
        # Equal, but another tensor.
        assert twins.first("o", inner) == "o"


def test_a_layer_that_reads_now_this_and_now_that_is_no_twin() -> None:
    twins, state = Twins(), torch.ones(2)
    assert twins.first("q", state) == twins.first("k", state) == "q"
    with pytest.raises(RuntimeError, match="report this"):
        twins.first("k", torch.ones(2))
