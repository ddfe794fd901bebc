"""Candidates: made from the model's shape alone, none above the budget, none that a step would refuse."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leanmodel_api.plan import CompressPlan
from leanmodel_api.step_rules import order_issues
from leanmodel_compression.batches import Labelled, Row, Rows
from leanmodel_compression.classifiers.shapes import EncoderShape
from leanmodel_compression.search import planning
from leanmodel_compression.search.candidates import Proposal, kept, served_bytes, spread
from leanmodel_compression.shapes import ModelShape

SMOL = ModelShape("LlamaForCausalLM", 30, 576, 1536, 9, 3, 64, 49152, True, 8192)
BERT = EncoderShape(
    "BertForSequenceClassification", 6, 384, 1536, 12, 12, 32, 30522, False, 512, family="bert", labels=("ham", "spam"),
    layer_weights=1_774_464, embedding_weights=11_917_440, head_weights=148_610,
)  # fmt: skip
TEXTS = Rows(
    tuple(Row((*range(20), 7, 8), 20) for _ in range(64)), tuple(Row((1, 2, 3), 2) for _ in range(8))
)
LABELS = Rows(tuple(Labelled((*range(20), at % 2), 20, "so it is") for at in range(64)), ())
GIB = 2**30


def plan(task: str | None = None, memory: int = 6 * GIB, **search: object) -> CompressPlan:
    choices = ["ham", "spam"]
    prompt = {"user": "{msg}"} if task is None else {"text": "{msg}"}
    data = {
        "name": "sms",
        "source": {"uri": "file:x"},
        "prompt": prompt,
        "answer": "{label}",
        "choices": choices,
    }
    return CompressPlan.model_validate(
        {
            "name": "a", "role": "Lean", "task": task, "base": "sha256:" + "0" * 64, "dataSets": [data], "maxModelLength": 128,
            "limits": {"memoryBytes": memory}, "search": {"budget": {"sizeRatio": "0.6"}, **search},
        }
    )  # fmt: skip


def proposed(shape: ModelShape, of: CompressPlan, budget: int | None = None) -> Proposal:
    rows = LABELS if isinstance(shape, EncoderShape) else TEXTS
    chain = planning.chain_of(of, shape, lambda name: rows, "", ("ham", "spam"))
    known = (
        planning.budget_of(planning.search_of(of), planning.large_bytes(shape)) if budget is None else budget
    )
    return planning.proposal(of, shape, known, chain)


@settings(max_examples=12, deadline=None)
@given(
    layers=st.integers(1, 40), hidden=st.sampled_from([64, 576, 768]), share=st.floats(0.01, 1.0),
    most=st.integers(1, 30), encoder=st.booleans(),
)  # fmt: skip
def test_none_is_above_the_budget_by_its_estimate(
    layers: int, hidden: int, share: float, most: int, encoder: bool
) -> None:
    shape: ModelShape = (
        replace(BERT, layers=layers) if encoder else replace(SMOL, layers=layers, hidden=hidden)
    )
    of = plan("text-classification" if encoder else None, maxCandidates=most)
    budget = int(share * planning.large_bytes(shape))
    found = proposed(shape, of, budget)
    assert len(found.candidates) <= most
    rows = LABELS if encoder else TEXTS
    chain = planning.chain_of(of, shape, lambda name: rows, "", ("ham", "spam"))
    for candidate in found.candidates:
        assert candidate.bytes <= budget and served_bytes(chain(candidate.steps)) == candidate.bytes
        assert not order_issues(candidate.steps, "steps")
        assert not [issue for item, task in chain(candidate.steps) for issue in item.step.issues(task)]
    assert [one.bytes for one in found.candidates] == sorted(one.bytes for one in found.candidates)
    assert len({one.name for one in found.candidates}) == len(found.candidates)
    assert found.over + len(found.candidates) <= found.considered
    if not found.candidates:
        assert planning.issues(found, budget)


def test_a_decoder_loses_layers_neurons_words_and_bits() -> None:
    found = proposed(SMOL, plan(maxCandidates=100))
    names = {one.name for one in found.candidates}
    assert {"depth-10", "depth-10-w8a8", "depth-10-trim-w8a8", "w4a16", "neurons-0.5-w8a8"} <= names
    # 0.606 of the bytes: above the budget by a hair, and never proposed.
    assert "w8a8" not in names and "" not in names
    assert found.over > 0
    ten = next(one for one in found.candidates if one.name == "depth-10-w8a8")
    assert [step.type for step in ten.steps] == ["Prune", "Distill", "Quantize"] and ten.trains
    assert abs(ten.bytes - 92e6) < 2e6  # 92 MB as measured on the real model


def test_an_encoder_has_the_linear_model_too_and_never_itself() -> None:
    found = proposed(BERT, plan("text-classification", maxCandidates=100))
    names = [one.name for one in found.candidates]
    assert names[0] == "linear" and "int8" in names and "depth-3-int8" in names and "float32" not in names
    assert not found.candidates[0].trains


def test_a_rung_shortens_the_training_and_nothing_else() -> None:
    found = proposed(SMOL, plan(maxCandidates=100, training={"epochs": "5", "learningRate": "0.0003"}))
    ten = next(one for one in found.candidates if one.name == "depth-10-w8a8")
    short = ten.at(1 / 16)
    assert short[1].epochs == "0.3125" and ten.steps[1].epochs == "5"  # type: ignore[union-attr]
    assert short[0] == ten.steps[0] and short[2] == ten.steps[2]
    assert ten.steps[1].learning_rate == "0.0003"  # type: ignore[union-attr]


def test_little_memory_leaves_out_what_needs_more() -> None:
    roomy, tight = (
        proposed(SMOL, plan(maxCandidates=100)),
        proposed(SMOL, plan(maxCandidates=100, memory=2 * GIB)),
    )
    assert 0 < tight.considered < roomy.considered
    none = proposed(SMOL, plan(memory=1))
    assert none.smallest is None and "memory" in str(planning.issues(none, 10**9)[0])


def test_nothing_fits_is_said_with_what_would() -> None:
    found = proposed(SMOL, plan(), budget=1_000_000)
    (issue,) = planning.issues(found, 1_000_000)
    assert str(issue).startswith("spec.lean.search.budget: 1.0 MB, and the smallest of ")


@pytest.mark.parametrize("most", [1, 2, 7, 16])
def test_few_are_spread_and_keep_the_smallest_and_the_most_of_the_model(most: int) -> None:
    every = proposed(SMOL, plan(maxCandidates=100)).candidates
    some = spread(every, most)
    assert len(some) == most and all(one in every for one in some)
    assert [one.bytes for one in some] == sorted(one.bytes for one in some)
    assert most == 1 or some[0] == every[0]
    assert max(one.body for one in some) == max(one.body for one in every)
    assert spread(every, len(every)) == list(every)


def test_of_like_bytes_the_one_with_fewer_bits_and_more_layers_is_tried() -> None:
    few = {one.name for one in proposed(SMOL, plan(maxCandidates=16)).candidates}
    # Ten layers in 8 bits and five in 16 take the same 92 MB.
    assert "depth-10-w8a8" in {one.name for one in proposed(SMOL, plan(maxCandidates=100)).candidates}
    assert "depth-5" not in few and any(name.endswith("w8a8") for name in few)


def test_kept_layers_are_fewer_than_all_and_at_least_one() -> None:
    assert kept(1) == [] and kept(2) == [1] and kept(30)[0] == 25 and kept(30)[-1] == 3
    assert all(1 <= one < layers for layers in range(1, 60) for one in kept(layers))
