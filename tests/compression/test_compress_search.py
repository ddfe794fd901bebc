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
from leanmodel_api.plan import CompressPlan, CompressResult, ReplicaPlan
from leanmodel_api.search import SearchFound
from leanmodel_compression.estimate import estimate
from leanmodel_compression.search import measure, speed
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


def timed(large: CompressResult, data_file: Path, latency: str, **search: Any) -> CompressPlan:
    """A search by the time of a request, and by its price, on a replica that will have more cores than the Job."""
    budget = {**ROOMY, "latency": latency, "usdPerThousandRequests": "1", "device": {"memory": "2Gi"}}
    plan = classify(large, data_file, **{"budget": budget, "maxCandidates": 3, **search})
    replica = ReplicaPlan(threads=64, usd_per_hour="0.1", kv_cache_bytes=0, dtype="Auto")
    return plan.model_copy(update={"replica": replica})


def test_every_candidate_is_timed_in_its_engine_and_the_same_is_found_again(
    classifier: tuple[Store, CompressResult], data_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, large = classifier
    plan = timed(large, data_file, "60s")
    made = run_plan(plan, store)
    seen = found(made)
    settled(seen, made)
    assert (seen.threads, seen.served_threads) == (plan.limits.threads, 64)
    measured = [one for one in seen.frontier if one.rung]
    assert measured and seen.budget.latency == "60s"
    for one in measured:
        assert one.latency_ms is not None and one.requests_per_second is not None
        assert 0 < one.latency_ms.low <= one.latency_ms.value <= one.latency_ms.high < 60_000
        assert one.latency_ms.n == 48 and one.requests_per_second.low > 0
        assert one.usd_per_thousand_requests is not None and 0 < one.usd_per_thousand_requests.value <= 1
        assert one.memory_bytes is not None and one.memory_bytes <= 2 * 2**30
    # A killed search that goes on, or a second one, decides by what was measured and not by another day's load.
    monkeypatch.setattr(speed, "measure", refused)
    assert found(run_plan(plan, store)).frontier == seen.frontier


def refused(*_: object) -> str:
    raise AssertionError("this was measured before")


def test_what_is_too_slow_is_neither_judged_nor_trained_further(
    classifier: tuple[Store, CompressResult], data_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, large = classifier
    judged: list[Path] = []
    ask = measure.classifier
    monkeypatch.setattr(
        measure, "classifier", lambda folder, *more: judged.append(folder) or ask(folder, *more)
    )
    # A thousandth of a millisecond is less than any session takes; the large model's own quality is asked all the same.
    plan = timed(large, data_file, "0.001ms", promise={"retain": "0.91"}, maxCandidates=4)
    with pytest.raises(
        InputError, match=r"spec\.lean\.search\.budget: none of 4 candidates .*: 4 are above it as measured"
    ) as told:
        run_plan(plan, store)
    assert " ms a request at the 95th percentile, above the budget of 0.001 ms" in str(told.value)
    assert "the nearest, " in str(told.value)
    assert all(folder == store.open(large.artifact).path for folder in judged)


def test_a_device_that_nothing_fits_is_refused_before_the_large_model_is_made(
    encoder: Path, data_file: Path, store: Store
) -> None:
    first = large_plan(encoder, data_file, dataSets=[texts_set(data_file, **SPLIT)])
    plan = classify(None, data_file, budget={"device": {"memory": "136M"}})
    plan = plan.model_copy(update={"replica": ReplicaPlan(kv_cache_bytes=0, dtype="Auto")})
    with pytest.raises(
        ManifestError, match=r"spec\.lean\.search\.budget\.device\.memory: 136\.0 MB, and a replica"
    ):
        run_plan(first, store, [plan])
    assert not list((store.root / "scratch").iterdir())
    with pytest.raises(ManifestError, match=r"budget\.device\.memory: 136\.0 MB"):
        estimate([first, plan], store)


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
