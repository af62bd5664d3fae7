"""From canonical deltas to the bytes of the UI message stream. Pure.

A turn is one message, each of its model calls a step of it. A step is closed by what is told of the next one, because
what its calls came to stands in between. The same holds for a piece of text, which anything else closes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Final, Literal, assert_never

from msgspec.structs import replace

from kitemesh_contracts.codec import encode
from kitemesh_contracts.content import FinishReason, Step
from kitemesh_contracts.deltas import (
    CallDelta,
    Delta,
    ReasoningDelta,
    ResultDelta,
    TextDelta,
    TurnEnded,
    result_delta,
)
from kitemesh_contracts.errors import ErrorCode, ErrorInfo
from kitemesh_gateway.dialects.base import Facts, Place, Rest, Tally
from kitemesh_gateway.dialects.run_chat_answers import answer_body
from kitemesh_gateway.dialects.run_chat_calls import Calls
from kitemesh_gateway.dialects.run_chat_events import (
    Event,
    Failed,
    Finish,
    FinishReasonOut,
    FinishStep,
    InputAvailable,
    MetadataOut,
    ReasoningAdded,
    ReasoningEnd,
    ReasoningStart,
    Start,
    StartStep,
    TextAdded,
    TextEnd,
    TextStart,
)
from kitemesh_gateway.dialects.run_chat_operations import with_operations
from kitemesh_gateway.instants import iso
from kitemesh_gateway.positions import Position
from kitemesh_runtime.catalog_tools import Tool

WORDS: Final = "r"
WORDS_WITH_OPERATIONS: Final = "o"

_FINISHES: Final[Mapping[FinishReason, FinishReasonOut]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool-calls",
    "content_filter": "content-filter",
}
_BLOCKS: Final[Mapping[str, Literal["text", "reasoning"]]] = {"t": "text", "g": "reasoning"}
_DONE: Final = b"data: [DONE]\n\n"


class RunChatEncoder:
    """One answer's bytes.

    Args:
        facts: About its turn.
        tools: What may be secret in the arguments of each.
        tells_operations: What the server does is told beside the message.

    """

    __slots__ = (
        "_block",
        "_calls",
        "_facts",
        "_id",
        "_is_in_step",
        "_is_started",
        "_position",
        "_step",
        "_tally",
        "_tells_operations",
        "_text_head",
        "_text_step",
    )

    def __init__(self, facts: Facts, tools: Mapping[str, Tool], *, tells_operations: bool = False) -> None:
        self._facts: Final = facts
        self._tells_operations: Final = tells_operations
        words = WORDS_WITH_OPERATIONS if tells_operations else WORDS
        tally = Tally(facts.after_step, usage=facts.include_usage, words=words) if facts.resumable else None
        self._tally: Final = tally
        self._calls: Final = Calls(tools, facts.after_step)
        self._id = b"id: %b:" % facts.turn.encode()
        self._is_started = self._is_in_step = False
        self._position: Position | None = None
        self._step = 0
        self._block: Literal["text", "reasoning"] | None = None
        self._text_step = 0
        self._text_head = b""

    def start(self) -> bytes:
        """Return the event that names the message."""
        self._is_started = True
        opened = Start(message_id=self._facts.turn, message_metadata=self._metadata())
        return self._written(Place(self._facts.after_step, 0, 0), (opened,))

    def resume(self, position: Position) -> None:
        """Have open what the client has open: parts may have ended, or begun, behind the last text that it has."""
        self._position = position
        if position.is_start or not position.parts:
            return
        block = _BLOCKS.get(position.parts.lower())
        if position.parts.islower():
            silent = self._enter(position.step)
        else:
            silent = self._leave() if position.parts == "E" else iter(())
        # Every one of these was told.
        for _ in (*silent, *(self._close_block() if block is None else self._open(self._step, block))):
            pass

    def delta(self, place: Place, items: Sequence[Delta]) -> bytes:
        """Return the events of each item."""
        if len(items) == 1 and type(items[0]) is TextDelta and place.step == self._text_step and items[0].text:
            text = items[0].text
            tail = b""
            if self._tally is not None:
                self._tally.add_text(place.step, text)
                self._tally.parts = b"t"
                tail = self._tally.tail(place.step)
            return b"%b%d.%d.%d.0%b%b%b}\n\n" % (self._id, *place, tail, self._text_head, encode(text))
        return self._written(place, self._shown(place.step, items))

    def end(self, ended: TurnEnded, rest: Sequence[Rest]) -> bytes:
        """Return what was not told, what closes the message, and `[DONE]`."""
        calls = ended.step_calls or ended.calls
        last = Step(step=ended.step, attempt=ended.attempt, last=ended.last, calls=calls, results=ended.results)
        place = Place(ended.step, ended.attempt, ended.last + 2)
        told: list[bytes] = []
        missing: Iterator[Event] = iter(())
        for step in (*ended.earlier, last):
            items = [item for each in rest if each.step == step.step for item in each.items]
            ending = self._completing(ended) if step is last else self._results(step)
            missing = chain(missing, self._shown(step.step, items), self._untold(step), ending)
            if step is not last and step.step <= self._facts.after_step:
                # No event of this stream has its place there.
                continue
            # A number would say that its client has all that the frames before it told.
            told.append(self._written(Place(step.step, step.attempt, 0), missing))
        if self._position is not None and self._position[:3] == place:
            # Its client has an event of those that close the stream, and so all that is in front of them.
            told.clear()
        # Which these are follows from the turn alone, whatever was told of it, so that they can be counted.
        closing = self._numbered(place, chain(self._results(last), self._closing(ended)))
        return b"".join((*told, *closing, self._line(place, len(closing)), _DONE))

    def error(self, place: Place, error: ErrorInfo, request_id: str) -> bytes:
        """Return what closes whatever is open, the error, and `[DONE]`."""
        opened = b"" if self._is_started or self._facts.resumable else self.start()
        events = [*self._broken_off(error)]
        events.append(Failed(error_text=error.message, code=error.code.value, request_id=request_id))
        if self._tally is None:
            told = self._numbered(place, events)
            return b"".join((opened, *told, self._line(place, len(told)), _DONE))
        told = [b"data: %b\n\n" % encode(event) for event in self._with_operations(events)]
        return b"".join((*told, _DONE))

    def whole(self, ended: TurnEnded) -> bytes:
        """Return a `chat.completion`."""
        return answer_body(self._facts, ended)

    def _shown(self, step: int, items: Iterable[Delta]) -> Iterator[Event]:
        tally = self._tally
        for item in items:
            match item:
                case TextDelta() | ReasoningDelta() if not item.text:
                    pass
                case TextDelta():
                    yield from self._open(step, "text")
                    if tally is not None:
                        tally.add_text(step, item.text)
                    yield TextAdded(id=f"text-{step}", delta=item.text)
                case ReasoningDelta():
                    yield from self._open(step, "reasoning")
                    if tally is not None:
                        tally.add_reasoning(step, item.text)
                    yield ReasoningAdded(id=f"reasoning-{step}", delta=item.text)
                case CallDelta():
                    yield from self._call(step, item)
                case ResultDelta():
                    yield from self._calls.answer(step, item)
                case _:
                    assert_never(item)

    def _call(self, step: int, item: CallDelta, *, counts: bool = True) -> Iterator[Event]:
        if item.id:
            if not self._calls.has(item.id):
                yield from self._enter(step)
                yield from self._close_block()
            yield from self._calls.begin(step, item.index, item.id, item.name)
        for event in self._calls.add(step, item.index, item.arguments):
            if counts and self._tally is not None and isinstance(event, InputAvailable):
                # Who comes back with less of a call is told all of it.
                self._tally.add_calls(step, self._calls.count_whole())
            yield event

    def _untold(self, step: Step) -> Iterator[Event]:
        """Tell the calls and the results of a step that nothing told so far."""
        for index, call in enumerate(step.calls):
            if self._calls.has(call.id):
                yield from self._calls.settle(call)
            elif step.step > self._facts.after_step:
                item = CallDelta(index=index, id=call.id, name=call.name, arguments=call.arguments)
                yield from self._call(step.step, item, counts=step.step >= self._step)

    def _results(self, step: Step) -> Iterator[Event]:
        for result in step.results:
            yield from self._calls.answer(step.step, result_delta(result))

    def _completing(self, ended: TurnEnded) -> Iterator[Event]:
        """Tell what else is missing of a step in front of the events that close its stream."""
        if ended.step > self._facts.after_step:
            yield from self._enter(ended.step)
        yield from self._close_block()
        open_calls = [call.id for call in ended.calls]
        answered = [result.call for result in ended.results]
        yield from self._calls.give_up(ended.step + 1, (*open_calls, *answered))
        for call in answered:
            yield from self._calls.make_ready(call)
        for call in open_calls:
            yield from self._calls.complete(call)

    def _closing(self, ended: TurnEnded) -> Iterator[Event]:
        if ended.hold is not None:
            for call in ended.calls:
                yield from self._calls.hold(call.id)
        yield from self._leave()
        finish: FinishReasonOut = "tool-calls" if ended.calls else _FINISHES[ended.finish or "stop"]
        yield Finish(finish_reason=finish, message_metadata=self._metadata(ended))

    def _broken_off(self, error: ErrorInfo) -> Iterator[Event]:
        # A client that is sent elsewhere goes on there with what is open.
        if error.code is not ErrorCode.DRAINING:
            yield from self._close_block()
            yield from self._calls.give_up(self._step + 1)
            yield from self._leave()

    def _enter(self, step: int) -> Iterator[Event]:
        """Begin a step, if it is not the one that is open."""
        if step <= self._step:
            return
        yield from self._close_block()
        yield from self._calls.give_up(step)
        yield from self._leave()
        self._step = step
        self._is_in_step = True
        yield StartStep()

    def _leave(self) -> Iterator[Event]:
        yield from self._close_block()
        if self._is_in_step:
            self._is_in_step = False
            yield FinishStep()

    def _open(self, step: int, block: Literal["text", "reasoning"]) -> Iterator[Event]:
        """Have a piece of text or reasoning open."""
        yield from self._enter(step)
        if self._block == block:
            return
        yield from self._close_block()
        self._block = block
        if block == "text":
            self._text_step = step
            self._text_head = b'\ndata: {"type":"text-delta","id":"text-%d","delta":' % step
            yield TextStart(id=f"text-{step}")
        else:
            yield ReasoningStart(id=f"reasoning-{step}")

    def _close_block(self) -> Iterator[Event]:
        block, self._block, self._text_step = self._block, None, 0
        if block == "text":
            yield TextEnd(id=f"text-{self._step}")
        elif block == "reasoning":
            yield ReasoningEnd(id=f"reasoning-{self._step}")

    def _metadata(self, ended: TurnEnded | None = None) -> MetadataOut:
        facts = self._facts
        known = MetadataOut(
            execution_id=facts.turn,
            conversation_id=facts.conversation,
            stored=ended is None or ended.stored,
        )
        if ended is not None and ended.hold is not None:
            expires_at = iso(ended.hold.expires_at_ms / 1000)
            return replace(known, approval_id=ended.hold.id, expires_at=expires_at)
        # The message still says what it waited for.
        return replace(known, approval_id=None, expires_at=None) if facts.after_step else known

    def _written(self, place: Place, events: Iterable[Event]) -> bytes:
        return b"".join(self._numbered(place, events))

    def _numbered(self, place: Place, events: Iterable[Event], first: int = 0) -> list[bytes]:
        """Write events of one place; each is counted before its id is written."""
        told = enumerate(self._with_operations(events), start=first)
        return [self._line(place, k) + b"data: %b\n\n" % encode(event) for k, event in told]

    def _with_operations(self, events: Iterable[Event]) -> Iterable[Event]:
        return with_operations(lambda: self._step, events) if self._tells_operations else events

    def _line(self, place: Place, k: int) -> bytes:
        tail = b""
        if self._tally is not None:
            # The event that opens a stream may be encoded behind others.
            self._tally.parts = self._parts(place.step) if place.n or place.attempt else b""
            tail = self._tally.tail(place.step)
        return b"%b%d.%d.%d.%d%b\n" % (self._id, *place, k, tail)

    def _parts(self, step: int) -> bytes:
        """Return what is open now: `t` a text, `g` reasoning, `s` neither.

        `T`, `G` and `N` say the same of the step before, where the event's own has not begun; `E`: that one is closed.
        """
        if step <= self._step:
            return b"s" if self._block is None else self._block[-1:].encode()
        if self._block is None:
            return b"N" if self._is_in_step else b"E"
        return self._block[-1:].upper().encode()
