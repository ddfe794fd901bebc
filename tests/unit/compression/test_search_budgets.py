"""Budgets beside bytes: how a speed is read, what is above a bound, and which recipes fit a device."""

from __future__ import annotations

import json
import math
import platform
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_search_candidates import BERT, GIB, LABELS, SMOL, TEXTS, plan, proposed

from leanmodel_api.base import digits
from leanmodel_api.batching import MAX_SEQUENCES, groups
from leanmodel_api.figure import Estimate
from leanmodel_api.footprint import ENGINE_BYTES, VLLM_HELD, onnx_work
from leanmodel_api.parts import Example
from leanmodel_api.plan import CompressPlan, CompressResult
from leanmodel_api.search import Tried
from leanmodel_compression import checks, machine
from leanmodel_compression.search import planning
from leanmodel_compression.search.budgets import Budgets, budgets_of
from leanmodel_compression.search.candidates import Candidate
from leanmodel_compression.search.footprint import Device
from leanmodel_compression.search.halving import Course, End
from leanmodel_compression.search.speed import PASSES, Speed, dollars, drawn, mean, percentile
from leanmodel_compression.search.telling import Seen, none_passes, tried

TASK = "text-classification"
TIMES = st.lists(st.floats(1e-3, 1e5), min_size=1, max_size=150)


def about(value: float) -> Estimate:
    return Estimate(value=value, low=value * 0.9, high=value * 1.1, n=9)


def fast(latency: float, rate: float = 100.0) -> Speed:
    return Speed(about(latency), about(rate))


def wanted(task: str | None = TASK, replica: dict[str, Any] | None = None, **budget: Any) -> CompressPlan:
    known = plan(task, budget=budget).model_dump(by_alias=True, exclude_none=True)
    return CompressPlan.model_validate({**known, **({"replica": replica} if replica is not None else {})})


def device(memory: str, task: str | None = None, kv: int = 2**29, dtype: str = "Auto") -> CompressPlan:
    return wanted(task, {"kvCacheBytes": kv, "dtype": dtype}, device={"memory": memory})


# ------------------------------------------------------------------------------- speed


@settings(max_examples=100, deadline=None)
@given(TIMES)
def test_the_95th_percentile_is_one_of_the_times_and_lies_in_its_interval(times: list[float]) -> None:
    found = percentile(times)
    assert {found.value, found.low, found.high} <= set(times) and found.n == len(times)
    assert found.low <= found.value <= found.high
    # Nineteen of twenty texts are answered within it.
    assert sum(one <= found.value for one in times) >= 0.95 * len(times)
    assert sum(one < found.value for one in times) < 0.95 * len(times)
    assert percentile([*reversed(times)]) == found


def test_few_texts_leave_the_upper_end_at_the_slowest_and_many_do_not() -> None:
    few, many = percentile([float(at) for at in range(48)]), percentile([float(at) for at in range(1000)])
    assert (few.value, few.high) == (45.0, 47.0) and few.low < 44
    assert many.value == 949.0 and 930 < many.low < 940 and 958 < many.high < 970


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(1e-2, 1e6), min_size=PASSES, max_size=PASSES), st.floats(1e-3, 100))
def test_a_rate_and_its_price_are_finite_and_turn_around(rates: list[float], price: float) -> None:
    found = mean(rates)
    assert 0 < found.low <= found.value * (1 + 1e-9) and found.value <= found.high * (1 + 1e-9)
    assert min(rates) * (1 - 1e-9) <= found.value <= max(rates) * (1 + 1e-9)
    cost = dollars(Speed(about(1), found), price)
    assert 0 < cost.low <= cost.value * (1 + 1e-9) and math.isfinite(cost.high)
    assert cost.value == pytest.approx(1000 * price / 3600 / found.value)


def test_what_was_kept_is_read_back() -> None:
    text = json.dumps({"aloneMs": [1.0, 2.0, 3.0], "perSecond": [100.0, 100.0, 100.0]})
    found = Speed.from_json(text)
    assert found.latency_ms.value == 3.0 and found.requests_per_second.value == pytest.approx(100.0)
    assert found.requests_per_second.low == pytest.approx(100.0)


