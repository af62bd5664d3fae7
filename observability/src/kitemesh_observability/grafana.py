"""Dashboards as Grafana 12 and later read them: the one place that knows its SDK.

Panels name no data source: it is a variable of each dashboard. Links lead to every other dashboard of ours.
"""

import string
from typing import Final

from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.builders import prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders.common import (
    GraphThresholdsStyleConfig,
    StackingConfig,
    VizLegendOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from kitemesh_observability.board import VARIABLES, Dashboard, Panel

TAG: Final = "kitemesh"

_DATASOURCE: Final = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
_UNITS: Final = {
    "requests a second": "reqps",
    "a second": "ops",
    "seconds": "s",
    "bytes": "bytes",
    "share": "percentunit",
    "number": "short",
    "state": "none",
}
_HEIGHTS: Final = {"timeseries": 8, "stat": 4, "table": 8}

_PanelBuilder = timeseries.Panel | stat.Panel | table.Panel


def render(dashboard: Dashboard) -> str:
    """Return a dashboard's JSON, the same for the same dashboard."""
    built = _build(dashboard).build()
    for link in built.links or ():
        # Beside the variables, not in the menu that the SDK would have them in.
        link.placement = ""
    return JSONEncoder(sort_keys=True, indent=2).encode(built) + "\n"


def _build(dashboard: Dashboard) -> dashboards.Dashboard:
    built = (
        dashboards.Dashboard(dashboard.title)
        .uid(dashboard.uid)
        .description(dashboard.description)
        .tags([TAG])
        .timezone("browser")
        .refresh("30s")
        .time("now-1h", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
        .with_variable(dashboards.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .link(
            dashboards.DashboardLink("kitemesh")
            .type(DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .include_vars(include_vars=True)
            .keep_time(keep_time=True)
        )
    )
    for name in dashboard.variables():
        built.with_variable(_variable(name))
    number = 0
    for row in dashboard.rows:
        number += 1
        built.with_row(dashboards.Row(row.title).id(number))
        height = max(_HEIGHTS[panel.kind] for panel in row.panels)
        for panel in row.panels:
            number += 1
            built.with_panel(_panel(panel).id(number).height(height))
    return built


def _variable(name: str) -> dashboards.QueryVariable:
    return (
        dashboards.QueryVariable(name)
        .query(VARIABLES[name])
        .datasource(_DATASOURCE)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(multi=True)
        .include_all(include_all=True)
        # Everything, those without the label included.
        .all_value(".*")
        .current(VariableOption(selected=True, text="All", value="$__all"))
    )


def _panel(panel: Panel) -> _PanelBuilder:
    built = _of_kind(panel)
    built.title(panel.title).description(panel.description).datasource(_DATASOURCE).span(panel.width)
    built.unit(_UNITS[panel.unit]).thresholds(_thresholds(panel))
    if panel.names:
        built.mappings([_mapping(panel)])
    elif panel.kind != "table":
        built.min(0)
    for letter, query in zip(string.ascii_uppercase, panel.queries, strict=False):
        target = prometheus.Dataquery().ref_id(letter).expr(query.expr).legend_format(query.legend or panel.title)
        if panel.kind == "table":
            built.with_target(target.instant().format(PromQueryFormat.TABLE))
        else:
            built.with_target(target.range())
    return built


def _of_kind(panel: Panel) -> _PanelBuilder:
    match panel.kind:
        case "stat":
            return stat.Panel().graph_mode(common.BigValueGraphMode.AREA).color_mode(common.BigValueColorMode.VALUE)
        case "table":
            return table.Panel().show_header(show_header=True)
        case "timeseries":
            legend = (
                VizLegendOptions()
                .display_mode(common.LegendDisplayMode.LIST)
                .placement(common.LegendPlacement.BOTTOM)
                .show_legend(show_legend=True)
            )
            built = (
                timeseries.Panel()
                .line_width(1)
                .fill_opacity(10)
                .show_points(common.VisibilityMode.NEVER)
                .legend(legend)
                .tooltip(VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING))
            )
            if panel.stacked:
                built.stacking(StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
            if panel.thresholds:
                built.thresholds_style(GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED))
            return built


def _thresholds(panel: Panel) -> dashboards.ThresholdsConfig:
    steps = [Threshold(value=None, color="green"), *(Threshold(value, colour) for value, colour in panel.thresholds)]
    return dashboards.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _mapping(panel: Panel) -> ValueMapping:
    return ValueMap(
        options={
            f"{value:g}": ValueMappingResult(text=text, color=colour, index=index)
            for index, (value, text, colour) in enumerate(panel.names)
        }
    )
