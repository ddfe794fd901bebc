"""What a configuration tells of an encoder, at the published sizes, and how its texts are cut and its layers spread."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leanmodel_compression.batches import Labelled, Row, cut
from leanmodel_compression.classifiers.rows import label_order
from leanmodel_compression.classifiers.shapes import FAMILIES, HEAD, any_shape, encoder_shape
from leanmodel_compression.steps.encoders.prune import spread

PUBLISHED: dict[str, dict[str, Any]] = {
    "MobileBert": {"classifier_activation": False},
    "Albert": {"embedding_size": 128, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
}  # fmt: skip


@pytest.mark.parametrize("prefix", sorted(FAMILIES.values()))
def test_parameters_are_counted_without_weights(prefix: str) -> None:
    import transformers

    config = getattr(transformers, f"{prefix}Config")(
        **PUBLISHED.get(prefix, {}), architectures=[prefix + HEAD]
    )
    with torch.device("meta"):
        model = getattr(transformers, prefix + HEAD)(config)
    counted = sum(parameter.numel() for parameter in model.parameters())
    shape = encoder_shape(config.to_dict())
    assert shape.parameters == pytest.approx(counted, rel=0.002)
    assert shape.layers == config.num_hidden_layers and len(shape.labels) == 2
    assert any_shape(config.to_dict()) == shape


def test_a_head_for_other_labels_changes_only_the_head() -> None:
    config = {
        "model_type": "bert", "num_hidden_layers": 2, "hidden_size": 8, "intermediate_size": 16, "vocab_size": 30,
        "num_attention_heads": 2, "architectures": ["BertModel"],
    }  # fmt: skip
    bare = encoder_shape(config)
    headed = bare.with_labels(("a", "b", "c"))
    assert (bare.labels, headed.labels, headed.architecture) == ((), ("a", "b", "c"), f"Bert{HEAD}")
    assert headed.parameters == bare.parameters + 3 * 8
    assert headed.with_labels(("a", "b")).parameters == bare.parameters + 2 * 8
    assert headed.outputs == 3


@given(st.integers(1, 48), st.data())
def test_layers_are_spread_evenly_and_end_with_the_last(layers: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, layers))
    found = spread(layers, count)
    assert len(set(found)) == count and found == sorted(found) and found[-1] == layers - 1
    gaps = {after - before for before, after in zip([-1, *found], found, strict=False)}
    assert max(gaps) - min(gaps) <= 1


def test_half_of_the_layers_is_every_second() -> None:
    assert spread(6, 3) == [1, 3, 5]


@given(st.lists(st.integers(0, 9), min_size=2, max_size=30), st.integers(2, 20))
def test_a_text_is_cut_before_its_end_and_keeps_its_label(ids: list[int], length: int) -> None:
    row = cut(Labelled((*ids, 77), len(ids)), length)
    assert row.ids[-1] == 77 and row.answers == 1
    assert row.first == len(row.ids) - 1 == min(len(ids), length)
    assert row.ids[:-2] == tuple(ids[: row.first - 1]) and row.ids[-2] == ids[-1]


def test_a_prompt_is_cut_as_before() -> None:
    assert cut(Row((1, 2, 3, 4), 3), 2) == Row((3, 4), 1)


def test_a_heads_own_order_of_the_same_labels_counts() -> None:
    assert label_order(("spam", "ham"), ["ham", "spam"]) == ("spam", "ham")
    assert label_order(("no", "yes"), ["ham", "spam"]) == ("ham", "spam")
    assert label_order((), ["ham", "spam"]) == ("ham", "spam")
