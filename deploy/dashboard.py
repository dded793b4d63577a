"""The Grafana dashboard, built from `panels` with Grafana's own typed model of one (grafana-foundation-sdk).

Owns looks, variables and layout. Does not know what is measured.
"""

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from panel_types import Panel
from panels import ROWS


def dashboard() -> builders.Dashboard:
    """The whole dashboard; its data source is a variable, so that it can be imported anywhere."""
    source = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
    built = (
        builders.Dashboard("vhserve")
        .uid("vhserve")
        .description("Endpoints of vhserve serve: latency by plan, KV cache, and accuracy of the live engine.")
        .tags(["vhserve", "vllm"])
        .refresh("30s")
        .time("now-1h", "now")
        .timezone(common.TimeZoneBrowser)
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .with_variable(builders.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_variable("job", "Job", "label_values(vllm:num_requests_running, job)", source))
        .with_variable(
            _variable("instance", "Server", 'label_values(vllm:num_requests_running{job=~"$job"}, instance)', source)
        )
    )
    number = 0
    for title, panels in ROWS.items():
        built = built.with_row(builders.Row(title).id(number := number + 1))
        for panel in panels:
            built = built.with_panel(_panel(panel, source).id(number := number + 1))
    return built


def _variable(name: str, label: str, query: str, source: common.DataSourceRef) -> builders.QueryVariable:
    return (
        builders.QueryVariable(name)
        .label(label)
        .query(query)
        .datasource(source)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
    )


def _panel(panel: Panel, source: common.DataSourceRef) -> timeseries.Panel | stat.Panel | table.Panel:
    if panel.kind == "table":
        built: timeseries.Panel | stat.Panel | table.Panel = table.Panel().height(6)
    elif panel.kind == "stat":
        calculation = common_builders.ReduceDataOptions().calcs(["lastNotNull"])
        built = stat.Panel().height(6).reduce_options(calculation)
    else:
        legend = common_builders.VizLegendOptions().display_mode(common.LegendDisplayMode.LIST).show_legend(True)
        built = timeseries.Panel().height(8).legend(legend.placement(common.LegendPlacement.BOTTOM)).min(0)
    built = built.title(panel.title).description(panel.about).unit(panel.unit).span(panel.width).datasource(source)
    if panel.most is not None:
        built = built.max(panel.most)
    for letter, query in zip("ABCDEF", panel.queries, strict=False):
        target = prometheus.Dataquery().ref_id(letter).expr(query.selected).datasource(source)
        if query.legend:
            target = target.legend_format(query.legend)
        shaped = target.instant().format(PromQueryFormat.TABLE) if panel.kind == "table" else target.range()
        built = built.with_target(shaped)
    return built
