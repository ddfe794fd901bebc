"""The proof as one self-contained HTML page: the decision first, then what it rests on."""

from __future__ import annotations

from leanmodel_api.report import ProveReport

from . import sections
from .html import Raw, join, tag
from .search import search
from .style import CSS


def render(report: ProveReport) -> str:
    """Return the page; it loads nothing from anywhere and runs no script."""
    body = tag(
        "main",
        sections.headline(report),
        sections.warnings(report),
        sections.gates(report),
        sections.models(report),
        sections.certificate(report),
        sections.speed(report),
        sections.steps(report),
        search(report.search),
        sections.examples(report),
        sections.environment(report),
        sections.guide(report),
    )
    head = join(
        Raw('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        Raw(
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        ),
        tag("title", f"{report.name}: {report.verdict}"),
        tag("style", Raw(CSS)),
    )
    return f'<!doctype html>\n<html lang="en"><head>{head.html}</head><body>{body.html}</body></html>\n'
