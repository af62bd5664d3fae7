"""What a dashboard is, in our own words. Knows neither Grafana nor any dashboard.

Expressions may use the variables `$service` and `$pool`, which stand for a regular expression, and `$__rate_interval`.
"""

from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

Kind = Literal["timeseries", "stat", "table"]
Colour = Literal["green", "yellow", "red"]
Unit = Literal["requests a second", "a second", "seconds", "bytes", "share", "number", "state"]

VARIABLES: Final = {
    "service": "label_values(kitemesh_build_info, service)",
    "pool": "label_values(kitemesh_slots, pool)",
}
"""What each variable's values are asked for with."""


class Query(NamedTuple):
    """One expression and how its series are called; an empty legend is the panel's title."""

    expr: str
    legend: str = ""


class Panel(NamedTuple):
    """One picture.

    Attributes:
        description: What it shows, and what to do when it looks bad.
        thresholds: From which value on which colour; it is green below.
        width: Of the 24 columns of a dashboard.
        names: What values mean, where they are no quantity.

    """

    title: str
    description: str
    unit: Unit
    queries: tuple[Query, ...]
    kind: Kind = "timeseries"
    thresholds: tuple[tuple[float, Colour], ...] = ()
    width: int = 8
    stacked: bool = False
    names: tuple[tuple[float, str, Colour], ...] = ()


class Row(NamedTuple):
    """Panels that belong together."""

    title: str
    panels: tuple[Panel, ...]


class Dashboard(NamedTuple):
    """One dashboard; its `uid` is part of links that people keep, and never changes."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]

    def panels(self) -> Iterator[Panel]:
        """Go through its panels in order."""
        for row in self.rows:
            yield from row.panels

    def variables(self) -> list[str]:
        """List the variables that its expressions use."""
        text = " ".join(query.expr for panel in self.panels() for query in panel.queries)
        return [name for name in VARIABLES if f"${name}" in text]


def rate(series: str, by: str = "") -> str:
    """Write a counter's increase a second, summed up by labels."""
    return f"sum{f' by ({by})' if by else ''} (rate({series}[$__rate_interval]))"


def quantiles(
    histogram: str, by: str = "", labels: str = "", of: tuple[float, ...] = (0.5, 0.95, 0.99)
) -> tuple[Query, ...]:
    """Write quantiles of a histogram, a query for each."""
    groups = f"le, {by}" if by else "le"
    legend = f"{{{{{by}}}}} " if by else ""
    return tuple(
        Query(
            f"histogram_quantile({q}, sum by ({groups}) (rate({histogram}_bucket{labels}[$__rate_interval])))",
            f"{legend}p{q * 100:g}",
        )
        for q in of
    )


def ours(expr: str) -> str:
    """Leave out the processes of others, whose targets may have the labels `service` and `instance`, too."""
    return f"{expr} and on (service, instance) kitemesh_build_info"


def mean(histogram: str, by: str, labels: str = "") -> str:
    """Write the mean of what a histogram observed."""
    return f"{rate(f'{histogram}_sum{labels}', by)} / {rate(f'{histogram}_count{labels}', by)}"
