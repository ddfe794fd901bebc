"""The report's charts: from figures to marks on axes."""

from __future__ import annotations

from collections.abc import Sequence

from leanmodel_api.plan import StepFigure
from leanmodel_api.report import ModelFigures, ProveReport
from leanmodel_api.routing_policy import RoutingEvaluation

from .svg import Chart, Mark, Row, forest
from .words import megabytes, percent, quality, usd

STYLES = {"large": "large", "lean": "lean", "pair": "pair"}
PREFERRED = ("validationAccuracy", "validationLoss")


def models_chart(report: ProveReport) -> str:
    """Return every model's headline figure with its interval, report and test part under each other."""
    rows, metric = [], report.metric
    for models in _by_name(report.models):
        for model in models:
            figure = model.figures.get(metric)
            if figure is not None:
                label = model.name if model.part == "report" else f"{model.name} (test)"
                rows.append(Row(label, figure.value, figure.low, figure.high, STYLES.get(model.name, "other"),
                                hollow=model.part != "report"))  # fmt: skip
    if not rows:
        return ""
    main = [row.low for row in rows if row.style != "other"] or [row.low for row in rows]
    low = min(main) - 0.25 * (max(row.high for row in rows) - min(main))
    return forest(
        f"{metric} of each model", "Estimates with 95% intervals; hollow points are the test part, and an arrow "
        "stands for a value left of the axis.", rows, low, quality,
    )  # fmt: skip


def _by_name(models: Sequence[ModelFigures]) -> list[list[ModelFigures]]:
    names = list(dict.fromkeys(model.name for model in models))
    return [[model for model in models if model.name == name] for name in names]


def curve_chart(report: ProveReport) -> str:
    """Return quality against cost (or share of large calls) over thresholds, with the chosen point."""
    evaluation = report.evaluation
    points = evaluation.curve or report.policy.curve
    by_cost = evaluation.cost is not None and all(point.cost is not None for point in points)
    base = evaluation.baselines

    def x(item: object) -> float:
        value = getattr(item, "cost", None) if by_cost else getattr(item, "large_share", 0.0)
        return float(value or 0.0) * (1000 if by_cost else 1)

    def at(item: object) -> tuple[float, float]:
        return x(item), float(getattr(item, "quality", 0.0))

    marks = [
        Mark(*at(base.always_lean), "always lean", "lean", "square", tip=f"always lean: {quality(base.always_lean.quality)}"),
        Mark(*at(base.always_large), "always large", "large", "square", tip=f"always large: {quality(base.always_large.quality)}"),
        Mark(*at(base.random), "random", "other", "ring",
             tip=f"the large model by lot at the same share: {quality(base.random.quality)}"),
        Mark(*at(base.oracle), "oracle", "other", "ring",
             tip=f"the large model exactly where it is better: {quality(base.oracle.quality)}"),
        Mark(x(evaluation), evaluation.quality, f"chosen ({percent(evaluation.large_share)} large)", "pair", "diamond",
             tip=f"chosen: {quality(evaluation.quality)} with {percent(evaluation.large_share)} answered by the large model"),
    ]  # fmt: skip
    second = evaluation.under_pressure if isinstance(evaluation, RoutingEvaluation) else None
    if second is not None:
        marks.append(
            Mark(*at(second), f"under pressure ({percent(second.large_share)} large)", "pair", "ring",
                 tip=f"under pressure: {quality(second.quality)} with {percent(second.large_share)} answered by the large model")
        )  # fmt: skip
    retain = report.policy.certificate.retain
    ordered = sorted(points, key=lambda point: point.large_share)
    lines = [([at(base.always_lean), at(base.always_large)], "other dashed")]
    if ordered:
        lines.insert(0, ([at(point) for point in ordered], "pair"))
    return Chart(
        title="Quality against cost",
        description="The line is the cascade at every threshold, the dashed line the large model by lot; the diamond "
        "is the chosen point, a ring beside it the one under pressure.",
        x_label="US dollars per 1,000 requests"
        if by_cost
        else "share of requests that the large model answers",
        y_label=report.policy.scope.metric,
        x_format=usd if by_cost else percent,
        y_format=quality,
        marks=marks,
        lines=[(list(points), style) for points, style in lines],
        level=(retain * base.always_large.quality, f"promise: {percent(retain)} of the large model's"),
    ).svg()


def step_figure(steps: Sequence[StepFigure]) -> str | None:
    """Return the figure of quality that at least two steps have, an accuracy before a loss; None without one."""
    names = [name for step in steps for name in step.figures]
    return next((name for name in PREFERRED if names.count(name) >= 2), None)


def steps_chart(report: ProveReport) -> str:
    """Return size against quality after each step, on the figure that the steps have in common."""
    name = step_figure(report.steps)
    marks = [
        Mark(step.bytes / 1e6, step.figures[name], step.type, "large" if step.type in ("Fetch", "Finetune") else "lean",
             tip=f"{step.type} {step.detail}: {megabytes(step.bytes)}, {name} {step.figures[name]:.4g}")
        for step in report.steps
        if name is not None and name in step.figures and step.bytes
    ]  # fmt: skip
    if len(marks) < 2:
        return ""
    return Chart(
        title="Size against quality, step by step",
        description="Each point is what a compression step made; the line follows the order of the steps.",
        x_label="megabytes as stored for serving",
        y_label=f"{name} (validation part)",
        x_format=lambda value: f"{value:g}",
        y_format=lambda value: f"{value:.4g}",
        marks=marks,
        lines=[([(mark.x, mark.y) for mark in marks], "other dashed")],
    ).svg()
