"""How the lean model was found: the frontier of the search, and where its quality went."""

from __future__ import annotations

from leanmodel_api.base import digits
from leanmodel_api.figure import Estimate
from leanmodel_api.search import SearchFound, Tried

from .html import Content, Raw, join, table, tag
from .svg import Chart, Mark
from .words import interval, megabytes, percent, quality

STYLES = {"Chosen": "lean", "Passed": "pair"}


def search(found: SearchFound | None) -> Raw:
    """Return what was tried, what it kept and what it took; nothing where the steps were given."""
    if found is None:
        return Raw("")
    bound = "the lower end of its interval" if found.use == "Bound" else "its estimate"
    words = (
        f"The smallest recipe within {megabytes(found.budget_bytes)} ({percent(found.budget_bytes / found.large_bytes)} of the "
        f"large model's {megabytes(found.large_bytes)}){_bounds(found)} that keeps {percent(found.retain)} of its {found.metric}, by {bound}, on "
        f"{found.rows} rows of the validation part of {found.data_set}, where the large model has {quality(found.large.value)} "
        f"({interval(found.large, quality)}). {found.proposed} recipes suit the model, {found.over_budget} of them are above the "
        f"budget, {len(found.frontier)} were candidates. The proof above is on other rows, and on the engine."
    )
    return join(
        tag("h2", "Search: how it was found"),
        tag("p", words),
        _conditions(found),
        tag("figure", Raw(frontier_chart(found))),
        _frontier(found),
        _steps(found),
        _layers(found),
    )


def _bounds(found: SearchFound) -> str:
    """Return the bounds beside bytes, in words."""
    budget = found.budget
    words = []
    if budget.latency is not None:
        words.append(f"{budget.latency} a request")
    if budget.usd_per_thousand_requests is not None:
        words.append(f"{budget.usd_per_thousand_requests} USD for 1,000 requests")
    if budget.device is not None:
        words.append(f"a machine without GPU with {budget.device.memory} for a replica")
    return "".join(f", within {one}" for one in words)


def _conditions(found: SearchFound) -> Raw:
    """Return how requests were timed; nothing where they were not."""
    if found.threads is None:
        return Raw("")
    words = (
        f"Requests were timed in ONNX Runtime with {_threads(found.threads)}, on texts of the validation part, from the text to "
        "its logits, without HTTP and router: a request alone at the 95th percentile, and full batches, which the "
        "dollars follow from."
    )
    if found.served_threads is not None and found.served_threads > found.threads:
        words += (
            f" A replica will have {_threads(found.served_threads)}: the Job had fewer (spec.jobs.compress.cpu), so the "
            "figures err on the slow side."
        )
    return tag("p", words)


def _threads(count: int) -> str:
    return f"{count} thread" + ("" if count == 1 else "s")


def _frontier(found: SearchFound) -> Raw:
    timed = found.threads is not None
    priced = any(one.usd_per_thousand_requests is not None for one in found.frontier)
    noted = any(one.note for one in found.frontier)
    placed = any(one.memory_bytes is not None for one in found.frontier)
    rows: list[list[Content]] = [
        [
            one.name, one.outcome, megabytes(one.bytes or one.estimated_bytes),
            *([_measured(one.latency_ms), _measured(one.requests_per_second)] if timed else []),
            *([_measured(one.usd_per_thousand_requests)] if priced else []),
            *(["–" if one.memory_bytes is None else megabytes(one.memory_bytes)] if placed else []),
            f"{one.rung} of 3" if one.rung else "–",
            one.trained or "–", "–" if one.quality is None else f"{quality(one.quality.value)} ({interval(one.quality, quality)})",
            "–" if one.retained is None else percent(one.retained.value), f"{one.seconds:,.0f} s",
            *([one.note] if noted else []),
        ]
        for one in found.frontier
    ]  # fmt: skip
    head: list[str] = [
        "Candidate", "Outcome", "Size", *(["Request, ms", "Requests/s"] if timed else []),
        *(["USD for 1,000"] if priced else []), *(["Memory of a replica"] if placed else []),
        "Rung", "Trained", found.metric, "Kept", "Time", *(["Note"] if noted else []),
    ]  # fmt: skip
    caption = (
        "From the fewest bytes to the most. A candidate that was stopped, or is dearer than one that passes, was not trained "
        "to the end: its quality is that of its last rung. What is above a budget as made or measured (OverBudget) was not "
        "judged. A step that several share counts for the first of them."
    )
    return table(caption, head, rows, frozenset(range(2, len(head) - noted)))


def _measured(found: Estimate | None) -> str:
    """Return a figure with its interval, three digits that count; a dash where nothing was measured."""
    return "–" if found is None else f"{digits(found.value)} ({interval(found, digits)})"


def frontier_chart(found: SearchFound) -> str:
    """Return bytes against what is kept, of every candidate that was measured; empty with fewer than two."""
    seen = [one for one in found.frontier if one.retained is not None]
    if len(seen) < 2:
        return ""
    return Chart(
        title="Candidates of the search",
        description="Each point is a candidate at the last rung that it was measured on.",
        x_label="megabytes as stored for serving",
        y_label="share of the large model's quality (validation part)",
        x_format=lambda value: f"{value:g}",
        y_format=percent,
        marks=[_mark(one) for one in seen],
        level=(found.retain, f"promise: {percent(found.retain)}"),
    ).svg()


def _mark(one: Tried) -> Mark:
    assert one.retained is not None
    size = one.bytes or one.estimated_bytes
    label = one.name if one.outcome == "Chosen" else ""
    return Mark(
        size / 1e6, one.retained.value, label, STYLES.get(one.outcome, "other"),
        tip=f"{one.name}: {megabytes(size)}, keeps {percent(one.retained.value)}, {one.outcome.lower()}",
    )  # fmt: skip


def _steps(found: SearchFound) -> Raw:
    rows: list[list[Content]] = [
        [step.type, step.detail, f"{quality(step.before.value)} ({interval(step.before, quality)})",
         f"{quality(step.after.value)} ({interval(step.after, quality)})"]
        for step in found.sensitivity.steps
    ]  # fmt: skip
    if not rows:
        return Raw("")
    return table(
        f"{found.metric} before and after each step of {found.chosen}.",
        ["Step", "Settings", "Before", "After"],
        rows,
        frozenset({2, 3}),
    )


def _layers(found: SearchFound) -> Raw:
    told = found.sensitivity
    if not told.layers:
        return Raw("")
    rows: list[list[Content]] = [
        [str(one.layer), f"{one.loss:.4f}", f"{one.rise:+.4f}"]
        for one in sorted(told.layers, key=lambda one: -one.rise)
    ]
    caption = (
        f"Loss per answer token on {told.layer_rows} validation rows with one layer alone in {told.scheme}, rounded to nearest; "
        "the layer that minds most first. What minds much can be left out by the step's ignore."
    )
    return table(caption, ["Layer", "Loss", "Rise"], rows, frozenset({1, 2}))
