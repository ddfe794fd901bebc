"""Weights that go during a training: when, how many, and that they stay away. And blocks of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from leanmodel_api.step_rules import heal_issues, order_issues, prune_issues
from leanmodel_api.steps import Heal, Prune, Step
from leanmodel_compression.shapes import from_config
from leanmodel_compression.steps import gradual, masks, movement
from leanmodel_compression.steps.protocol import Task
from leanmodel_compression.steps.sparse import WeightPruning, by_magnitude

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300, "tie_word_embeddings": True,
}  # fmt: skip


def test_the_schedule_by_hand() -> None:
    # Of 8 steps 6 take weights: after the third half of the way is left, an eighth of the share.
    assert gradual.share_after(3, 8, 0.8) == pytest.approx(0.8 * 7 / 8)
    assert [gradual.share_after(step, 8, 0.5) for step in (0, 6, 7, 8)] == [0.0, 0.5, 0.5, 0.5]


@settings(deadline=None)
@given(st.integers(1, 500), st.floats(0.01, 0.99))
def test_shares_only_grow_and_end_where_they_should(total: int, end: float) -> None:
    shares = [
        gradual.share_after(step, total, end) for step in range(1, total + 1) if gradual.due(step, total)
    ]
    assert shares == sorted(shares) and shares[-1] == end
    assert len(shares) <= 2 * gradual.PRUNINGS + 1


def test_what_went_stays_away_though_it_was_moving() -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(6, 8))
    optimiser = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.0)
    going = gradual.Gradual(0.5)
    layer = torch.nn.Linear(8, 6, bias=False)
    layer.weight = weight
    assert going.begin(torch.nn.Sequential(layer), ["0"], {}) == {}
    gone = torch.zeros(6, 8, dtype=torch.bool)
    for step in range(1, 9):
        (weight - 1).square().sum().backward()
        optimiser.step()
        optimiser.zero_grad()
        going.after_step(step, 8, optimiser)
        zeros = weight.detach() == 0
        assert bool(zeros[gone].all())
        gone = zeros
    assert int(gone.sum()) == 24


def test_movement_takes_what_moves_towards_zero_and_gives_it_back() -> None:
    layer = torch.nn.Linear(2, 1, bias=False)
    layer.weight = torch.nn.Parameter(torch.tensor([[1.0, 0.1]]))
    going = movement.Movement(0.5)
    (scores,) = going.begin(torch.nn.Sequential(layer), ["0"], {}).values()
    optimiser = torch.optim.SGD([layer.weight, scores], lr=0.1)

    def step(number: int, wanted: float) -> None:
        optimiser.zero_grad()
        # The first input alone counts: its weight is drawn to what is wanted.
        (layer(torch.tensor([[1.0, 0.0]])) - wanted).square().sum().backward()
        optimiser.step()
        going.after_step(number, 1, optimiser)

    step(1, 0.0)
    # By hand: the gradient is 2, times the weight, times the rate. The larger weight went.
    assert scores[0].tolist() == pytest.approx([-0.2, 0.0])
    assert float(layer(torch.tensor([[1.0, 0.0]]))) == 0.0 and float(layer.weight[0, 0]) == pytest.approx(0.8)
    # Out, it computes nothing and does not move; its score does, and it comes back.
    step(1, 5.0)
    assert float(layer.weight[0, 0]) == pytest.approx(0.8) and float(scores[0, 0]) > 0
    assert float(layer(torch.tensor([[1.0, 0.0]]))) == pytest.approx(0.8)
    going.finish()
    assert layer.weight.tolist() == [[pytest.approx(0.8), 0.0]] and "forward" not in vars(layer)


def test_blocks_by_hand() -> None:
    scores = torch.ones(4, 6)
    scores[2:, 2:4] = 0.1
    scores[0, 5] = 9.0
    mask = masks.blocks(scores, 0.34, 2)
    assert int(mask.sum()) == 8 and bool(mask[2:, 2:4].all()) and not bool(mask[:2, 4:].any())


@settings(deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([2, 4, 8]), st.floats(0.1, 0.9))
def test_a_block_goes_whole_or_not_at_all(seed: int, size: int, share: float) -> None:
    weight = torch.randn(16, 24, generator=torch.Generator().manual_seed(seed))
    step = Prune(type="Prune", method="Magnitude", ratio=f"{share:.4f}", structure="Block", block_size=size)
    mask = by_magnitude(weight, step)
    parts = mask.reshape(16 // size, size, 24 // size, size).float().mean((1, 3))
    assert bool(((parts == 0) | (parts == 1)).all())
    assert int(parts.sum()) == int(float(f"{share:.4f}") * parts.numel())


def prune(**fields: Any) -> Prune:
    return Prune.model_validate({"type": "Prune", "method": "Magnitude", "ratio": "0.5", **fields})


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (prune(structure="Block"), "f.blockSize: found none with structure: Block"),
        (prune(blockSize=8), "f.blockSize: found 8 without structure: Block; remove it"),
        (prune(structure="Block", blockSize=8, method="Wanda"), "f.structure: found Block with method Wanda"),
        (prune(structure="Block", blockSize=8, ratio=None), "f.ratio: found none"),
        (Prune(type="Prune", keep_layers=2, block_size=4), "f.blockSize: found 4 with method Depth"),
    ],
)
def test_blocks_without_sense_are_refused(step: Prune, words: str) -> None:
    assert any(str(issue).startswith(words) for issue in prune_issues(step, "f"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"blockSize": 20}, "f.blockSize: 20 does not divide 14 layers"),
        ({"blockSize": 32, "ratio": "0.1"}, "f.ratio: 0.1 takes none of 2 blocks"),
    ],
)
def test_blocks_that_do_not_fit_the_layers_are_refused(fields: dict[str, Any], words: str) -> None:
    step = prune(structure="Block", **fields)
    found = [str(issue) for issue in WeightPruning().issues(Task(step, "f", from_config(CONFIG)))]
    assert any(line.startswith(words) for line in found), found
    assert any("write one of 32, 16, 8, 4, 2" in line or "smaller blockSize" in line for line in found)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"pruneTo": "0"}, "found 0; write a share"),
        ({"pruneTo": "1"}, "found 1; write a share"),
        ({"pruneTo": "0.5", "method": "LoRA"}, "write method: Full"),
        ({"pruneTo": "0.5", "quantizationAware": "W8A8"}, "write two Heal steps"),
        ({"pruneBy": "Movement"}, "found Movement without pruneTo; remove it"),
    ],
)
def test_a_training_that_cannot_prune_is_refused(fields: dict[str, Any], words: str) -> None:
    (issue,) = heal_issues(Heal.model_validate({"type": "Heal", **fields}), "f")
    assert issue.field == ("f.pruneTo" if "pruneTo" in fields else "f.pruneBy") and words in str(issue)


@pytest.mark.parametrize(
    ("later", "remedy"),
    [
        ({"type": "Distill"}, "write Heal"),
        ({"type": "Quantize", "algorithm": "GPTQ"}, "write RTN"),
        ({"type": "Share"}, "write First"),
        ({"type": "Prune", "method": "Neurons", "ratio": "0.5"}, "put Neurons before it"),
    ],
)
def test_zeros_that_came_in_a_training_are_kept_like_any_other(later: dict[str, Any], remedy: str) -> None:
    chain = TypeAdapter(list[Step]).validate_python([{"type": "Heal", "pruneTo": "0.5"}, later])
    (issue,) = order_issues(chain, "f")
    assert "after the Heal with pruneTo" in str(issue) and remedy in str(issue)
