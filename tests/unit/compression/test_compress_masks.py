"""Masks of zeros: how many, which, and where, whatever the scores are."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leanmodel_compression.steps import masks

SCORES = st.integers(1, 6).flatmap(
    lambda rows: st.integers(1, 4).flatmap(
        lambda groups: st.lists(
            # Few values, so that ties are the rule.
            st.sampled_from([0.0, 0.5, 1.0, 2.0, 3e38]),
            min_size=4 * rows * groups,
            max_size=4 * rows * groups,
        ).map(lambda values: torch.tensor(values).reshape(rows, -1))
    )
)


@settings(deadline=None)
@given(SCORES, st.floats(0, 1))
def test_the_smallest_go_and_exactly_as_many_as_asked(scores: torch.Tensor, share: float) -> None:
    count = int(share * scores.numel())
    mask = masks.smallest(scores, count)
    assert mask.shape == scores.shape and int(mask.sum()) == count
    if 0 < count < scores.numel():
        assert scores[mask].max() <= scores[~mask].min()


@settings(deadline=None)
@given(SCORES)
def test_two_of_each_four_go_and_never_a_larger_one(scores: torch.Tensor) -> None:
    mask = masks.two_of_four(scores)
    groups, cut = scores.reshape(-1, 4), mask.reshape(-1, 4)
    assert bool((cut.sum(-1) == 2).all())
    for values, gone in zip(groups, cut, strict=True):
        assert values[gone].max() <= values[~gone].min()
    assert masks.is_two_of_four(torch.where(mask, 0.0, scores + 1))


def test_the_same_scores_give_the_same_mask() -> None:
    scores = torch.zeros(8, 16)
    assert torch.equal(masks.smallest(scores, 7), masks.smallest(scores.clone(), 7))
    assert torch.equal(masks.two_of_four(scores), masks.two_of_four(scores.clone()))


def test_a_group_with_one_zero_is_no_two_of_four() -> None:
    weight = torch.tensor([[0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0]])
    assert not masks.is_two_of_four(weight)
