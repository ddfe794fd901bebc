"""MiniLM's relations by the definition, and early stopping that a kill does not change."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leanmodel_compression.steps.protocol import StepError
from leanmodel_compression.steps.relations import Recorder, even, relation_loss, relations
from leanmodel_compression.steps.stopping import Stopper

pytestmark = pytest.mark.compression


def vectors(
    seed: int, texts: int, tokens: int, width: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    one, two, three = (torch.randn(texts, tokens, width, generator=draw) for _ in range(3))
    return one, two, three


def by_hand(mine: torch.Tensor, told: torch.Tensor, lengths: list[int], heads: int) -> float:
    """KL of relations, written out: sum over texts of the mean over heads and tokens."""
    total = 0.0
    for text, length in enumerate(lengths):
        for head in range(heads):
            shares = []
            for states in (told, mine):
                width = states.shape[-1] // heads
                cut = states[text, :length, head * width : (head + 1) * width].double()
                shares.append(torch.softmax(cut @ cut.T / math.sqrt(width), -1))
            total += float((shares[0] * (shares[0] / shares[1]).log()).sum()) / (heads * length)
    return total


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    heads=st.sampled_from([1, 2, 4]),
    wider=st.sampled_from([8, 16]),
)
def test_the_loss_is_the_definitions_whatever_the_padding_and_the_widths(
    seed: int, lengths: list[int], heads: int, wider: int
) -> None:
    tokens = max(lengths) + 2
    mask = torch.tensor([[1] * n + [0] * (tokens - n) for n in lengths])
    mine, told = vectors(seed, len(lengths), tokens, 8), vectors(seed + 1, len(lengths), tokens, wider)
    found = float(relation_loss([mine], [told], mask, even(mask), heads))
    wanted = sum(by_hand(one, other, lengths, heads) for one, other in zip(mine, told, strict=True)) / 3
    assert found == pytest.approx(wanted, rel=1e-3, abs=1e-5) and found >= -1e-6
    assert float(relation_loss([told], [told], mask, even(mask), heads)) == pytest.approx(0, abs=1e-5)
    # Two pairs are their mean, and what stands under the padding counts for nothing.
    mess = tuple(torch.where(mask[..., None] == 1, part, torch.full_like(part, 9.0)) for part in mine)
    assert float(relation_loss([mess, told], [told, told], mask, even(mask), heads)) == pytest.approx(found / 2, rel=1e-3, abs=1e-5)  # type: ignore[list-item]  # fmt: skip


def test_gradients_stay_finite_where_keys_are_masked() -> None:
    mine, told = vectors(0, 2, 4, 8), vectors(1, 2, 4, 8)
    for part in mine:
        part.requires_grad_(True)
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]])
    relation_loss([mine], [told], mask, even(mask), 2).backward()
    assert all(torch.isfinite(part.grad).all() for part in mine if part.grad is not None)
    assert mine[0].grad is not None and float(mine[0].grad[1, 1:].abs().max()) == 0
    shares = relations(mine[0], mask, 2).exp()
    assert torch.allclose(shares.sum(-1), torch.ones(2, 2, 4))


class Shared(torch.nn.Module):
    """Calls one layer twice, as ALBERT does."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (torch.nn.Linear(4, 4) for _ in range(3))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        for _ in range(2):
            states = self.query(states) + self.key(states) * self.value(states)
        return states


def test_a_layer_is_the_nth_call_of_its_module_and_a_pass_leaves_nothing_to_the_next() -> None:
    model = Shared()
    states = torch.randn(1, 3, 4)
    after = model.query(states) + model.key(states) * model.value(states)
    recorder = Recorder(model, {1})
    for _ in range(2):
        model(states)
        found = recorder.take()
        assert set(found) == {1} and torch.allclose(found[1][0], model.query.forward(after))


LOSSES = st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), min_size=1, max_size=10)


def train(
    folder: Path, losses: list[float], patience: int, every: int, kills: list[int]
) -> tuple[int, int, float]:
    """Walk through optimiser steps whose weights are their number, with a checkpoint after every third.

    Returns:
        The last step, the kept step, and the weight that was put back.
    """
    total, kept = len(losses) * every, dict[int, dict[str, object]]()
    for kill in [*kills, total + 1]:
        weight = torch.zeros(1)

        def judge(weight: torch.Tensor = weight) -> float:
            return losses[(int(weight) - 1) // every]

        stop = Stopper(patience, every, judge, {"weight": weight}, folder, "key", "spec.large.finetune")
        start = max(kept, default=0)
        if start and not stop.take(kept[start]):
            start = 0
        step = start
        for step in range(start + 1, total + 1):
            weight.fill_(float(step))
            if stop.due(step, total) and stop.look(step):
                break
            if step % 3 == 0:
                kept[step] = stop.state()
            if step == kill:
                break
        else:
            step = total
        if step != kill:
            stop.put_back()
            return step, stop.best_at, float(weight)
    raise AssertionError("never ended")


@settings(max_examples=30, deadline=None)
@given(
    losses=LOSSES,
    patience=st.integers(1, 4),
    every=st.integers(1, 4),
    kills=st.lists(st.integers(1, 40), max_size=3),
)
def test_kills_change_neither_where_training_stops_nor_what_is_kept(
    tmp_path_factory: pytest.TempPathFactory, losses: list[float], patience: int, every: int, kills: list[int]
) -> None:
    whole = train(tmp_path_factory.mktemp("whole"), losses, patience, every, [])
    assert train(tmp_path_factory.mktemp("killed"), losses, patience, every, kills) == whole
    last, best, weight = whole
    seen = losses[: math.ceil(last / every)]
    assert best == weight == (seen.index(min(seen)) + 1) * every
    assert last == len(losses) * every or (last - best) // every == patience


def test_a_loss_that_is_none_ends_the_training_with_a_message(tmp_path: Path) -> None:
    stop = Stopper(1, 1, lambda: math.nan, {"w": torch.zeros(1)}, tmp_path, "key", "spec.large.finetune")
    with pytest.raises(
        StepError, match=r"spec.large.finetune.learningRate: the loss on the validation part became nan"
    ):
        stop.look(3)


def test_best_weights_that_are_gone_are_looked_for_from_the_beginning(tmp_path: Path) -> None:
    stop = Stopper(1, 1, lambda: 0.5, {"w": torch.zeros(1)}, tmp_path / "best", "key", "f")
    stop.look(2)
    again = Stopper(1, 1, lambda: 0.5, {"w": torch.zeros(1)}, tmp_path / "best", "key", "f")
    assert again.take(stop.state()) and (again.best, again.best_at) == (0.5, 2)
    assert not Stopper(1, 1, lambda: 0.5, {}, tmp_path / "other", "key", "f").take(stop.state())
    assert not Stopper(1, 1, lambda: 0.5, {}, tmp_path / "best", "another", "f").take(stop.state())
    assert not again.take(None)
