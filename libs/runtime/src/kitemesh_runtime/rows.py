"""The numbered rows that a turn with an agent is shown as, and the port that counts and finds them.

A turn has a block of numbers of its own, reserved before it is stored: the user's row is the first of them, the final
answer's the last, and every other has a place that follows from the turn's steps alone. So a row keeps its number from
the first time that it is seen. How rows are written for clients is not known here, nor how turns are removed.
"""

from collections.abc import Iterable
from functools import partial
from typing import Final, Literal, NamedTuple, Protocol

from msgspec import Struct

from kitemesh_contracts.content import CallResult, Step, ToolCall, UserMessage, user_text
from kitemesh_contracts.errors import MEANINGS
from kitemesh_runtime.live_turns import LiveTurn
from kitemesh_runtime.stored_endings import ended_from
from kitemesh_runtime.turns import TurnRecord

BLOCK: Final = 128
"""More than a turn has: a user's row, an answer, and at most 24 steps with 50 calls in all."""

ROW_MAX: Final = 2**53
"""What every client can count up to."""

BETWEEN_STEPS: Final = "\n\n"


class Row(Struct, frozen=True, kw_only=True):
    """One row of an agent's history.

    Attributes:
        at_s: Epoch seconds; whole ones of all but the final answer.
        text: `None` of an answer that only calls tools: what is said beside the calls is part of the final answer.
        calls: As the model made them; they may hold secrets.
        result: What came of a call.
        hold: The calls wait for a person's answer to it.
        details: What the client wanted kept: JSON text of an object, or empty.

    """

    id: int
    role: Literal["user", "assistant", "tool"]
    turn: str
    conversation: str | None
    at_s: float
    text: str | None = None
    calls: tuple[ToolCall, ...] = ()
    result: CallResult | None = None
    hold: str | None = None
    details: str = ""


class RowPage(NamedTuple):
    """Rows in the order of their numbers.

    Attributes:
        has_more: There are others behind it, in the direction that was asked for.

    """

    rows: tuple[Row, ...]
    has_more: bool


class RowQuery(NamedTuple):
    """Which rows are asked for.

    Attributes:
        after: The page begins behind it, with the oldest; without it a page is the newest rows.
        before: It ends before it.

    """

    conversation: str | None = None
    before: int | None = None
    after: int | None = None
    limit: int = 50


class Rows(Protocol):
    """The rows of the tenant's turns with an agent."""

    async def reserve(self, tenant: str, agent: str) -> int:
        """Return the first number of a block that nobody else has; one reserved later is higher."""

    async def page(self, tenant: str, agent: str, query: RowQuery) -> RowPage:
        """Return a page; what cannot be read is left out, and logged."""

    async def count(self, tenant: str, agent: str, *, conversation: str | None = None) -> int:
        """Count all rows, or those of one conversation."""

    async def unended(self, tenant: str, agent: str, *, conversation: str | None = None) -> list[str]:
        """Return the turns that have rows and have not ended, oldest first."""


def joined(texts: Iterable[str]) -> str:
    """Return the texts of a turn's steps as one."""
    return BETWEEN_STEPS.join(text for text in texts if text)


def last_row(first: int) -> int:
    """Return the last number of a block: the final answer's."""
    return first + BLOCK - 1


def row_of_step(first: int, earlier: Iterable[Step]) -> int:
    """Return the number of the row with a step's calls; their results and what a person added have the next ones.

    Args:
        first: Of the block.
        earlier: The steps before it.

    """
    return first + 1 + sum(1 + len(step.calls) + len(step.texts) for step in earlier)


def rows_of(turn: LiveTurn | TurnRecord) -> tuple[Row, ...]:
    """Return what a turn is shown as so far; one that was refused leaves no trace.

    A result that has not come yet has its place. What has none left is not shown.
    """
    if not turn.row or _was_refused(turn):
        return ()
    row = partial(Row, turn=turn.id, conversation=turn.conversation)
    begun = partial(row, at_s=float(turn.accepted_at_ms // 1000))
    said = next((message for message in reversed(turn.input) if isinstance(message, UserMessage)), None)
    rows = [begun(id=turn.row, role="user", text="" if said is None else user_text(said), details=turn.details)]
    hold = turn.hold if isinstance(turn, LiveTurn) else None
    last = last_row(turn.row)
    for number, step in enumerate(turn.steps):
        place = row_of_step(turn.row, turn.steps[:number])
        is_held = number == len(turn.steps) - 1
        results = {result.call: result for result in step.results}
        behind = place + 1 + len(step.calls)
        rows += [
            begun(id=place, role="assistant", calls=step.calls, hold=hold if is_held else None),
            *(
                begun(id=place + index, role="tool", result=results[call.id])
                for index, call in enumerate(step.calls, start=1)
                if call.id in results
            ),
            *(begun(id=behind + index, role="user", text=text) for index, text in enumerate(step.texts)),
        ]
    rows = [each for each in rows if each.id < last]
    if isinstance(turn, TurnRecord):
        ended = ended_from(turn)
        text = joined([*(step.text for step in ended.earlier), ended.text])
        if text or turn.status == "completed":
            rows.append(row(id=last, role="assistant", at_s=turn.ended_at_ms / 1000, text=text))
    return tuple(rows)


def select(turns: Iterable[LiveTurn | TurnRecord], query: RowQuery) -> RowPage:
    """Return the page of those turns' rows."""
    found = sorted(
        (
            row
            for turn in turns
            for row in rows_of(turn)
            if (query.before is None or row.id < query.before) and (query.after is None or row.id > query.after)
        ),
        key=lambda row: row.id,
    )
    has_more = len(found) > query.limit
    page = found[: query.limit] if query.after is not None else found[-query.limit :]
    return RowPage(tuple(page), has_more)


def _was_refused(turn: LiveTurn | TurnRecord) -> bool:
    if not isinstance(turn, TurnRecord) or turn.error is None or turn.steps:
        return False
    has_answer = turn.answer is not None and bool(turn.answer.text)
    return MEANINGS[turn.error.code].outcome == "refused" and not has_answer
