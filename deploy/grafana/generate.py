"""Write the Grafana dashboards beside this file: python deploy/grafana/generate.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef

HERE: Final = Path(__file__).parent
SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${ds}")
WHERE: Final = 'instance=~"$instance", db_client_connection_pool_name=~"$pool"'
STATEMENTS: Final = "magnus_statements_total"
DURATION: Final = "db_client_operation_duration_seconds"
WAIT: Final = "db_client_connection_wait_time_seconds"

# Every query aggregates: labels that an exporter adds (otel_scope_*) must not split a line in two.
POOL: Final = (
    ("Connections", "short", {
        "{{db_client_connection_state}}":
            f"sum by (db_client_connection_state) (db_client_connection_count{{{WHERE}}})",
        "max": f"sum(db_client_connection_max{{{WHERE}}})",
        "connecting": f"sum(magnus_pool_connecting{{{WHERE}}})",
    }),
    ("Used by lane", "short", {"{{magnus_lane}}": f"sum by (magnus_lane) (magnus_pool_used{{{WHERE}}})"}),
    ("Waiting by lane", "short", {
        "{{magnus_lane}}": f"sum by (magnus_lane) (db_client_connection_pending_requests{{{WHERE}}})",
    }),
    ("Wait for a connection, p95 by lane", "s", {
        "{{magnus_lane}}":
            f"histogram_quantile(0.95, sum by (magnus_lane, le) (rate({WAIT}_bucket{{{WHERE}}}[$__rate_interval])))",
    }),
    ("Given, by lane", "ops", {
        "{{magnus_lane}}": f"sum by (magnus_lane) (rate(magnus_pool_acquired_total{{{WHERE}}}[$__rate_interval]))",
    }),
    ("Timed out or refused", "ops", {
        "timed out, {{magnus_lane}}":
            f"sum by (magnus_lane) (rate(db_client_connection_timeouts_total{{{WHERE}}}[$__rate_interval]))",
        "refused, {{magnus_lane}}":
            f"sum by (magnus_lane) (rate(magnus_pool_rejected_total{{{WHERE}}}[$__rate_interval]))",
        "of these shed, {{magnus_lane}}":
            f"sum by (magnus_lane) (rate(magnus_pool_shed_total{{{WHERE}}}[$__rate_interval]))",
    }),
    ("Nothing handed out, no connects", "s", {
        "every caller waits": f"max(magnus_pool_exhausted_seconds{{{WHERE}}})",
        "connects fail": f"max(magnus_pool_outage_seconds{{{WHERE}}})",
    }),
    ("Connections opened, failed, discarded", "ops", {
        "opened": f"sum(rate(magnus_pool_connects_total{{{WHERE}}}[$__rate_interval]))",
        "failed": f"sum(rate(magnus_pool_connect_failures_total{{{WHERE}}}[$__rate_interval]))",
        "discarded": f"sum(rate(magnus_pool_discarded_total{{{WHERE}}}[$__rate_interval]))",
    }),
    ("All instances on the server", "short", {
        "may open": f"max(magnus_fleet_connections{{{WHERE}}})",
        "are there for them": f"min(magnus_fleet_budget{{{WHERE}}})",
        "instances": f"max(magnus_fleet_instances{{{WHERE}}})",
    }),
    ("Events", "ops", {"{{event}}": f"sum by (event) (rate(magnus_events_total{{{WHERE}}}[$__rate_interval])) > 0"}),
)  # fmt: skip
QUERIES: Final = (
    ("Statements", "ops", {
        "{{outcome}}": f"sum by (outcome) (rate({STATEMENTS}{{{WHERE}}}[$__rate_interval]))",
    }),
    ("Duration", "s", {
        f"p{percent}":
            f"histogram_quantile({percent / 100}, sum by (le) (rate({DURATION}_bucket{{{WHERE}}}[$__rate_interval])))"
        for percent in (50, 95, 99)
    }),
    ("Mean duration", "s", {
        "mean": f"sum(rate({DURATION}_sum{{{WHERE}}}[$__rate_interval]))"
                f" / sum(rate({DURATION}_count{{{WHERE}}}[$__rate_interval]))",
    }),
    ("Slow, timed out, repeated", "ops", {
        "slow": f"sum(rate(magnus_slow_queries_total{{{WHERE}}}[$__rate_interval]))",
        "timed out": f"sum(rate(magnus_statement_timeouts_total{{{WHERE}}}[$__rate_interval]))",
        "repeated": f"sum(rate(magnus_retries_total{{{WHERE}}}[$__rate_interval]))",
    }),
    ("Repeated, by what the failure had left behind", "ops", {
        "{{class}}": f"sum by (class) (rate(magnus_retries_total{{{WHERE}}}[$__rate_interval]))",
        "not repeated, budget spent": f"sum(rate(magnus_retries_refused_total{{{WHERE}}}[$__rate_interval]))",
    }),
    ("Outcome unknown", "short", {
        "in an hour": f"sum(increase(magnus_outcome_unknown_total{{{WHERE}}}[1h]))",
    }),
    ("Slow-query log", "ops", {
        "rows": f"sum(rate(magnus_slow_log_written_total{{{WHERE}}}[$__rate_interval]))",
        "left out, {{reason}}": f"sum by (reason) (rate(magnus_slow_log_left_out_total{{{WHERE}}}[$__rate_interval]))",
    }),
)  # fmt: skip
BIG: Final = (
    ("Database", f"min(magnus_database_up{{{WHERE}}})", "short"),
    ("Statements a second", f"sum(rate({STATEMENTS}{{{WHERE}}}[$__rate_interval]))", "ops"),
    ("In use", f'sum(db_client_connection_count{{{WHERE}, db_client_connection_state="used"}})'
               f" / sum(db_client_connection_max{{{WHERE}}})", "percentunit"),
    ("Waiting", f"sum(db_client_connection_pending_requests{{{WHERE}}})", "short"),
)  # fmt: skip


def query(expr: str, legend: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(expr).legend_format(legend)


def board(uid: str, title: str, panels: tuple[tuple[str, str, dict[str, str]], ...]) -> dashboard.Dashboard:
    built = dashboard.Dashboard(title).uid(uid).tags(["magnus"]).refresh("10s").time("now-1h", "now").readonly()
    built = built.with_variable(dashboard.DatasourceVariable("ds").label("Prometheus").type("prometheus"))
    for name, label in (("instance", "instance"), ("pool", "db_client_connection_pool_name")):
        built = built.with_variable(
            dashboard
            .QueryVariable(name)
            .datasource(SOURCE)
            .query(f"label_values(magnus_database_up, {label})")
            .multi(True)
            .include_all(True)
            .all_value(".*")
        )
    for name, expr, unit in BIG:
        panel = stat.Panel().title(name).datasource(SOURCE).unit(unit).height(4).span(6)
        built = built.with_panel(panel.with_target(query(expr, name)))
    for name, unit, queries in panels:
        panel = timeseries.Panel().title(name).datasource(SOURCE).unit(unit).min(0).height(8).span(12)
        for legend, expr in queries.items():
            panel = panel.with_target(query(expr, legend))
        built = built.with_panel(panel)
    return built


BOARDS: Final = {
    "magnus-pool.json": board("magnus-pool", "Magnus pool", POOL),
    "magnus-queries.json": board("magnus-queries", "Magnus queries", QUERIES),
}


def text(built: dashboard.Dashboard) -> str:
    return json.dumps(json.loads(JSONEncoder(sort_keys=True).encode(built.build())), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    for file, built in BOARDS.items():
        (HERE / file).write_text(text(built))
