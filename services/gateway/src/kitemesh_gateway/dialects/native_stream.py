"""From canonical deltas to the native events, one line of JSON each. Pure.

Every event says which step it belongs to, so that none depends on the one before it. A turn that failed has ended, and
is told so; the event `error` says only that this stream cannot tell the rest.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, assert_never

from kitemesh_contracts.codec import encode
from kitemesh_contracts.content import Step
from kitemesh_contracts.deltas import CallDelta, Delta, HoldRef, ReasoningDelta, ResultDelta, TextDelta, TurnEnded
from kitemesh_contracts.errors import MEANINGS, ErrorCode, ErrorInfo
from kitemesh_gateway.dialects.base import Facts, Place, Rest, Tally
from kitemesh_gateway.dialects.native_answers import ExecutionStatus
from kitemesh_gateway.dialects.native_events import (
    Broken,
    CallRequested,
    Ended,
    Event,
    Held,
    MadeCall,
    OpenCall,
    ReasoningAdded,
    Started,
    TextAdded,
)
from kitemesh_gateway.dialects.native_rendering import failure_out, made_status, usage_out
from kitemesh_gateway.instants import iso
from kitemesh_gateway.positions import Position

WORDS: Final = "n"

_OF_THE_STREAM: Final = frozenset(
    {ErrorCode.DRAINING, ErrorCode.STREAM_GAP, ErrorCode.TURN_LOST, ErrorCode.INTERNAL, ErrorCode.CONTRACT_VIOLATED}
)
"""Codes that do not say how the turn stands."""


class NativeEncoder:
    """One stream's bytes."""

    __slots__ = ("_facts", "_id", "_tally")

    def __init__(self, facts: Facts) -> None:
        self._facts: Final = facts
        tally = Tally(facts.after_step, usage=facts.include_usage, words=WORDS) if facts.resumable else None
        self._tally: Final = tally
        self._id = b"id: %b:" % facts.turn.encode()

    def start(self) -> bytes:
        """Return the event that names the turn."""
        facts = self._facts
        started = Started(
            execution_id=facts.turn,
            request_id=facts.label,
            conversation_id=facts.conversation,
            model=facts.model,
            created_at=iso(facts.created_s),
        )
        tail = b"" if self._tally is None else self._tally.tail(facts.after_step)
        return b"%b%d.0.0.0%b\ndata: %b\n\n" % (self._id, facts.after_step, tail, encode(started))

    def resume(self, position: Position) -> None:
        """Do nothing: what follows depends on the texts alone."""

    def delta(self, place: Place, items: Sequence[Delta]) -> bytes:
        """Return one event for each item; a call is told once, with its first piece."""
        return b"".join(self._event(place, k, event) for k, event in enumerate(self._shown(place.step, items)))

    def end(self, ended: TurnEnded, rest: Sequence[Rest]) -> bytes:
        """Return what was not shown, and how the turn stands."""
        ends = {each.step: Place(each.step, each.attempt, each.last + 1) for each in ended.earlier}
        ends[ended.step] = place = Place(ended.step, ended.attempt, ended.last + 1)
        events = [
            self._event(ends[step], k, event)
            for step, items in rest
            for k, event in enumerate(self._shown(step, items))
        ]
        events.append(self._event(place._replace(n=place.n + 1), 0, _closing(ended)))
        return b"".join(events)

    def error(self, place: Place, error: ErrorInfo, request_id: str) -> bytes:
        """Return the event that closes a stream whose turn has no answer, or which cannot tell it."""
        event: Event
        if error.code in _OF_THE_STREAM:
            event = Broken(error=failure_out(error), request_id=request_id)
        else:
            event = Ended(status=_status(error.code), error=failure_out(error))
        return self._event(place, 0, event) if self._tally is None else b"data: %b\n\n" % encode(event)

    def whole(self, ended: TurnEnded) -> bytes:
        """Return how the turn stands."""
        return encode(_closing(ended))

    def _shown(self, step: int, items: Iterable[Delta]) -> Iterator[Event]:
        tally = self._tally
        for item in items:
            match item:
                case TextDelta():
                    if tally is not None:
                        tally.add_text(step, item.text)
                    yield TextAdded(step=step, text=item.text)
                case ReasoningDelta():
                    if tally is not None:
                        tally.add_reasoning(step, item.text)
                    yield ReasoningAdded(step=step, text=item.text)
                case CallDelta():
                    if item.id:
                        if tally is not None:
                            tally.add_call(step, item.index)
                        yield CallRequested(step=step, tool_execution_id=item.id, name=item.name)
                case ResultDelta():
                    pass
                case _:
                    assert_never(item)

    def _event(self, place: Place, k: int, event: Event) -> bytes:
        tail = b"" if self._tally is None else self._tally.tail(place.step)
        return b"%b%d.%d.%d.%d%b\ndata: %b\n\n" % (self._id, *place, k, tail, encode(event))


def _closing(ended: TurnEnded) -> Held | Ended:
    open_calls = tuple(
        OpenCall(tool_execution_id=call.id, name=call.name, arguments=call.arguments) for call in ended.calls
    )
    made = tuple(_made(ended.earlier))
    if isinstance(ended.hold, HoldRef):
        return Held(
            approval_id=ended.hold.id,
            expires_at=iso(ended.hold.expires_at_ms / 1000),
            to_decide=open_calls,
            tool_calls=made,
            usage=usage_out(ended.usage),
        )
    return Ended(
        status="completed",
        finish_reason="tool_calls" if ended.calls else ended.finish or "stop",
        usage=usage_out(ended.usage),
        to_run=open_calls,
        tool_calls=made,
        stored=ended.stored,
    )


def _made(steps: Iterable[Step]) -> Iterator[MadeCall]:
    for step in steps:
        results = {result.call: result for result in step.results}
        for call in step.calls:
            status = made_status(results.get(call.id))
            yield MadeCall(step=step.step, tool_execution_id=call.id, name=call.name, status=status)


def _status(code: ErrorCode) -> ExecutionStatus:
    if code is ErrorCode.TURN_TIMEOUT:
        return "expired"
    return "cancelled" if MEANINGS[code].outcome == "cancelled" else "failed"
