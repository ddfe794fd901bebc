"""What lies inside decoders: a token relates to those before it, padding counts for nothing, and a fused layer has three parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leanmodel_compression.batches import Row
from leanmodel_compression.steps.inside import causal
from leanmodel_compression.steps.relations import hidden_loss, relation_loss

LENGTHS = st.lists(st.tuples(st.integers(2, 7), st.integers(1, 6)), min_size=1, max_size=4)


def rows_of(sizes: list[tuple[int, int]]) -> list[Row]:
    """Return rows of so many tokens, of which so many are answers."""
    return [Row(tuple(range(3, 3 + size)), max(1, size - answers)) for size, answers in sizes]


def draw(seed: int, *shape: int) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(sizes=LENGTHS, seed=st.integers(0, 2**16), heads=st.sampled_from([1, 2]))
@settings(max_examples=40)
def test_the_loss_is_that_of_each_row_alone_without_padding(
    sizes: list[tuple[int, int]], seed: int, heads: int
) -> None:
    rows = rows_of(sizes)
    width, part = max(len(row.ids) for row in rows), range(len(rows))
    mine, told = (
        [draw(seed + at, len(rows), width, 8) for at in range(first, first + 4)] for first in (0, 9)
    )
    seen, weight = causal(rows, part, mine[0])
    whole = hidden_loss(mine, told, weight, [(0, 1), (2, 0)])
    whole = whole + relation_loss([tuple(mine[:3])], [tuple(told[:3])], seen, weight, heads)
    alone: Any = 0.0
    for index, row in enumerate(rows):
        a, b = ([one[index : index + 1, : len(row.ids)] for one in all_] for all_ in (mine, told))
        saw, weighed = causal(rows, [index], a[0])
        assert float(weighed.sum()) == pytest.approx(row.answers)
        alone = alone + hidden_loss(a, b, weighed, [(0, 1), (2, 0)])
        alone = alone + relation_loss([tuple(a[:3])], [tuple(b[:3])], saw, weighed, heads)
    assert float(whole) == pytest.approx(float(alone), rel=1e-4, abs=1e-5)
    assert float(relation_loss([tuple(told[:3])], [tuple(told[:3])], seen, weight, heads)) == pytest.approx(
        0, abs=1e-5
    )


def test_what_comes_later_changes_nothing_of_what_was_before() -> None:
    rows = [Row((3, 4, 5, 6), 1)]
    mine, told = draw(0, 1, 4, 8), draw(1, 1, 4, 8)
    seen, weight = causal(rows, [0], mine)
    early = weight * torch.tensor([1.0, 1.0, 0.0, 0.0])
    other = mine.clone()
    other[:, 2:] = 7.0
    first, second = (
        relation_loss([(one, one, one)], [(told, told, told)], seen, early, 2) for one in (mine, other)
    )
    assert torch.equal(first, second)
