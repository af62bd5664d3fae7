"""What an alert is, and the expressions that several of them share. Knows no alert and no file format."""

from typing import Final, Literal, NamedTuple

Severity = Literal["page", "ticket"]

RUNBOOK: Final = "docs/runbook.md"


class Alert(NamedTuple):
    """One alert.

    Attributes:
        expr: PromQL. Ranges in brackets, and numbers of seconds in braces, are production's: `rules` shortens them.
        for_s: How long it has to hold in production.
        severity: `page` where users feel it now, `ticket` where it is a cause, or can wait for the morning.
        summary: One line; may name labels and the value, as Prometheus's templates do.
        description: What it means for whom.
        look: The sentence of the runbook that says where to look.
        do: The one that says what to do.

    """

    name: str
    expr: str
    for_s: int
    severity: Severity
    summary: str
    description: str
    look: str
    do: str

    @property
    def runbook(self) -> str:
        """The place in the runbook."""
        return f"{RUNBOOK}#{self.name.lower()}"


def grew(series: str, by: str, window: str, most: int = 0) -> str:
    """Write that a counter grew by more than `most` in a window.

    A counter whose labels appear with its first event has grown before it has two samples: then what it stands at is
    how much it grew.
    """
    return (
        f"sum by ({by}) (increase({series}[{window}])) > {most} "
        f"or sum by ({by}) ({series} unless {series} offset [{window}]) > {most}"
    )