@given(st.integers(0, 400), st.integers(1, 130))
def test_texts_are_spread_over_the_part(count: int, most: int) -> None:
    rows = [Example(id=str(at), text=f"text {at}") for at in range(count)]
    found = drawn([*rows, Example(id="chat")], most)
    numbers = [int(text.split()[1]) for text in found]
    assert len(found) == min(count, most) and numbers == sorted(set(numbers))
    gaps = [after - before for before, after in pairwise([*numbers, count])]
    assert not numbers or (numbers[0] == 0 and max(gaps) <= count // len(numbers) + 1)


@given(st.lists(st.integers(1, 600), min_size=1, max_size=MAX_SEQUENCES))
def test_groups_hold_every_text_once(lengths: list[int]) -> None:
    found = groups(lengths)
    assert sorted(at for group in found for at in group) == list(range(len(lengths)))
    assert all(max(lengths[at] for at in group) * len(group) <= 8192 for group in found)


def test_a_processor_has_a_name_or_an_architecture(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Xeon: so and so\n")
    assert machine.processor(tmp_path / "cpuinfo") == "Xeon: so and so"
    assert machine.processor(tmp_path / "none") == platform.machine()


# ------------------------------------------------------------------------------- bounds


def test_a_note_says_what_is_above_which_bound() -> None:
    bounds = Budgets(10_000_000, latency_ms=20, usd=0.002, usd_per_hour=0.9, threads=1, served_threads=1)
    assert bounds.speed_note(fast(20, 125)) == "" and bounds.bytes_note(10_000_000) == ""
    assert (
        bounds.speed_note(fast(31.04, 200))
        == "31 ms a request at the 95th percentile, above the budget of 20 ms"
    )
    assert (
        bounds.speed_note(fast(1, 100))
        == "0.0025 USD for 1,000 requests (100 a second), above the budget of 0.002 USD"
    )
    assert bounds.speed_note(fast(31, 100)).count("above the budget") == 2
    assert bounds.bytes_note(12_000_000) == "12.0 MB as stored, above the budget of 10.0 MB"
    assert Budgets(1).speed_note(fast(1e9)) == ""


@given(st.floats(0.01, 1e4), st.floats(0.01, 1e4), st.floats(0.1, 1e5), st.floats(1e-6, 10))
def test_above_a_bound_is_what_exceeds_it(latency: float, bound: float, rate: float, usd: float) -> None:
    bounds = Budgets(1, latency_ms=bound, usd=usd, usd_per_hour=1.0, threads=1, served_threads=1)
    found = fast(latency, rate)
    assert bool(bounds.speed_note(found)) == (bounds.excess(found) > 1)


@pytest.mark.parametrize(
    ("value", "words"), [(31.04, "31"), (0.00251, "0.00251"), (1234.5, "1,234"), (0.5, "0.5"), (100, "100")]
)
def test_figures_have_three_digits(value: float, words: str) -> None:
    assert digits(value) == words


def test_speed_is_measured_with_the_replicas_threads_or_those_that_the_job_has() -> None:
    found = budgets_of(wanted(replica={"threads": 4}, latency="20ms"), 100)
    assert (found.threads, found.served_threads, found.latency_ms, found.usd) == (1, 4, 20.0, None)
    priced = budgets_of(
        wanted(replica={"threads": 1, "usdPerHour": "0.5"}, usdPerThousandRequests="0.01"), 100
    )
    assert (priced.usd, priced.usd_per_hour) == (0.01, 0.5)
    assert budgets_of(wanted(sizeRatio="0.5"), 100) == Budgets(100)


@pytest.mark.parametrize(
    ("of", "words"),
    [
        (wanted(latency="20ms"), "budget.latency: the plan does not say"),
        (wanted(replica={"threads": 1}, usdPerThousandRequests="1"), "budget.usdPerThousandRequests: the plan does not say"),
        (wanted(device={"memory": "4Gi"}), "budget.device: the plan does not say"),
        (wanted(None, {"threads": 1}, latency="20ms"), "has an engine for task text-classification alone"),
    ],
)  # fmt: skip
def test_a_plan_that_lacks_what_a_bound_asks_is_refused(of: CompressPlan, words: str) -> None:
    assert any(words in str(issue) for issue in checks.plan_issues(of))


def test_a_replica_is_part_of_what_a_plan_is() -> None:
    one, other = (wanted(replica={"threads": count}, latency="20ms") for count in (1, 2))
    assert one.key() != other.key()
    assert "replica" not in wanted(sizeRatio="0.5").to_json()
    assert not checks.plan_issues(one)


def test_without_bytes_a_lean_model_may_weigh_what_the_large_one_does() -> None:
    of = wanted(replica={"threads": 1}, latency="20ms")
    assert planning.budget_of(planning.search_of(of), 123) == 123


# ------------------------------------------------------------------------------- device


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 64), st.booleans(), st.sampled_from(["Auto", "Float32", "BFloat16"]))
def test_whatever_is_proposed_for_a_device_fits_it(sixteenths: int, encoder: bool, dtype: str) -> None:
    of = device(f"{sixteenths * 64}Mi", TASK if encoder else None, kv=2**26, dtype=dtype)
    shape = BERT if encoder else SMOL
    found, all_ = (
        proposed(shape, of),
        proposed(shape, plan(TASK if encoder else None, budget={"sizeRatio": "1"})),
    )
    room = sixteenths * 2**26
    assert all(one.memory is not None and one.memory <= room for one in found.candidates)
    assert found.considered <= all_.considered and found.over + len(found.candidates) <= found.considered
    engine = ENGINE_BYTES["ONNXRuntime" if encoder else "vLLM"]
    assert all((one.memory or 0) > engine + one.bytes / 2 for one in found.candidates)
    if not found.candidates:
        (issue,) = planning.issues(found, 10**12)
        assert (
            issue.field == "spec.lean.search.budget.device.memory"
            and "a replica of the smallest of" in str(issue)
        )


