"""From canonical deltas to the answers and events of `agents`: one line of JSON each, and no line that is not. Pure.

The texts of a turn's steps are one text here, parted by a blank line, as in the row that the answer becomes.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, assert_never

from kitemesh_contracts.codec import encode
from kitemesh_contracts.deltas import CallDelta, Delta, ReasoningDelta, ResultDelta, TextDelta, TurnEnded
from kitemesh_contracts.errors import ErrorInfo
from kitemesh_gateway.dialects.agents_answers import Added, AnswerOut, Done, Event, Failed, Started, call_out
from kitemesh_gateway.dialects.agents_errors import sentence_of
from kitemesh_gateway.dialects.base import Facts, Place, Rest, Tally
from kitemesh_gateway.instants import iso
from kitemesh_gateway.positions import Position
from kitemesh_runtime.rows import BETWEEN_STEPS, joined, last_row, row_of_step

WORDS: Final = "a"
_DELTA: Final = b'\ndata: {"type":"delta","content":'


class AgentsEncoder:
    """One answer's bytes."""

    __slots__ = ("_facts", "_id", "_tally", "_text_step")

    def __init__(self, facts: Facts) -> None:
        self._facts: Final = facts
        self._tally: Final = Tally(facts.after_step, words=WORDS) if facts.resumable else None
        self._id = b"id: %b:" % facts.turn.encode()
        self._text_step = 0

    def start(self) -> bytes:
        """Return the event that names the row."""
        place = Place(self._facts.after_step, 0, 0)
        return self._event(place, 0, Started(id=last_row(self._facts.row)))

    def resume(self, position: Position) -> None:
        """Do nothing: what follows depends on the texts alone."""

    def delta(self, place: Place, items: Sequence[Delta]) -> bytes:
        """Return one event for each piece of the answer."""
        if len(items) == 1 and type(items[0]) is TextDelta and place.step == self._text_step:
            text = items[0].text
            tail = b""
            if self._tally is not None:
                self._tally.add_text(place.step, text)
                tail = self._tally.tail(place.step)
            return b"%b%d.%d.%d.0%b%b%b}\n\n" % (self._id, *place, tail, _DELTA, encode(text))
        return b"".join(self._event(place, k, event) for k, event in enumerate(self._shown(place.step, items)))

    def end(self, ended: TurnEnded, rest: Sequence[Rest]) -> bytes:
        """Return what was not shown, and the whole answer."""
        ends = {each.step: Place(each.step, each.attempt, each.last + 1) for each in ended.earlier}
        ends[ended.step] = place = Place(ended.step, ended.attempt, ended.last + 1)
        events = [
            self._event(ends[step], k, event)
            for step, items in rest
            for k, event in enumerate(self._shown(step, items))
        ]
        events.append(self._event(place._replace(n=place.n + 1), 0, Done(message=self._answer(ended))))
        return b"".join(events)

    def error(self, place: Place, error: ErrorInfo, request_id: str) -> bytes:  # noqa: ARG002  it has no place for it
        """Return the error as the last event."""
        event = Failed(message=sentence_of(error))
        return self._event(place, 0, event) if self._tally is None else b"data: %b\n\n" % encode(event)

    def whole(self, ended: TurnEnded) -> bytes:
        """Return the answer as its row."""
        return encode(self._answer(ended))

    def _answer(self, ended: TurnEnded) -> AnswerOut:
        """Return the answer; one that waits for a person is its step's row, for the turn's last is still to come."""
        facts = self._facts
        if ended.hold is None:
            return AnswerOut(
                id=last_row(facts.row),
                role="assistant",
                content=joined([*(step.text for step in ended.earlier), ended.text]),
                tool_calls=None,
                conversation_id=facts.conversation,
                created_at=iso(ended.ended_at_ms / 1000 if ended.ended_at_ms else facts.created_s),
            )
        return AnswerOut(
            id=row_of_step(facts.row, ended.earlier),
            role="assistant",
            content=None,
            tool_calls=tuple(call_out(call, call.arguments) for call in ended.calls),
            conversation_id=facts.conversation,
            created_at=iso(facts.created_s),
            approval_id=ended.hold.id,
            expires_at=iso(ended.hold.expires_at_ms / 1000),
        )

    def _shown(self, step: int, items: Iterable[Delta]) -> Iterator[Event]:
        for item in items:
            match item:
                case TextDelta():
                    text = item.text
                    if self._tally is not None:
                        self._tally.add_text(step, text)
                    if text and step != self._text_step:
                        text = BETWEEN_STEPS + text if self._text_step else text
                        self._text_step = step
                    yield Added(content=text)
                case ReasoningDelta():
                    # It has no event, but what follows it is found again by both measures.
                    if self._tally is not None:
                        self._tally.add_reasoning(step, item.text)
                case CallDelta() | ResultDelta():
                    pass
                case _:
                    assert_never(item)

    def _event(self, place: Place, k: int, event: Event) -> bytes:
        tail = b"" if self._tally is None else self._tally.tail(place.step)
        return b"%b%d.%d.%d.%d%b\ndata: %b\n\n" % (self._id, *place, k, tail, encode(event))
