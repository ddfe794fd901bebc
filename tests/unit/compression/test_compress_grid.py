"""The grid that training rounds to: by hand, by property, and never without the Quantize that it is for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from leanmodel_api.step_rules import order_issues
from leanmodel_api.steps import Heal, Step
from leanmodel_compression.shapes import from_config
from leanmodel_compression.steps import aware, grid
from leanmodel_compression.steps.protocol import Task

SMOLLM2: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 2,
    "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 300, "tie_word_embeddings": True,
}  # fmt: skip


def test_a_row_by_hand() -> None:
    # The largest is 7.5 steps: 8 would not fit, so it becomes 7; minus 8 would.
    row = torch.tensor([[7.5, 1.4, -0.6, 0.4, -7.5, 0.0, 3.0, 2.6]])
    assert grid.fake(row, 4, 8).tolist() == [[7, 1, -1, 0, -8, 0, 3, 3]]
    assert grid.fake(torch.zeros(2, 8), 4, 4).tolist() == torch.zeros(2, 8).tolist()


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), bits=st.sampled_from([4, 8]), group=st.sampled_from([None, 8, 16]))
def test_whatever_comes_in_lies_on_a_grid_close_by(seed: int, bits: int, group: int | None) -> None:
    weight = torch.randn(3, 32, generator=torch.Generator().manual_seed(seed))
    found = grid.fake(weight, bits, group)
    parts = weight.to(torch.bfloat16).float().unflatten(-1, (-1, group or 32))
    scale = grid.scales(parts, bits)
    steps = found.unflatten(-1, (-1, group or 32)) / scale
    assert torch.allclose(steps, steps.round(), atol=1e-4) and float(steps.abs().max()) <= 2 ** (bits - 1)
    # Half a step, and the half by which the largest does not fit; scales in bf16 are off by 1/256.
    assert (
        float(((found.unflatten(-1, (-1, group or 32)) - parts) / scale).abs().max())
        <= 0.5 + 0.5 + 2**bits / 256
    )
    assert bool((found[weight == 0] == 0).all())


def test_gradients_go_through_as_if_nothing_was_rounded() -> None:
    given_, weight = torch.randn(5, 8, requires_grad=True), torch.randn(4, 8, requires_grad=True)
    multiply = aware._multiply(4, 8, tokens=False)
    made = multiply(given_, weight)
    rounded = grid.fake(weight.detach(), 4, 8)
    assert torch.equal(made, torch.nn.functional.linear(given_, rounded))
    made.sum().backward()
    assert torch.allclose(weight.grad, given_.detach().sum(0).expand(4, 8), atol=1e-6)
    assert torch.allclose(given_.grad, rounded.sum(0).expand(5, 8), atol=1e-6)


def steps(*documents: dict[str, Any]) -> list[Any]:
    return TypeAdapter(list[Step]).validate_python(list(documents))


HEAL = {"type": "Heal", "quantizationAware": "W4A16", "groupSize": 32}
QUANTIZE = {"type": "Quantize", "scheme": "W4A16", "groupSize": 32}


def test_a_training_and_its_quantize_are_taken() -> None:
    assert order_issues(steps(HEAL, QUANTIZE), "f") == []
    assert (
        order_issues(steps({"type": "Distill", "quantizationAware": "W8A8"}, {"type": "Quantize"}), "f") == []
    )


@pytest.mark.parametrize(
    ("chain", "field", "words"),
    [
        ([HEAL], "f[0].quantizationAware", "the next step is no Quantize; put {type: Quantize, scheme: W4A16}"),
        ([HEAL, {"type": "Heal"}, QUANTIZE], "f[0].quantizationAware", "the next step is no Quantize"),
        ([HEAL, {**QUANTIZE, "algorithm": "GPTQ"}], "f[1].algorithm", "found GPTQ, and steps[0] was trained for RTN; write RTN"),
        ([HEAL, {**QUANTIZE, "groupSize": 64}], "f[1].groupSize", "found 64, and steps[0] was trained for 32; write 32"),
        ([{**HEAL, "groupSize": None}, QUANTIZE], "f[1].groupSize", "was trained for None; remove it, or write it in steps[0]"),
        ([HEAL, {"type": "Quantize", "scheme": "W8A8", "groupSize": 32}], "f[1].scheme", "write W4A16"),
        ([HEAL, {**QUANTIZE, "ignore": ["lm_head", "re:.*mlp.*"]}], "f[1].ignore", "was trained for ['lm_head']"),
        ([{**HEAL, "method": "LoRA"}, QUANTIZE], "f[0].quantizationAware", "write method: Full"),
        ([{"type": "Heal", "groupSize": 32}], "f[0].groupSize", "without quantizationAware: W4A16"),
        ([{**HEAL, "quantizationAware": "W8A8"}, {"type": "Quantize"}], "f[0].groupSize", "remove it"),
    ],
)  # fmt: skip
def test_any_other_order_is_refused(chain: list[dict[str, Any]], field: str, words: str) -> None:
    found = [str(issue) for issue in order_issues(steps(*chain), "f")]
    assert any(line.startswith(f"{field}: ") and words in line for line in found), found


def test_a_group_that_does_not_divide_is_refused_before_the_training() -> None:
    task = Task(Heal(type="Heal", quantization_aware="W4A16", group_size=128), "f", from_config(SMOLLM2))
    (issue,) = aware.issues(task)
    assert issue.field == "f.groupSize" and "write one of 192, 96, 64" in str(issue) or "64" in str(issue)
    fine = Task(Heal(type="Heal", quantization_aware="W4A16"), "f", from_config(SMOLLM2))
    every = sum(linear.columns * linear.rows for linear in aware.layers(fine.spec, fine.shape))
    assert aware.issues(fine) == [] and aware.held_bytes(fine) == 4 * every + 12 * 576 * 1536
    assert aware.held_bytes(Task(Heal(type="Heal"), "f", from_config(SMOLLM2))) == 0
