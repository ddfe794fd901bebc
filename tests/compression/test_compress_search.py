"""A search through the real Job: the cheapest candidate that keeps the promise, the same again, and none where none does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import data_set, make_model, plan_of, run_plan
from encoder_making import TASK, large_plan, make_encoder, texts_set

from leanmodel_api.errors import InputError, ManifestError
from leanmodel_api.plan import CompressPlan, CompressResult
from leanmodel_api.search import SearchFound
from leanmodel_compression.estimate import estimate
from leanmodel_store import datasets
from leanmodel_store.artifacts import Store

pytestmark = [pytest.mark.compression, pytest.mark.timeout(590)]
TRAINING = {"epochs": "4", "learningRate": "0.01", "maxLength": 32}
# The graph of a file weighs more than the weights of so small an encoder.
ROOMY = {"bytes": "10M"}
SPLIT = {"split": {"seed": 0, "train": "0.5", "validation": "0.2", "fit": "0.1", "certify": "0.1", "report": "0.05", "test": "0.05"}}  # fmt: skip


def wanted(**search: Any) -> dict[str, Any]:
    return {"budget": {"sizeRatio": "0.8"}, "promise": {"retain": "0.9"}, "training": TRAINING, **search}


def search_plan(large: CompressResult | None, sets: list[dict[str, Any]], search: dict[str, Any], **more: Any) -> CompressPlan:  # fmt: skip
    base = large.artifact if large is not None else None
    return plan_of(role="Lean", base=base, teacher=base, dataSets=sets, search=search, **more)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str]]) -> Path:
    return make_encoder(tmp_path_factory.mktemp("search") / "bert", texts)


@pytest.fixture(scope="module")
def classifier(
    tmp_path_factory: pytest.TempPathFactory, encoder: Path, data_file: Path
) -> tuple[Store, CompressResult]:
    """A tiny encoder that has learned the task."""
    store = Store(tmp_path_factory.mktemp("search-encoders") / "store")
    return store, run_plan(large_plan(encoder, data_file, dataSets=[texts_set(data_file, **SPLIT)]), store)


def classify(large: CompressResult | None, data_file: Path, **search: Any) -> CompressPlan:
    sets = [texts_set(data_file, **SPLIT)]
    return search_plan(large, sets, wanted(**search), task=TASK, maxModelLength=64)


def found(result: CompressResult) -> SearchFound:
    assert result.search is not None
    return result.search


def unseen(load: Callable[..., datasets.Parts]) -> Callable[..., datasets.Parts]:
    """Return a load whose parts of the proof are gone."""

    def without_proof(*arguments: Any, **more: Any) -> datasets.Parts:
        return replace(load(*arguments, **more), fit=[], certify=[], report=[], test=[])

    return without_proof


def test_what_fits_nothing_is_refused_before_the_large_model_is_made(
    encoder: Path, data_file: Path, store: Store
) -> None:
    first = large_plan(encoder, data_file, dataSets=[texts_set(data_file, **SPLIT)])
    with pytest.raises(
        ManifestError, match=r"spec\.lean\.search\.budget: 0\.1 kB, and the smallest of \d+ recipes"
    ):
        run_plan(first, store, [classify(None, data_file, budget={"bytes": "100"})])
    assert not list((store.root / "scratch").iterdir())


def test_an_estimate_tells_every_candidate(encoder: Path, data_file: Path, store: Store) -> None:
    first = large_plan(encoder, data_file, dataSets=[texts_set(data_file, **SPLIT)])
    told = estimate([first, classify(None, data_file)], store)
    rows = [step for step in told.steps if step.role == "Lean"]
    assert rows[-1].type == "Search, upper rungs" and len(rows) > 3
    large_bytes = next(step.bytes for step in reversed(told.steps) if step.role == "Large")
    assert large_bytes is not None
    assert all(step.bytes is not None and step.bytes <= 0.8 * large_bytes for step in rows)


def settled(seen: SearchFound, made: CompressResult) -> None:
    """Hold what was found against what was looked for."""
    assert made.bytes <= seen.budget_bytes
    assert all(one.estimated_bytes <= seen.budget_bytes for one in seen.frontier)
    chosen = next(one for one in seen.frontier if one.outcome == "Chosen")
    assert chosen.name == seen.chosen and chosen.retained is not None and chosen.retained.value >= seen.retain
    assert chosen.trained == "1" and chosen.bytes == made.bytes
    for one in seen.frontier:
        # What was not measured could not have won; what passes and is cheaper would have.
        assert one.rung or one.estimated_bytes >= chosen.estimated_bytes
        assert one.outcome != "Dearer" or one.estimated_bytes >= chosen.estimated_bytes
        assert one.outcome != "Passed" or one.estimated_bytes >= chosen.estimated_bytes
    effects = seen.sensitivity.steps
    assert [effect.type for effect in effects] == [step.type for step in made.steps]
    assert effects[0].before == seen.large and effects[-1].after == chosen.quality


def test_it_finds_a_cheap_classifier_that_keeps_the_promise_and_finds_it_again(
    classifier: tuple[Store, CompressResult], data_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, large = classifier
    made = run_plan(classify(large, data_file, budget=ROOMY), store)
    seen = found(made)
    assert {"linear", "int8", "depth-1-int8"} <= {one.name for one in seen.frontier}
    assert seen.metric == "BalancedAccuracy" and seen.rows == 48 and seen.large.value > 0.9
    settled(seen, made)
    # What the proof holds back is not looked at, and a second search finds all that the first one made.
    monkeypatch.setattr(datasets, "load", unseen(datasets.load))
    again = run_plan(classify(large, data_file, budget=ROOMY), store)
    assert again.artifact == made.artifact and all(step.cached for step in again.steps)
    assert found(again).frontier == seen.frontier


def test_none_that_passes_is_an_error_with_the_nearest(
    classifier: tuple[Store, CompressResult], data_file: Path
) -> None:
    store, large = classifier
    # No interval of 48 rows begins at 1.
    hard = classify(large, data_file, promise={"retain": "1", "use": "Bound"}, maxCandidates=2, budget=ROOMY)
    with pytest.raises(InputError, match=r"spec\.lean\.search: none of 2 candidates .* keeps 1 of .*; the nearest, ") as told:  # fmt: skip
        run_plan(hard, store)
    assert "raise the budget, lower promise.retain" in str(told.value)


@pytest.mark.long
def test_a_decoder_is_cut_as_far_as_the_promise_allows_and_the_same_again(
    tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str]], data_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    folder = make_model(tmp_path_factory.mktemp("search") / "tiny", texts)
    store, sets = Store(tmp_path_factory.mktemp("search-store") / "store"), [data_set(data_file, **SPLIT)]
    first = plan_of(source={"uri": f"file:{folder}"}, finetune={**TRAINING, "epochs": "8"}, dataSets=sets)
    large = run_plan(first, store)
    plan = search_plan(large, sets, wanted(maxCandidates=3))
    made = run_plan(plan, store)
    seen = found(made)
    settled(seen, made)
    chosen = next(one for one in seen.frontier if one.outcome == "Chosen")
    assert bool(seen.sensitivity.layers) == (made.steps[-1].type == "Quantize")
    # As if the recipe had stood in the manifest: the same keys, the same artifact.
    by_hand = plan_of(
        role="Lean", base=large.artifact, teacher=large.artifact, dataSets=sets, steps=chosen.steps
    )
    monkeypatch.setattr(datasets, "load", unseen(datasets.load))
    again, same = run_plan(plan, store), run_plan(by_hand, store)
    for other in (again, same):
        assert other.artifact == made.artifact and all(step.cached for step in other.steps)
    assert found(again).frontier == seen.frontier
