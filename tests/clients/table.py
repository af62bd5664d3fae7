"""What the clients' suite prints: for each route family cases by clients. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

OK: Final = "ok"
FAILED: Final = "FAILED"
NOT_ASKED: Final = "·"
"""The client has nothing of the kind, or what it builds on has shown it."""


class Cell(NamedTuple):
    """What came of one case with one client.

    Attributes:
        family: The routes that it was about.
        client: Its name and, if it has one, its version.

    """

    family: str
    case: str
    client: tuple[str, str]
    outcome: str


def render(cells: Iterable[Cell]) -> list[str]:
    """Return the lines of the tables; the client with most cases comes first and says in which order they come."""
    found = list(cells)
    lines: list[str] = []
    for family in sorted({cell.family for cell in found}, key=lambda family: (not family.startswith("/v1"), family)):
        lines += ["", *_render_one(family, [cell for cell in found if cell.family == family])]
    return lines


def _render_one(family: str, cells: Sequence[Cell]) -> list[str]:
    clients = [client for client, _ in Counter(cell.client for cell in cells).most_common()]
    outcomes: dict[tuple[str, tuple[str, str]], str] = {}
    for cell in sorted(cells, key=lambda cell: clients.index(cell.client)):
        # A case may be several tests; it is as good as the worst of them.
        known = outcomes.get((cell.case, cell.client), OK)
        outcomes[cell.case, cell.client] = cell.outcome if known == OK else known
    head = [[family, *(name for name, _ in clients)]]
    if any(version for _, version in clients):
        head.append(["", *(version for _, version in clients)])
    body = [
        [case, *(outcomes.get((case, client), NOT_ASKED) for client in clients)]
        for case in dict.fromkeys(case for case, _ in outcomes)
    ]
    widths = [max(map(len, column)) for column in zip(*head, *body, strict=True)]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in head + body
    ]
    return [*lines[: len(head)], "-" * max(map(len, lines)), *lines[len(head) :]]
