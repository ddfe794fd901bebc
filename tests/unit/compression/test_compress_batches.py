"""Batches and rows: nothing is lost, nothing is repeated, bounds hold, the same seed gives the same order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanmodel_compression.batches import (
    Row,
    batch_at,
    by_length,
    cut,
    epoch_batches,
    largest_micro,
    micro_batches,
    padded_tokens,
    steps_in,
)
from leanmodel_compression.steps.training import learning_rate, thinned

ROWS = st.builds(
    lambda prompt, answer, kind: Row((*range(prompt), *(900 + kind,) * answer), prompt),
    st.integers(1, 60), st.integers(1, 6), st.integers(0, 2),
)  # fmt: skip


@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=80),
    st.integers(1, 20),
    st.integers(0, 9),
    st.integers(0, 3),
)
def test_a_pass_sees_every_row_once(lengths: list[int], size: int, seed: int, epoch: int) -> None:
    batches = epoch_batches(lengths, size, seed, epoch)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(0 < len(batch) <= size for batch in batches)
    assert batches == epoch_batches(lengths, size, seed, epoch)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 7), st.integers(0, 5))
def test_the_batch_of_a_step_does_not_depend_on_the_steps_before(
    lengths: list[int], size: int, seed: int
) -> None:
    both = epoch_batches(lengths, size, seed, 0) + epoch_batches(lengths, size, seed, 1)
    assert [batch_at(lengths, size, seed, step) for step in range(len(both))] == both


@given(st.lists(ROWS, min_size=1, max_size=40), st.integers(8, 400), st.integers(1, 20))
def test_micro_batches_keep_their_bounds(rows: list[Row], tokens: int, answers: int) -> None:
    parts = micro_batches(range(len(rows)), rows, tokens, answers)
    assert [index for part in parts for index in part] == list(range(len(rows)))
    for part in parts:
        if len(part) > 1:
            assert max(len(rows[index].ids) for index in part) * len(part) <= tokens
            assert sum(rows[index].answers for index in part) <= answers


@given(st.lists(ROWS, min_size=1, max_size=40), st.integers(1, 16))
def test_the_bound_of_a_micro_batch_holds_for_every_one(rows: list[Row], size: int) -> None:
    most_tokens, most_answers = largest_micro(rows, size)
    for batch in epoch_batches([len(row.ids) for row in rows], size, 0, 0):
        for part in micro_batches(batch, rows):
            assert max(len(rows[index].ids) for index in part) * len(part) <= most_tokens
            assert sum(rows[index].answers for index in part) <= most_answers
    assert padded_tokens(rows, size) >= sum(len(row.ids) for row in rows)


@given(ROWS, st.integers(8, 70))
def test_cutting_takes_the_front_of_the_prompt_and_keeps_the_answer(row: Row, length: int) -> None:
    short = cut(row, length)
    assert len(short.ids) == min(length, len(row.ids))
    assert short.first >= 1
    # Answers are shorter than the shortest cut here, so they stay whole.
    assert short.ids[short.first :] == row.ids[row.first :]
    assert row.ids[: row.first][-(short.first) :] == short.ids[: short.first]


@given(st.lists(ROWS, min_size=1, max_size=60), st.integers(1, 4))
def test_thinning_keeps_order_and_the_rarest_answer_whole(rows: list[Row], most: int) -> None:
    kept = thinned(rows, most)
    counts = {row.ids[row.first :]: 0 for row in rows}
    for row in rows:
        counts[row.ids[row.first :]] += 1
    for answer, count in counts.items():
        assert sum(row.ids[row.first :] == answer for row in kept) == min(count, most * min(counts.values()))
    places = iter(rows)
    assert all(row in places for row in kept)
    assert thinned(rows, None) == tuple(rows)


def test_by_length_puts_like_lengths_together() -> None:
    rows = [Row(tuple(range(length)), length - 1) for length in (50, 3, 49, 4)]
    assert by_length(rows, 100) == [[1, 3], [2, 0]]


@pytest.mark.parametrize(("rows", "size", "epochs", "steps"), [(96, 16, 1, 6), (97, 16, 1, 7), (96, 16, 0.01, 1), (96, 16, 2.5, 15)])  # fmt: skip
def test_steps_of_so_many_passes(rows: int, size: int, epochs: float, steps: int) -> None:
    assert steps_in(rows, size, epochs) == steps


@given(st.integers(1, 500))
def test_the_learning_rate_rises_falls_and_stays_positive(total: int) -> None:
    rates = [learning_rate(0.1, step, total) for step in range(total)]
    assert all(0 < rate <= 0.1 + 1e-12 for rate in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)
