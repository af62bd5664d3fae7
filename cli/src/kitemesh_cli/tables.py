"""Rows of text in columns, for people."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from kitemesh_runtime.one_line import one_line


def lay_out(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, a line for each row; nothing in a cell moves the cursor."""
    cells = [list(header), *([one_line(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in lines)


def moment(epoch_s: float) -> str:
    """Return a time to the minute, in UTC."""
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%d %H:%M")


def length(seconds: float) -> str:
    """Return a length of time in its one or two largest units, such as `9m`, `3h 20m`; `0s` when it is over."""
    left = max(0, int(seconds))
    units = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))
    for number, (unit, size) in enumerate(units):
        if left >= size:
            whole, rest = divmod(left, size)
            below = units[number + 1][1] if unit in {"d", "h"} else 0
            more = f" {rest // below}{units[number + 1][0]}" if below and rest >= below else ""
            return f"{whole}{unit}{more}"
    return "0s"
