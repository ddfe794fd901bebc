"""Units chosen and columns corrected: against the outputs themselves."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leanmodel_compression.steps import slices

pytestmark = pytest.mark.compression

SEEDS = st.integers(0, 10_000)


def drawn(seed: int, tokens: int, columns: int, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(tokens, columns, generator=draw), torch.randn(rows, columns, generator=draw)


@settings(deadline=None)
@given(SEEDS, st.sampled_from([1, 2, 4]))
def test_a_score_is_the_norm_of_what_the_unit_adds(seed: int, width: int) -> None:
    inputs, weight = drawn(seed, 30, 8, 5)
    scores = slices.contributions(weight, inputs.T @ inputs, width)
    for unit, score in enumerate(scores):
        part = slice(unit * width, (unit + 1) * width)
        assert float(score) == pytest.approx(float((inputs[:, part] @ weight[:, part].T).norm()), rel=1e-3)


@settings(deadline=None)
@given(SEEDS, st.integers(1, 11), st.integers(3, 40))
def test_correcting_never_makes_the_output_worse(seed: int, count: int, tokens: int) -> None:
    inputs, weight = drawn(seed, tokens, 12, 6)
    moments = inputs.T @ inputs
    kept = slices.strongest(slices.contributions(weight, moments, 1), count)
    corrected = slices.refit(weight, moments, kept)
    plain = (inputs[:, kept] @ weight[:, kept].T - inputs @ weight.T).norm()
    assert (inputs[:, kept] @ corrected.T - inputs @ weight.T).norm() <= plain * (1 + 1e-4)


def test_a_column_that_another_tells_is_taken_over() -> None:
    inputs, weight = drawn(3, 200, 6, 4)
    inputs[:, 5] = 2 * inputs[:, 0]
    kept = torch.arange(5)
    corrected = slices.refit(weight, inputs.T @ inputs, kept)
    assert torch.allclose(corrected[:, 0], weight[:, 0] + 2 * weight[:, 5], atol=0.1)
    error = (inputs[:, kept] @ corrected.T - inputs @ weight.T).norm() / (inputs @ weight.T).norm()
    assert float(error) < 0.02


def test_inputs_that_are_all_zero_change_nothing() -> None:
    _, weight = drawn(1, 1, 6, 4)
    kept = torch.tensor([1, 4])
    assert torch.equal(slices.refit(weight, torch.zeros(6, 6), kept), weight[:, kept])


@settings(deadline=None)
@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0]), min_size=2, max_size=12), st.data())
def test_the_strongest_stay_in_order_and_of_equal_ones_the_first(
    scores: list[float], data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, len(scores)))
    found = slices.strongest(torch.tensor(scores), count).tolist()
    assert found == sorted(sorted(range(len(scores)), key=lambda unit: (-scores[unit], unit))[:count])


def test_units_spread_to_their_neighbours() -> None:
    assert slices.spread(torch.tensor([0, 2]), 3).tolist() == [0, 1, 2, 6, 7, 8]
