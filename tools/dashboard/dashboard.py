"""The Grafana dashboard as JSON, built from `panels`."""

from typing import Final

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, dashboard

from tools.dashboard.panels import ALERTS, ROWS, Chart, Number, Query

_SOURCE: Final = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")
_WIDTH: Final = 24


def as_json() -> str:
    """Return the dashboard in the format that Grafana imports."""
    board = (
        builders.Dashboard("bits-auth-proxy")
        .uid("bits-auth-proxy")
        .description("Token, requests, connections and processes of the proxies in front of the Bits API")
        .tags(["bits-auth-proxy", "bits"])
        .time("now-3h", "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .with_variable(builders.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_variable("job", "label_values(bits_proxy_build_info, job)"))
        .with_variable(_variable("instance", 'label_values(bits_proxy_build_info{job=~"$job"}, instance)'))
        .annotation(
            builders.AnnotationQuery()
            .name("Alerts")
            .datasource(_SOURCE)
            .enable(enable=True)
            .icon_color("red")
            .expr(ALERTS)
        )
    )
    for title, panels in ROWS.items():
        board = board.with_row(builders.Row(title))
        numbers = sum(isinstance(panel, Number) for panel in panels)
        for panel in panels:
            board = board.with_panel(_number(panel, numbers) if isinstance(panel, Number) else _chart(panel))
    return JSONEncoder(indent=2, ensure_ascii=False).encode(board.build()) + "\n"


def _variable(name: str, query: str) -> builders.QueryVariable:
    return (
        builders.QueryVariable(name)
        .label(name.capitalize())
        .datasource(_SOURCE)
        .query({"query": query, "refId": name})
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
        .include_all(include_all=True)
        .multi(multi=True)
        .current(dashboard.VariableOption(selected=True, text="All", value="$__all"))
    )


def _target(query: Query, ref: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(query.expr).legend_format(query.legend or "__auto").ref_id(ref)


def _number(panel: Number, in_row: int) -> stat.Panel:
    made = (
        stat.Panel()
        .title(panel.title)
        .description(panel.what)
        .datasource(_SOURCE)
        .unit(panel.unit)
        .height(4)
        .span(_WIDTH // in_row)
        .with_target(_target(panel.query, "A").instant())
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
        .color_mode(common.BigValueColorMode.VALUE)
        .graph_mode(common.BigValueGraphMode.NONE)
    )
    return made if panel.bad is None else made.thresholds(_thresholds(panel))


def _thresholds(panel: Number) -> builders.ThresholdsConfig:
    steps = [(None, "green"), (panel.warn, "yellow"), (panel.bad, "red")]
    if panel.warn is not None and panel.bad is not None and panel.bad < panel.warn:
        steps = [(None, "red"), (panel.bad, "yellow"), (panel.warn, "green")]
    if panel.warn == panel.bad:
        del steps[1]
    return (
        builders.ThresholdsConfig()
        .mode(dashboard.ThresholdsMode.ABSOLUTE)
        .steps([dashboard.Threshold(value=value, color=color) for value, color in steps])
    )


def _chart(panel: Chart) -> timeseries.Panel:
    made = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.what)
        .datasource(_SOURCE)
        .unit(panel.unit)
        .min(0)
        .height(7)
        .span(8)
        .line_width(1)
        .fill_opacity(25 if panel.stacked else 0)
        .show_points(common.VisibilityMode.NEVER)
        .legend(
            common_builders.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
        )
        .tooltip(
            common_builders.VizTooltipOptions()
            .mode(common.TooltipDisplayMode.MULTI)
            .sort(common.SortOrder.DESCENDING)
        )
    )
    for name, colour in panel.colours.items():
        fixed = {"mode": "fixed", "fixedColor": colour}
        made = made.override_by_name(name, [dashboard.DynamicConfigValue(id_val="color", value=fixed)])
    if panel.stacked:
        made = made.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    for number, query in enumerate(panel.queries):
        made = made.with_target(_target(query, chr(ord("A") + number)).range())
    return made