def test_more_room_takes_no_recipe_away() -> None:
    small, large = (
        {one.name for one in proposed(SMOL, device(memory)).candidates if one} for memory in ("2600Mi", "8Gi")
    )
    every = {one.name for one in proposed(SMOL, device("2600Mi")).candidates}
    assert small == every and small and len(small) <= len(large)


def test_precision_decides_what_a_decoder_takes() -> None:
    chain = planning.chain_of(plan(), SMOL, lambda name: TEXTS, "", ())
    steps = {
        one.name: one.steps
        for one in proposed(SMOL, plan(maxCandidates=100, budget={"sizeRatio": "1"})).candidates
    }

    def taken(name: str, dtype: Any) -> int:
        return Device(8 * GIB, 0, dtype, 1024).replica(chain(steps[name]))

    half = SMOL.layers // 2
    assert taken(f"depth-{half}", "Float32") - taken(f"depth-{half}", "BFloat16") == pytest.approx(VLLM_HELD * 2 * (SMOL.parameters + SMOL.embedding_parameters) / 2, rel=0.02)  # fmt: skip
    assert taken(f"depth-{half}", "Auto") == taken(f"depth-{half}", "Float32")
    assert taken("w8a8", "Float32") < taken("neurons-0.25", "Float32")
    assert taken("w4a16", "Auto") == taken("w4a16", "BFloat16") < taken("w8a8", "BFloat16")


def test_packed_weights_are_not_proposed_where_the_processor_is_to_compute_in_float32() -> None:
    names = {
        dtype: {one.name for one in proposed(SMOL, plan_of(dtype)).candidates}
        for dtype in ("Auto", "Float32")
    }
    assert "w4a16" in names["Auto"] and not any("w4a16" in name for name in names["Float32"])


def plan_of(dtype: str) -> CompressPlan:
    of = device("8Gi", dtype=dtype)
    search = planning.search_of(of).model_copy(update={"max_candidates": 100})
    return of.model_copy(update={"search": search})


def test_longer_texts_take_more_and_a_linear_model_hardly_any() -> None:
    assert onnx_work(384, 1536, 12, 512) > 1.9 * onnx_work(384, 1536, 12, 200)
    found = {one.name: one.memory for one in proposed(BERT, device("4Gi", TASK)).candidates}
    assert found["linear"] is not None and found["linear"] < 250e6
    assert found["int8"] is not None and found["linear"] < found["int8"]
    assert LABELS.train


# ------------------------------------------------------------------------------- telling


def candidate(name: str, size: int = 100) -> Candidate:
    return Candidate(name, (), size, trains=True)


def made(size: int) -> CompressResult:
    return CompressResult(name="a", role="Lean", plan="0" * 16, artifact="sha256:" + "0" * 64, bytes=size)


def course(ends: list[End], nearest: int | None = None) -> Course:
    return Course(None, ends, [0] * len(ends), nearest)


BOUNDS = Budgets(1000, latency_ms=20, usd_per_hour=0.36, threads=1, served_threads=2)


def test_where_all_are_too_slow_the_nearest_is_named() -> None:
    seen = {
        at: Seen(made(100), fast(latency), note=BOUNDS.speed_note(fast(latency)))
        for at, latency in enumerate((90.0, 31.0))
    }
    who = [candidate("big"), candidate("small")]
    issue = none_passes(who, seen, course(["OverBudget", "OverBudget"]), about(0.9), 0.97, BOUNDS)
    assert issue.field == "spec.lean.search.budget" and "2 are above it as measured" in str(issue)
    assert (
        "the nearest, small: 31 ms a request at the 95th percentile, above the budget of 20 ms; raise it"
        in str(issue)
    )


def test_where_one_fails_and_one_is_too_slow_both_are_told() -> None:
    seen = {
        0: Seen(made(100), fast(1), about(0.8), about(0.88)),
        1: Seen(made(900), fast(31), note=BOUNDS.speed_note(fast(31))),
    }
    who = [candidate("good"), candidate("slow")]
    issue = str(none_passes(who, seen, course(["Failed", "OverBudget"], 0), about(0.9), 0.97, BOUNDS))
    assert (
        "the nearest, good, keeps 0.8800" in issue
        and "1 is above it as measured, the nearest, slow: 31 ms" in issue
    )


def test_the_frontier_carries_what_was_measured_and_nothing_else() -> None:
    seen = Seen(made(100), fast(31, 100), note="31 ms")
    line = tried(candidate("slow"), seen, course(["OverBudget"]), 0, BOUNDS)
    assert (
        line.outcome == "OverBudget"
        and line.latency_ms == about(31)
        and line.quality is None
        and line.rung == 1
    )
    assert (
        line.usd_per_thousand_requests is not None
        and line.usd_per_thousand_requests.value == pytest.approx(0.001)
    )
    assert Tried.model_validate_json(line.to_json()) == line
    bare = tried(candidate("plain"), Seen(), course(["Dearer"]), 0, Budgets(1000)).to_json()
    assert not any(name in bare for name in ("latencyMs", "requestsPerSecond", "usdPer", "memoryBytes"))
