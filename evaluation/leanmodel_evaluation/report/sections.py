"""The sections of the report's page, in the order in which they are read."""

from __future__ import annotations

from leanmodel_api.report import Estimate, ModelFigures, ProveReport

from ..verdict import sentence
from .groups import groups
from .html import Content, Raw, definitions, join, table, tag
from .plots import curve_chart, models_chart, steps_chart
from .second import level, second_promise, under_pressure
from .words import interval, megabytes, percent, quality, rule_words, times, usd

VERDICTS = {
    "Routed": ("good", "Routed: both models answer"),
    "LeanTakesAll": ("good", "Lean takes all"),
    "LargeOnly": ("warn", "Large only: the lean model is not used"),
    "GateFailed": ("bad", "Gate failed: the lean model gets no traffic"),
}
# Of a step's figures those that say how good the model is; sensitivities and memory have places of their own.
CHECKS = ("validationAccuracy", "validationLoss", "validationPerplexity", "trainLoss")
LOWER_IS_BETTER = frozenset({"Perplexity", "InvalidAnswers"})


def headline(report: ProveReport) -> Raw:
    """Return name, verdict, reason and the figures that decide."""
    css, words = VERDICTS[report.verdict]
    return tag(
        "header",
        tag("h1", f"Proof of {report.name}"),
        tag("p", f"{report.lean.name} held against {report.large.name} · {report.created}", css="soft small"),
        tag("p", tag("span", words, css=f"badge {css}")),
        tag("p", report.reason, css="reason"),
        _tiles(report),
    )


def _tiles(report: ProveReport) -> Raw:
    large_share = report.evaluation.large_share
    tiles = [
        _tile(percent(report.size_ratio.value), "of the large model's bytes",
              f"{megabytes(report.lean.bytes)} against {megabytes(report.large.bytes)}"),
        _tile(times(report.throughput_ratio.value), "its requests per second", interval(report.throughput_ratio, times)),
        _tile(percent(report.quality_retained.value), f"of its {report.metric}, by the pair",
              interval(report.quality_retained, percent)),
        _tile(percent(report.lean_quality_retained.value), f"of its {report.metric}, by the lean model alone",
              interval(report.lean_quality_retained, percent)),
        _tile(percent(large_share), "of requests go on to the large model", f"on {report.evaluation.n} records of the report part"),
    ]  # fmt: skip
    if report.saving is not None:
        tiles.append(
            _tile(percent(report.saving.value), "of the cost avoided", interval(report.saving, percent))
        )
    return tag("div", *tiles, css="tiles")


def _tile(value: str, words: str, note: str) -> Raw:
    return tag("div", tag("b", value), tag("span", words), tag("span", note), css="tile")


def warnings(report: ProveReport) -> Raw:
    """Return what a reader must know before trusting the figures."""
    return join(*(tag("p", words, css="warning") for words in report.environment.get("warnings", [])))


def gates(report: ProveReport) -> Raw:
    """Return the gates with what was found."""
    if not report.gates:
        return join(
            tag("h2", "Gates"),
            tag("p", "The manifest has no gates: the lean model is held to the promise alone."),
        )
    rows: list[list[Content]] = [
        [gate.metric, gate.bound, f"{gate.found:.4g}", gate.used,
         tag("span", "passed" if gate.passed else "failed", css="yes" if gate.passed else "no"), gate.message]
        for gate in report.gates
    ]  # fmt: skip
    caption = "Measured on the report part. Estimate: the figure itself is held; Bound: the unfavourable end of its interval."
    return join(
        tag("h2", "Gates"),
        table(caption, ["Gate", "Bound", "Found", "Held", "Result", "In words"], rows, frozenset({2})),
    )


def models(report: ProveReport) -> Raw:
    """Return all models and baselines on the report and the test part."""
    parts = []
    for part in ("report", "test"):
        listed = [model for model in report.models if model.part == part]
        if listed:
            parts.append(_figures_table(report, part, listed))
    absolute = next(
        (model for model in report.models if model.name == "large" and model.part == "report"), None
    )
    lead = tag("p")
    if absolute is not None and report.metric in absolute.figures:
        found = absolute.figures[report.metric]
        lead = tag("p", f"The large model itself reaches {quality(found.value)} {report.metric} "
                        f"({interval(found, quality)}): the promise is a share of that.")  # fmt: skip
    return join(tag("h2", "Quality"), lead, tag("figure", Raw(models_chart(report))), *parts)


