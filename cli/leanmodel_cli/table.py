"""Tables for people: the status, and what was won."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leanmodel_api.report import Estimate, ModelFigures, ProveReport
from leanmodel_api.routing_policy import RoutingPolicy, SecondPoint


def columns(rows: Sequence[Sequence[str]], indent: str = "  ") -> list[str]:
    """Return rows as lines with aligned columns."""
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows), default=0))]
    return [
        indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in rows
    ]


def stated(share: float) -> str:
    """Return a share that a person wrote, in per cent: no digit of it is rounded away."""
    return f"{100 * share:.6g}%"


def _interval(estimate: Estimate, form: str = ".4f") -> str:
    return f"{estimate.value:{form}} ({estimate.low:{form}} to {estimate.high:{form}})"


def size(count: int) -> str:
    """Return bytes as megabytes."""
    return f"{count / 1e6:.1f} MB"


def second_lines(second: SecondPoint, used: bool) -> list[str]:
    """Return the second promise for people."""
    found = second.certificate
    state = "certified" if found.certified else "not certified"
    lines = [
        f"under pressure: at least {stated(found.retain)} of the large model's mean quality, with confidence "
        f"{stated(found.confidence)} for both promises together: {state} ({found.method}, p={found.p_value:.3g})",
        f"  {found.message}",
    ]
    if used:
        lines.append(f"  on the report part {second.expected_large_share:.1%} go to the large model")
    return lines


def report_lines(report: ProveReport) -> list[str]:
    """Return the proof as a table: the verdict, what was won, the models and the baselines, the gates."""
    certificate = report.evaluation.certificate
    won = [
        ["size as stored", f"{size(report.lean.bytes)} against {size(report.large.bytes)}", f"{report.size_ratio.value:.1%}"],
        ["requests a second", f"{report.speed['lean'].requests_per_second.value:.1f} against {report.speed['large'].requests_per_second.value:.1f}",
         f"{_interval(report.throughput_ratio, '.2f')} x"],
        [f"{report.metric} kept by the pair", "", _interval(report.quality_retained)],
        ["sent on to the large model", "", f"{report.evaluation.large_share:.1%}"],
    ]  # fmt: skip
    if report.saving is not None:
        won.append(["avoidable cost", "", _interval(report.saving, ".1%")])
    promise = (
        f"promise: at least {stated(certificate.retain)} kept, wrong with chance at most {stated(1 - certificate.confidence)}: "
        f"{'certified' if certificate.certified else 'not certified'} ({certificate.method}, n={certificate.n}, p={certificate.p_value:.3g})"
    )
    lines = [f"{report.name}: {report.verdict}. {report.reason}", "", *columns(won), "", f"  {promise}"]
    if isinstance(report.policy, RoutingPolicy) and report.policy.under_pressure is not None:
        used = report.policy.relaxed() is not None
        lines += [f"  {line}" for line in second_lines(report.policy.under_pressure, used)]
    if report.promise_held_on_test is not None:
        lines.append(
            f"  on the test part, which nothing else saw: {'held' if report.promise_held_on_test else 'not held'}"
        )
    for part in ("report", "test"):
        models = [model for model in report.models if model.part == part]
        if models:
            lines += ["", f"  {part} part", *_models(models)]
    if report.gates:
        lines += [
            "",
            "  gates",
            *columns(
                [
                    [
                        "passed" if gate.passed else "FAILED",
                        gate.metric,
                        gate.bound,
                        f"found {gate.found:.4g}",
                    ]
                    for gate in report.gates
                ],
                "    ",
            ),
        ]
    return lines


def _models(models: Sequence[ModelFigures]) -> list[str]:
    metrics = list(dict.fromkeys(name for model in models for name in model.figures))
    rows = [["", *metrics, "to large"]]
    for model in models:
        cells = [_interval(model.figures[m]) if m in model.figures else "-" for m in metrics]
        rows.append([model.name, *cells, "-" if model.large_share is None else f"{model.large_share:.1%}"])
    return columns(rows, "    ")


def status_lines(resource: dict[str, Any]) -> list[str]:
    """Return a resource's status as lines."""
    status, meta = resource["status"], resource["metadata"]
    rows = [["NAME", "READY", "PHASE", "LEAN", "RETAINED", "SAVED"]]
    report = status.get("report") or {}
    ready = next((c["status"] for c in status["conditions"] if c["type"] == "Ready"), "Unknown")
    lean = (status.get("stableRevision") or status.get("candidateRevision") or {}).get("name", "-")
    rows.append(
        [
            meta["name"],
            ready,
            status["phase"],
            lean,
            report.get("qualityRetained", "-"),
            report.get("saving", "-"),
        ]
    )
    lines = columns(rows, "")
    if status.get("progress"):
        progress = status["progress"]
        eta = f", about {progress['etaSeconds']} s left" if progress.get("etaSeconds") is not None else ""
        lines.append(f"{progress['step']}: {progress['percent']}%{eta}")
    lines += [
        "",
        *columns(
            [
                ["CONDITION", "STATUS", "REASON", "MESSAGE"],
                *([c["type"], c["status"], c["reason"], c.get("message", "")] for c in status["conditions"]),
            ],
            "",
        ),
    ]
    for label, key in (("endpoint", "url"), ("metrics", "metricsUrl")):
        if status.get(key):
            lines.append(f"{label}: {status[key]}")
    if status.get("cost"):
        cost = status["cost"]
        lines.append(
            f"cost: ${cost['usd']} so far, ${cost['savingUsd']} saved against sending everything to the large model"
        )
    if report.get("url"):
        lines.append(f"report: {report['url']}")
    return lines
