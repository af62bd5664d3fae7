"""How a cluster is shown: coloured tables on a terminal, plain ones without any escape code elsewhere."""

from collections.abc import Sequence
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from kitemesh_cli.status_view import Mood, View
from kitemesh_cli.tables import lay_out
from kitemesh_runtime.one_line import one_line

_STYLES: Final[dict[Mood, str]] = {"well": "", "doubtful": "yellow", "wrong": "bold red"}


def plain(view: View, notes: Sequence[str] = ()) -> str:
    """Return a view as text."""
    parts = [lay_out(table.header, [row.cells for row in table.rows]) for table in view.tables]
    above = [one_line(each) for each in notes]
    return "\n\n".join(["\n".join([*above, *_said(view)]), *parts])


def coloured(view: View, notes: Sequence[str] = ()) -> RenderableType:
    """Return a view for a terminal."""
    styles = [_STYLES[each.mood] for each in view.words] or ["green"]
    parts: list[RenderableType] = [Text(one_line(note), style="dim") for note in notes]
    # First, where a low window still shows it.
    parts += [Text(line, style=style) for line, style in zip(_said(view), styles, strict=True)]
    for table in view.tables:
        grid = RichTable(box=None, pad_edge=False, header_style="bold")
        for name in table.header:
            grid.add_column(name)
        for row in table.rows:
            # Text, not markup: names come from others.
            grid.add_row(*(Text(one_line(cell)) for cell in row.cells), style=_STYLES[row.mood])
        parts += [Text(), grid]
    return Group(*parts)


def terminal() -> Console:
    """Return the console of standard output; NO_COLOR and TERM count."""
    return Console()


def _said(view: View) -> list[str]:
    return [one_line(f"{each.mood}: {each.text}") for each in view.words] or ["everything is well"]