def _figures_table(report: ProveReport, part: str, models: list[ModelFigures]) -> Raw:
    names = list(dict.fromkeys(name for model in models for name in model.figures))
    if "ChoiceAccuracy" in names and report.metric != "ExactMatch":
        names = [name for name in names if name != "ExactMatch"]  # over choices it says nearly the same
    names.sort(key=lambda name: name != report.metric)
    rows: list[list[Content]] = []
    for model in models:
        cells: list[Content] = [model.name, "" if model.large_share is None else percent(model.large_share)]
        rows.append([*cells, *(_figure(model.figures.get(name)) for name in names)])
    caption = {
        "report": f"Report part, {report.parts.get('report', 0)} records: gates and the figures above come from it.",
        "test": f"Test part, {report.parts.get('test', 0)} records: nothing was decided on it.",
    }[part]
    if part == "test" and report.promise_held_on_test is not None:
        caption += f" The pair {'kept' if report.promise_held_on_test else 'did not keep'} the promise here."
    head = ["Model", "Large share", *(f"{name} ↓" if name in LOWER_IS_BETTER else name for name in names)]
    return table(f"{caption} 95% intervals.", head, rows, frozenset(range(1, len(head))))


def _figure(figure: Estimate | None) -> Content:
    return "–" if figure is None else join(quality(figure.value), tag("small", interval(figure, quality)))


def certificate(report: ProveReport) -> Raw:
    """Return the curve with the chosen point, and what its certificate says in words."""
    found, evaluation = report.policy.certificate, report.evaluation
    words = [
        tag("p", sentence(found.message)),
        tag("p", f"In words: on requests like these, the mean {report.policy.scope.metric} of what is answered is at "
                 f"least {percent(found.retain)} of the large model's; this statement is wrong with a chance of at most "
                 f"{percent(1 - found.confidence)}. It speaks of the mean, not of each answer.")
        if found.certified
        else tag("p", f"No certificate of {percent(found.retain)} was given, so the large model keeps answering."),
    ]  # fmt: skip
    pairs: list[tuple[str, Content]] = [
        ("Method", f"{found.method}, {found.tested} of {found.steps} thresholds tested from the large model downward"),
        ("p-value", f"{found.p_value:.3g}, held against {level(report.policy):.3g} (look {found.looks} at "
                    "this certify part)"),
        ("Records", f"fit {found.parts.fit}, certify {found.parts.certify}, report {found.parts.report}"),
        *rule_words(report.policy),
    ]  # fmt: skip
    if found.needed:
        pairs.append(("More records needed", f"about {found.needed} in the certify part"))
    bound = evaluation.label_free
    if bound is not None:
        pairs.append(("Without labels", f"accepted and different from the large answer: {percent(bound.estimate)}, at most "
                      f"{percent(bound.upper)}; production needs about {bound.shadow_accepted} accepted requests shadowed "
                      "to the large model to see a change of 3 points"))  # fmt: skip
    for key, words_of in (
        ("cpt50", "Large share for half of the gap"),
        ("cpt80", "Large share for 80% of the gap"),
    ):
        value = getattr(evaluation, key)
        pairs.append(
            (words_of, percent(value) if value is not None else evaluation.reasons.get(key, "not defined"))
        )
    if evaluation.apgr is not None:
        pairs.append(("Mean gap recovered (APGR)", f"{evaluation.apgr:.3f} (0.5 is the lot)"))
    return join(
        tag("h2", "Quality, cost and the certificate"), tag("figure", Raw(curve_chart(report))), *words,
        definitions(pairs), second_promise(report), _baselines(report),
    )  # fmt: skip


def _baselines(report: ProveReport) -> Raw:
    evaluation = report.evaluation
    base = evaluation.baselines
    found = [
        ("chosen", evaluation.large_share, evaluation.quality, evaluation.cost),
        *under_pressure(evaluation),
        *((name.replace("_", " "), item.large_share, item.quality, item.cost)
          for name, item in (("always_lean", base.always_lean), ("always_large", base.always_large),
                             ("random, same share", base.random), ("oracle", base.oracle))),
    ]  # fmt: skip
    rows: list[list[Content]] = [
        [name, percent(share), quality(value), "–" if cost is None else usd(cost * 1000)]
        for name, share, value, cost in found
    ]
    caption = f"Ways to route, on {evaluation.n} records of the report part, by {report.policy.scope.metric}."
    return join(
        table(caption, ["Rule", "Large share", "Quality", "USD per 1,000"], rows, frozenset({1, 2, 3})),
        groups(report),
    )


def speed(report: ProveReport) -> Raw:
    """Return both models' speed on the engine."""
    rows: list[list[Content]] = []
    for name, found in report.speed.items():
        rate = found.requests_per_second
        rows.append([
            name, join(f"{rate.value:.2f}", tag("small", interval(rate, lambda value: f"{value:.2f}"))),
            f"{found.tokens_per_second:.1f}", f"{found.p50_ms:.0f}", f"{found.p99_ms:.0f}",
            "–" if found.memory_bytes is None else megabytes(found.memory_bytes),
        ])  # fmt: skip
    told = report.environment
    caption = (
        f"One run on the engine, {told.get('speedBlocks', '?')} pairs of alternating blocks with the same prompts, "
        f"{told.get('concurrency', '?')} requests at once; the ratio's interval resamples the pairs."
    )
    ratio = report.throughput_ratio
    head = ["Model", "Requests/s", "Tokens/s", "p50 ms", "p99 ms", "Memory"]
    return join(
        tag("h2", "Speed"),
        tag("p", f"Lean by large: {times(ratio.value)} ({interval(ratio, times)})."),
        table(caption, head, rows, frozenset(range(1, 6))),
    )


