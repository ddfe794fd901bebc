"""Which layers share: groups by hand and by property, and what cannot follow."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from leanmodel_api.plan import CompressPlan
from leanmodel_api.step_rules import order_issues
from leanmodel_api.steps import Share, Step
from leanmodel_compression import checks
from leanmodel_compression.shapes import from_config
from leanmodel_compression.shared import ties
from leanmodel_compression.steps.protocol import Task
from leanmodel_compression.steps.share import Sharing, sources

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 6,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300, "tie_word_embeddings": True,
}  # fmt: skip


def share(**fields: Any) -> Share:
    return Share.model_validate({"type": "Share", **fields})


def test_groups_by_hand() -> None:
    assert sources(share(), 6) == [0, 1, 1, 3, 3, 5]
    assert sources(share(protectFirst=0, protectLast=0, layersPerGroup=4), 6) == [0, 0, 0, 0, 4, 4]
    assert sources(share(protectFirst=2, protectLast=2, layersPerGroup=3), 6) == [0, 1, 2, 2, 4, 5]


@given(st.integers(1, 80), st.integers(2, 9), st.integers(0, 9), st.integers(0, 9))
def test_every_layer_has_one_source_close_before_it(layers: int, size: int, first: int, last: int) -> None:
    found = sources(share(layersPerGroup=size, protectFirst=first, protectLast=last), layers)
    assert len(found) == layers
    for index, source in enumerate(found):
        assert index - size < source <= index and found[source] == source
        if index < first or index >= layers - last:
            assert source == index


def test_parameters_of_a_group_are_counted_once() -> None:
    whole = from_config(CONFIG)
    task = Task(share(), "f", whole)
    shape = Sharing().after(task)
    assert Sharing().issues(task) == []
    assert whole.parameters - shape.parameters == 2 * whole.layer_parameters
    assert shape.layer_parameters == whole.layer_parameters and shape.layers == 6
    assert [linear.name for linear in shape.linears() if ".q_proj" in linear.name] == [
        f"model.layers.{index}.self_attn.q_proj" for index in (0, 1, 3, 5)
    ]
    assert from_config({**CONFIG, "shared_layers": [0, 1, 1, 3, 3, 5]}).parameters == shape.parameters


@pytest.mark.parametrize(
    ("fields", "config", "words"),
    [
        ({"protectFirst": 4}, {}, "f.layersPerGroup: groups of 2 leave no two of 6 layers together"),
        ({}, {"num_hidden_layers": 3}, "write 2, or protect fewer layers"),
        ({}, {"architectures": ["OlmoForCausalLM"]}, "f: there are no shared OlmoForCausalLM"),
    ],
)
def test_what_leaves_nothing_to_share_is_refused(
    fields: dict[str, Any], config: dict[str, Any], words: str
) -> None:
    (issue,) = Sharing().issues(Task(share(**fields), "f", from_config({**CONFIG, **config})))
    assert words in str(issue)


def test_ties_name_every_parameter_of_a_layer() -> None:
    names = [f"model.layers.{index}.{part}" for index in range(12) for part in ("a.weight", "b.bias")]
    assert ties(names, [0, 0, 2, *range(3, 11), 2]) == {
        "model.layers.1.a.weight": "model.layers.0.a.weight",
        "model.layers.1.b.bias": "model.layers.0.b.bias",
        "model.layers.11.a.weight": "model.layers.2.a.weight",
        "model.layers.11.b.bias": "model.layers.2.b.bias",
    }


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        ([{"type": "Share"}, {"type": "Prune", "keepLayers": 2}], "put Prune before it"),
        ([{"type": "Share"}, {"type": "Factorize", "ratio": "0.2"}], "put Factorize before it"),
        ([{"type": "Factorize", "ratio": "0.2"}, {"type": "Share"}], "f[1].type: found Share of thin layers"),
        ([{"type": "Share"}, {"type": "Share"}], "with more layersPerGroup"),
        ([{"type": "Share"}, {"type": "Heal", "method": "LoRA"}], "f[1].method: found LoRA, after the Share"),
        ([{"type": "Quantize"}, {"type": "Share"}], "put Quantize last"),
        (
            [{"type": "Prune", "method": "Magnitude", "ratio": "0.5"}, {"type": "Share"}],
            "f[1].init: found Mean",
        ),
        (
            [{"type": "Share"}, {"type": "Heal", "quantizationAware": "W8A8"}, {"type": "Quantize"}],
            "f[1].quantizationAware: found W8A8, after the Share",
        ),
    ],
)
def test_orders_that_cannot_work_are_named(chain: list[dict[str, Any]], words: str) -> None:
    issues = order_issues(TypeAdapter(list[Step]).validate_python(chain), "f")
    assert any(words in str(issue) for issue in issues), [str(issue) for issue in issues]


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [
        (["Share"], ["Share", "Expand"]),
        (["Share", "Heal", "Trim"], ["Share", "Heal", "Trim", "Expand"]),
        (["Share", "Heal", "Quantize"], ["Share", "Heal", "Expand", "Quantize"]),
        (["Heal"], ["Heal"]),
    ],
)
def test_it_is_expanded_once_and_as_late_as_can_be(steps: list[str], wanted: list[str]) -> None:
    plan = CompressPlan.model_validate(
        {
            "name": "x",
            "role": "Lean",
            "base": "sha256:" + "a" * 64,
            "steps": [{"type": name} for name in steps],
            "limits": {"memoryBytes": 2**30},
        }
    )
    items = checks.planned(plan)
    assert [item.step.name for item in items] == wanted
    assert all(item.spec is not None for item in items)
