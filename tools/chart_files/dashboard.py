"""The Grafana dashboard, drawn with Grafana's Foundation SDK from what :mod:`chart_files.panels` says."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import count

from grafana_foundation_sdk.builders import common, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from .panels import GROUPS, REQUESTS, Panel

UID = "leanmodel"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")


def render() -> str:
    """Return the dashboard as JSON."""
    board = build.Dashboard("LeanModel").uid(UID).tags(["leanmodel"]).editable().refresh("1m")
    board.time("now-6h", "now").timezone("browser").tooltip(DashboardCursorSync.CROSSHAIR)
    board.description(
        "Cost, saving, routes, latency and conditions of LeanModels; shipped by the chart leanmodel."
    )
    board.with_variable(build.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    # By the PodMonitor's labels, as all panels of the router are filtered.
    board.with_variable(_variable("namespace", "Namespace", f"label_values({REQUESTS}, namespace)"))
    board.with_variable(
        _variable("leanmodel", "LeanModel", f'label_values({REQUESTS}{{namespace=~"$namespace"}}, leanmodel)')
    )
    numbers = count(1)
    for group in GROUPS:
        board.with_row(build.Row(group.title).id(next(numbers)))
        for panel in group.panels:
            drawn = _stat(panel) if panel.kind == "stat" else _lines(panel)
            board.with_panel(drawn.id(next(numbers)).span(panel.width).height(panel.height))
    return json.dumps(board.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def _variable(name: str, label: str, query: str) -> build.QueryVariable:
    variable = build.QueryVariable(name).label(label).datasource(SOURCE).query(query)
    variable.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC)
    every = VariableOption(selected=True, text="All", value="$__all")
    return variable.multi(True).include_all(True).all_value(".*").current(every)


def _targets(panel: Panel) -> Iterable[Dataquery]:
    for letter, (legend, query) in zip("ABCDEFGH", panel.queries.items(), strict=False):
        target = Dataquery().ref_id(letter).expr(query).legend_format(legend)
        # A number is of now: one evaluation, where lines want one per point.
        yield target.instant() if panel.kind == "stat" else target.range()


def _thresholds(panel: Panel) -> build.ThresholdsConfig:
    steps = sorted(panel.colours.items()) or [(-1e18, "text")]
    # Grafana's first step has no bound: it is what lies below all others.
    drawn = [
        Threshold(value=None if n == 0 else bound, color=colour) for n, (bound, colour) in enumerate(steps)
    ]
    return build.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(drawn)


def _stat(panel: Panel) -> stat.Panel:
    drawn = stat.Panel().title(panel.title).description(panel.words).datasource(SOURCE).unit(panel.unit)
    drawn.thresholds(_thresholds(panel)).graph_mode(BigValueGraphMode.NONE)
    drawn.color_mode(BigValueColorMode.VALUE if panel.colours else BigValueColorMode.NONE)
    drawn.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    if panel.decimals is not None:
        drawn.decimals(panel.decimals)
    for target in _targets(panel):
        drawn.with_target(target)
    return drawn


def _lines(panel: Panel) -> timeseries.Panel:
    drawn = timeseries.Panel().title(panel.title).description(panel.words).datasource(SOURCE).unit(panel.unit)
    drawn.fill_opacity(40 if panel.kind == "stacked" else 0).line_width(1)
    if panel.kind == "stacked":
        drawn.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    drawn.legend(legend.show_legend(True)).tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    for target in _targets(panel):
        drawn.with_target(target)
    return drawn