def steps(report: ProveReport) -> Raw:
    """Return what each compression step made of the model."""
    if not report.steps:
        return join(tag("h2", "Steps"), tag("p", "The lean model was brought along: no steps made it."))
    rows: list[list[Content]] = []
    for step in report.steps:
        checks = (
            ", ".join(f"{name} {step.figures[name]:.4g}" for name in CHECKS if name in step.figures) or "–"
        )
        rows.append([
            step.type, step.detail, megabytes(step.bytes), f"{step.parameters / 1e6:,.1f} M", str(step.modules_changed),
            f"{step.seconds:,.0f} s{' (from the store)' if step.cached else ''}",
            megabytes(step.peak_memory_bytes) if step.peak_memory_bytes else "–", checks,
        ])  # fmt: skip
    head = ["Step", "Settings", "Size", "Parameters", "Modules changed", "Time", "Peak memory", "Checks"]
    caption = "In order; sizes as stored for serving. Checks come from the validation part: cheap, and not the proof."
    return join(tag("h2", "Steps: size against quality"), tag("figure", Raw(steps_chart(report))),
                table(caption, head, rows, frozenset({2, 3, 4, 5, 6})))  # fmt: skip


def examples(report: ProveReport) -> Raw:
    """Return prompts on which the two models differ."""
    title = tag("h2", "Where the two models differ")
    if not report.examples:
        return join(title, tag("p", "On the report part they gave the same answers."))
    rows: list[list[Content]] = [
        [tag("span", item.prompt), "–" if item.wanted is None else item.wanted, item.large, item.lean,
         "–" if item.confidence is None else f"{item.confidence:.3f}", item.route]
        for item in report.examples
    ]  # fmt: skip
    told = report.environment
    caption = (
        f"{len(rows)} of {told.get('different', len(rows))} records of the report part, the harmful ones first. "
        "Confidence is the router's in the lean answer; route is who answers."
    )
    head = ["Prompt", "Wanted", "Large", "Lean", "Confidence", "Route"]
    body = table(caption, head, rows, frozenset({4}))
    return join(
        title, Raw(body.html.replace('<th scope="row"><span>', '<th scope="row" class="prompt"><span>'))
    )


def environment(report: ProveReport) -> Raw:
    """Return what the figures hold for."""
    scope, told = report.policy.scope, report.environment
    pairs: list[tuple[str, Content]] = [
        ("Engine", str(told.get("engine", ""))),
        ("Machine", str(told.get("machine", ""))),
        (
            "Sampling",
            f"temperature {scope.temperature:g}, at most {scope.max_tokens} tokens"
            if scope.temperature is not None
            else "–",
        ),
        ("Concurrency", str(scope.concurrency)),
        ("Endpoint", str(scope.endpoint)),
        ("Decision on", scope.decision.replace("-", " ")),
        ("Metric", f"{report.metric} (promised: {scope.metric}, {scope.aggregate})"),
        (
            "Data",
            f"{told.get('dataSet', '')}, {told.get('duplicatesRemoved', 0)} duplicates removed before splitting",
        ),
        ("Parts", ", ".join(f"{name} {count}" for name, count in report.parts.items())),
        ("Data digest", tag("code", scope.data_digest or "–")),
        ("Large model", join(report.large.name, " ", tag("code", report.large.artifact))),
        ("Lean model", join(report.lean.name, " ", tag("code", report.lean.artifact))),
        ("Policy", tag("code", report.policy.digest)),
    ]
    if told.get("baseline"):
        pairs.append(("Baseline", str(told["baseline"])))
    return join(tag("h2", "What it holds for"), definitions(pairs))


def guide(report: ProveReport) -> Raw:
    """Return how to read the page."""
    points = [
        "The promise is about the mean of a metric on requests like those of the data set, not about each answer; "
        "requests outside of what the certificate holds for go to the large model.",
        "Fit chose the router's rule, certify tested it, report gave the figures and gates, and test decided nothing. "
        "Training saw only train and validation.",
        "Intervals are 95%. Where two intervals overlap much, do not read an order into the estimates.",
        "A lean model is worth serving only when it is better than the simple baselines: the commonest answer, and "
        "TF-IDF with logistic regression.",
        "Sizes are of the weights as stored for serving. Saving is the cost that routing avoids; money is saved only "
        "when the large model's replicas shrink with its load.",
        "The oracle knows the right answers and cannot be built; it shows how much a better router could still win.",
    ]
    return join(tag("h2", "How to read this"), tag("ul", *(tag("li", point) for point in points)))
