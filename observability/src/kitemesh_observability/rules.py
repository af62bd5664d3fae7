"""Prometheus's rule file, written from the alerts and recordings.

Production's durations can be shortened, so that every alert can be made to fire by a real fault within seconds.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import yaml

from kitemesh_observability.alert import Alert
from kitemesh_observability.alerts import ALERTS
from kitemesh_observability.recording import RECORDINGS, Recording

LEAST_WINDOW_S: Final = 4
"""A window holds four scrapes; who shortens windows scrapes every second."""
MEMORY_BYTES: Final = 1 << 30

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_WINDOW: Final = re.compile(r"\[(\d+[smhd])\]")
_OFFSET: Final = re.compile(r"offset \[(\d+[smhd])\]")
_SECONDS: Final = re.compile(r"\{(\d+[smhd])\|(\d+[smhd])\}")


def seconds(duration: str) -> int:
    """Return a duration such as `15m` in seconds."""
    return int(duration[:-1]) * _UNITS[duration[-1]]


def render_expr(expr: str, scale: float = 1.0, memory_bytes: int = MEMORY_BYTES) -> str:
    """Write an expression as Prometheus reads it.

    Args:
        expr: With ranges (`[5m]`), offsets (`offset [5m]`), numbers of seconds (`{15m|20s}`: in production, and at any
            other scale) and the limit of memory (`{memory}`).
        scale: What ranges and offsets are multiplied by; 1 is production.
        memory_bytes: How much a process may use.

    """

    def shorten(duration: str) -> str:
        return duration if scale == 1 else f"{max(LEAST_WINDOW_S, round(seconds(duration) * scale))}s"

    expr = _OFFSET.sub(lambda found: f"offset {shorten(found[1])}", expr)
    expr = _WINDOW.sub(lambda found: f"[{shorten(found[1])}]", expr)
    expr = _SECONDS.sub(lambda found: str(seconds(found[1 if scale == 1 else 2])), expr)
    return expr.replace("{memory}", str(memory_bytes))


def rules(scale: float = 1.0, *, memory_bytes: int = MEMORY_BYTES) -> str:
    """Return the rule file.

    Args:
        scale: What every window and `for` is multiplied by; 1 is production, 1/30 makes five minutes ten seconds.
            Windows stay at four seconds or more, `for` at one.
        memory_bytes: Limit of the alert on memory.

    Raises:
        ValueError: The scale is no number above 0 and up to 1.

    """
    if not 0 < scale <= 1:
        raise ValueError(f"a scale is above 0 and at most 1, not {scale}")
    document = {
        "groups": [
            {"name": "kitemesh-recordings", "rules": [_recording(each, scale) for each in RECORDINGS]},
            {"name": "kitemesh-alerts", "rules": [_alert(each, scale, memory_bytes) for each in ALERTS]},
        ]
    }
    return yaml.safe_dump(document, sort_keys=False, width=110, allow_unicode=True)


def _recording(recording: Recording, scale: float) -> Mapping[str, Any]:
    return {"record": recording.name, "expr": render_expr(recording.expr, scale)}


def _alert(alert: Alert, scale: float, memory_bytes: int) -> Mapping[str, Any]:
    rule: dict[str, Any] = {"alert": alert.name, "expr": render_expr(alert.expr, scale, memory_bytes)}
    if alert.for_s:
        rule["for"] = f"{alert.for_s if scale == 1 else max(1, round(alert.for_s * scale))}s"
    rule["labels"] = {"severity": alert.severity}
    rule["annotations"] = {
        "summary": alert.summary,
        "description": alert.description,
        "runbook_url": alert.runbook,
    }
    return rule
