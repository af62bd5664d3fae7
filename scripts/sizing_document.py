"""docs/sizing.md: its words are its own, its tables follow from the code and from what was measured."""

# ruff: noqa: INP001  a script, not a package

from pathlib import Path
from typing import Final

from limits_table import limits_table
from sizing_costs import costs_table
from sizing_example import example_table

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "sizing.md"
TABLES: Final = {"limits": limits_table, "costs": costs_table, "example": example_table}


def sizing_document() -> str:
    """Return the page with each table between its markers."""
    text = PAGE.read_text(encoding="utf-8")
    for name, table in TABLES.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, marker, rest = text.partition(begin)
        _, other, after = rest.partition(end)
        if not (marker and other):
            raise SystemExit(f"{PAGE.name} has no place for its {name}: {begin} and {end}")
        text = f"{before}{begin}\n{table()}{end}{after}"
    return text
