"""Every alert, those that wake somebody first. Knows no file format."""

from typing import Final

from kitemesh_observability import alerts_dependencies, alerts_turns, alerts_work
from kitemesh_observability.alert import Alert

ALERTS: Final[tuple[Alert, ...]] = tuple(
    sorted(
        (*alerts_dependencies.ALERTS, *alerts_turns.ALERTS, *alerts_work.ALERTS),
        key=lambda alert: alert.severity != "page",
    )
)
