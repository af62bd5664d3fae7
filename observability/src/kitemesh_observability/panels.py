"""Every dashboard, and every query that they ask. Knows no file format."""

from typing import Final, NamedTuple

from kitemesh_observability import (
    board_dependencies,
    board_models,
    board_queues,
    board_streams,
    board_traffic,
    board_turns,
)
from kitemesh_observability.board import Dashboard

DASHBOARDS: Final[tuple[Dashboard, ...]] = (
    board_traffic.DASHBOARD,
    board_models.DASHBOARD,
    board_queues.DASHBOARD,
    board_turns.DASHBOARD,
    board_streams.DASHBOARD,
    board_dependencies.DASHBOARD,
)


class PanelQuery(NamedTuple):
    """One query, and where it is asked; its variables are not filled in."""

    dashboard: str
    panel: str
    expr: str


def queries() -> list[PanelQuery]:
    """List the queries of every panel: the dashboard's uid, the panel's title, the expression."""
    return [
        PanelQuery(dashboard.uid, panel.title, query.expr)
        for dashboard in DASHBOARDS
        for panel in dashboard.panels()
        for query in panel.queries
    ]


def fill_in(expr: str, rate_interval: str) -> str:
    """Fill in a query's variables as Grafana does when everything is chosen.

    Args:
        expr: From `queries`.
        rate_interval: A duration of PromQL, four scrapes or more.

    """
    return expr.replace("$__rate_interval", rate_interval).replace("$service", ".*").replace("$pool", ".*")
