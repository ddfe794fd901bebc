"""Adapters that leave zeros alone: their gradients, what merging makes of them, and what they never touch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leanmodel_compression.steps import adapters

SIZES = st.integers(1, 6)


def layer_of(rows: int, columns: int, seed: int, bias: bool = False) -> torch.nn.Sequential:
    """A linear layer in which about half of the weights are zero, in double precision."""
    torch.manual_seed(seed)
    layer = torch.nn.Linear(columns, rows, bias=bias).double()
    layer.weight.data[torch.rand(rows, columns) < 0.5] = 0
    layer.requires_grad_(False)
    return torch.nn.Sequential(layer)


def attached(model: torch.nn.Sequential, rank: int, seed: int) -> adapters.Adapter:
    adapter = adapters.attach(model, ["0"], rank, seed)["0"]
    adapter.inner.data, adapter.outer.data = adapter.inner.data.double(), adapter.outer.data.double()
    return adapter


@settings(deadline=None)
@given(rows=SIZES, columns=SIZES, rank=st.integers(1, 3), lines=st.integers(1, 3), seed=st.integers(0, 99))
def test_gradients_are_those_of_the_masked_sum(
    rows: int, columns: int, rank: int, lines: int, seed: int
) -> None:
    model = layer_of(rows, columns, seed, bias=seed % 2 == 0)
    weight, bias = model[0].weight, model[0].bias
    adapter = attached(model, rank, seed)
    adapter.outer.data.normal_()
    given_ = torch.randn(2, lines, columns, dtype=torch.double, requires_grad=True)
    wanted = torch.randn(2, lines, rows, dtype=torch.double)

    (model(given_) * wanted).sum().backward()
    ours = [given_.grad, adapter.inner.grad, adapter.outer.grad]

    plain = [tensor.detach().clone().requires_grad_() for tensor in (given_, adapter.inner, adapter.outer)]
    whole = weight + adapters.SCALE * (plain[2] @ plain[1]) * (weight != 0)
    told = plain[0] @ whole.T + (0 if bias is None else bias)
    torch.testing.assert_close(model(given_), told)
    (told * wanted).sum().backward()
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, theirs.grad)


@settings(deadline=None)
@given(rows=SIZES, columns=SIZES, rank=st.integers(1, 3), seed=st.integers(0, 99))
def test_merging_changes_no_answer_and_fills_no_zero(rows: int, columns: int, rank: int, seed: int) -> None:
    model = layer_of(rows, columns, seed)
    zeros = model[0].weight == 0
    adapter = attached(model, rank, seed)
    asked = torch.randn(3, columns, dtype=torch.double)
    before = model(asked)
    torch.testing.assert_close(before, asked @ model[0].weight.T)
    adapter.outer.data.normal_()
    healed = model(asked)
    adapters.merge({"0": adapter})
    assert "forward" not in vars(model[0])
    torch.testing.assert_close(model(asked), healed)
    assert not bool(model[0].weight[zeros].any())


@pytest.mark.parametrize("seed", [0, 1])
def test_the_start_is_drawn_from_the_seed(seed: int) -> None:
    starts = [
        adapters.attach(layer_of(4, 8, 0), ["0"], 2, number)["0"].inner for number in (seed, seed, seed + 1)
    ]
    assert torch.equal(starts[0], starts[1]) and not torch.equal(starts[0], starts[2])
