"""The report's section of a search: every candidate with how it ended, and where the quality went."""

from __future__ import annotations

from leanmodel_api.figure import Estimate
from leanmodel_api.search import LayerEffect, SearchBudget, SearchFound, Sensitivity, StepEffect, Tried
from leanmodel_api.steps import Linear
from leanmodel_evaluation.report.search import frontier_chart, search


def about(value: float) -> Estimate:
    return Estimate(value=value, low=value - 0.05, high=value + 0.02, n=300)


def tried(name: str, size: int, outcome: str, kept: float | None) -> Tried:
    measured = (
        {
            "quality": about(kept * 0.9),
            "retained": about(kept),
            "rung": 2,
            "trained": "1/4",
            "bytes": size + 1,
        }
        if kept
        else {}
    )
    return Tried.model_validate(
        {
            "name": name,
            "steps": [Linear(type="Linear")],
            "estimated_bytes": size,
            "outcome": outcome,
            **measured,
        }
    )


FOUND = SearchFound(
    data_set="sms",
    metric="BalancedAccuracy",
    rows=300,
    budget_bytes=60_000_000,
    retain=0.97,
    use="Bound",
    large_bytes=100_000_000,
    large=about(0.9),
    chosen="depth-3-int8",
    proposed=19,
    over_budget=9,
    frontier=[
        tried("<b>linear", 400_000, "Failed", 0.91),
        tried("depth-3-int8", 20_000_000, "Chosen", 0.98),
        tried("depth-4-int8", 30_000_000, "Dearer", None),
    ],
    sensitivity=Sensitivity(
        steps=[StepEffect(type="Prune", detail="keepLayers 3", before=about(0.9), after=about(0.4))],
        layers=[LayerEffect(layer=0, loss=0.11, rise=0.01), LayerEffect(layer=7, loss=0.3, rise=0.2)],
        layer_rows=32,
        scheme="W8A8",
    ),
)


def test_the_section_tells_every_candidate_and_what_was_looked_for() -> None:
    page = search(FOUND).html
    for words in (
        "60.0 MB (60% of the large model", "keeps 97% of its BalancedAccuracy, by the lower end of its interval, on 300 rows",
        "&lt;b&gt;linear", "Failed", "depth-3-int8", "Chosen", "98%", "2 of 3", "1/4", "depth-4-int8", "Dearer", "30.0 MB",
        "keepLayers 3", "0.400 (0.350 to 0.420)", "alone in W8A8", "+0.2000",
    ):  # fmt: skip
        assert words in page, words
    assert "<b>linear" not in page
    # The layer that minds most stands first.
    assert page.index("+0.2000") < page.index("+0.0100")


def test_what_was_timed_stands_beside_the_bytes_with_how_it_was_timed() -> None:
    note = "31 ms a request at the 95th percentile, above the budget of 20 ms"
    timed = FOUND.frontier[1].model_copy(
        update={
            "latency_ms": Estimate(value=12.34, low=11.04, high=15.55, n=128),
            "requests_per_second": Estimate(value=412.3, low=400.1, high=425, n=3),
            "usd_per_thousand_requests": Estimate(value=0.000336, low=0.0003, high=0.0004, n=3),
            "memory_bytes": 512_000_000,
        }
    )
    slow = FOUND.frontier[2].model_copy(update={"outcome": "OverBudget", "note": note})
    budget = {"latency": "20ms", "usdPerThousandRequests": "0.001", "device": {"memory": "1Gi"}}
    asked = {
        "frontier": [timed, slow],
        "budget": SearchBudget.model_validate(budget),
        "threads": 1,
        "served_threads": 4,
    }
    page = search(FOUND.model_copy(update=asked)).html
    for words in (
        "within 20ms a request, within 0.001 USD for 1,000 requests, within a machine without GPU with 1Gi for a replica",
        "with 1 thread,", "A replica will have 4 threads: the Job had fewer (spec.jobs.compress.cpu)",
        "12.3 (11 to 15.6)", "412 (400 to 425)", "0.000336 (0.0003 to 0.0004)", "512.0 MB", "OverBudget", note,
    ):  # fmt: skip
        assert words in page, words
    plain = search(FOUND).html
    assert not any(words in plain for words in ("Request, ms", "Note", "Memory of a replica", "thread"))


def test_without_a_search_there_is_no_section_and_one_point_makes_no_chart() -> None:
    assert search(None).html == ""
    assert frontier_chart(FOUND).startswith("<svg")
    assert frontier_chart(FOUND.model_copy(update={"frontier": FOUND.frontier[1:]})) == ""
