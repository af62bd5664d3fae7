"""From canonical deltas to the bytes of `kernel2`: chunks that each have one choice with a delta, then `[DONE]`. Pure.

A reader of this dialect looks into the first choice of whatever comes, so there is no event without one: token counts
and failures go with the last chunk. Tools run here or not at all, and their calls are not shown.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, assert_never

from kitemesh_contracts.codec import encode
from kitemesh_contracts.deltas import CallDelta, Delta, ReasoningDelta, ResultDelta, TextDelta, TurnEnded
from kitemesh_contracts.errors import MEANINGS, ErrorInfo
from kitemesh_gateway.dialects.base import Facts, Place, Rest, Tally
from kitemesh_gateway.dialects.completions_answers import usage_out
from kitemesh_gateway.dialects.completions_encoder import BETWEEN_STEPS, FINGERPRINT
from kitemesh_gateway.dialects.kernel2_answers import (
    KernelChoice,
    KernelCompletion,
    KernelDelta,
    KernelMessage,
    KernelRefusal,
)
from kitemesh_gateway.positions import Position

_ROLE: Final = b'{"role":"assistant","content":""}'
_NO_MORE: Final = b'{"content":""}'
_NOTHING: Final = b"{}"
_STOP: Final = b'"stop"'
_DONE: Final = b"data: [DONE]\n\n"


class KernelEncoder:
    """One answer's bytes."""

    __slots__ = ("_content", "_data", "_facts", "_id", "_reasoning_step", "_tally", "_text_step")

    def __init__(self, facts: Facts) -> None:
        self._facts: Final = facts
        self._text_step = self._reasoning_step = 0
        self._tally: Final = Tally(facts.after_step, usage=facts.include_usage) if facts.resumable else None
        self._id = b"id: %b:" % facts.turn.encode()
        self._data = (
            b'data: {"id":"chatcmpl-%b","object":"chat.completion.chunk","created":%d,"model":%b,'
            b'"system_fingerprint":"%b","choices":[{"index":0,"delta":'
            % (facts.turn.encode(), facts.created_s, encode(facts.model), FINGERPRINT.encode())
        )
        self._content = b"\n" + self._data + b'{"content":'

    def start(self) -> bytes:
        """Return the chunk that names the role."""
        return self._line(Place(self._facts.after_step, 0, 0), 0) + self._chunk(_ROLE)

    def resume(self, position: Position) -> None:
        """Do nothing: what follows depends on the texts alone."""

    def delta(self, place: Place, items: Sequence[Delta]) -> bytes:
        """Return one chunk for each item that is shown."""
        if len(items) == 1 and type(items[0]) is TextDelta and place.step == self._text_step:
            text = items[0].text
            tail = b""
            if self._tally is not None:
                self._tally.add_text(place.step, text)
                tail = self._tally.tail(place.step)
            return b'%b%d.%d.%d.0%b%b%b},"finish_reason":null}]}\n\n' % (
                self._id,
                *place,
                tail,
                self._content,
                encode(text),
            )
        return self._chunks(place, items)

    def end(self, ended: TurnEnded, rest: Sequence[Rest]) -> bytes:
        """Return what was not shown, the last chunk and `[DONE]`."""
        ends = {each.step: Place(each.step, each.attempt, each.last + 1) for each in ended.earlier}
        ends[ended.step] = Place(ended.step, ended.attempt, ended.last + 1)
        events = [self._chunks(ends[step], items) for step, items in rest]
        place = Place(ended.step, ended.attempt, ended.last + 2)
        usage = b',"usage":%b' % encode(usage_out(ended.usage)) if self._facts.include_usage else b""
        events += [self._line(place, 0), self._chunk(_NO_MORE, _STOP, usage), self._line(place, 1), _DONE]
        return b"".join(events)

    def error(self, place: Place, error: ErrorInfo, request_id: str) -> bytes:  # noqa: ARG002  a header has the request
        """Return the last chunk, which says what went wrong, and `[DONE]`."""
        told = self._chunk(_NOTHING, _STOP, b',"error":%b' % encode(refusal(error)))
        if self._tally is not None:
            return told + _DONE
        return b"".join((self._line(place, 0), told, self._line(place, 1), _DONE))

    def whole(self, ended: TurnEnded) -> bytes:
        """Return a `chat.completion`."""
        facts = self._facts
        message = KernelMessage(
            role="assistant",
            content=_joined([*(step.text for step in ended.earlier), ended.text]),
            reasoning_content=_joined([*(step.reasoning for step in ended.earlier), ended.reasoning]),
        )
        return encode(
            KernelCompletion(
                id=f"chatcmpl-{facts.turn}",
                created=facts.created_s,
                model=facts.model,
                system_fingerprint=FINGERPRINT,
                choices=(KernelChoice(index=0, message=message, finish_reason="stop"),),
                usage=usage_out(ended.usage),
            ),
        )

    def _chunks(self, place: Place, items: Iterable[Delta]) -> bytes:
        events: list[bytes] = []
        for k, delta in enumerate(self._shown(place.step, items)):
            # In this order: the delta was counted when it was made.
            events += [self._line(place, k), self._chunk(encode(delta))]
        return b"".join(events)

    def _line(self, place: Place, k: int) -> bytes:
        tail = b"" if self._tally is None else self._tally.tail(place.step)
        return b"%b%d.%d.%d.%d%b\n" % (self._id, *place, k, tail)

    def _chunk(self, delta: bytes, finish: bytes = b"null", extra: bytes = b"") -> bytes:
        return b'%b%b,"finish_reason":%b}]%b}\n\n' % (self._data, delta, finish, extra)

    def _shown(self, step: int, items: Iterable[Delta]) -> Iterator[KernelDelta]:
        for item in items:
            match item:
                case TextDelta():
                    text = item.text
                    if self._tally is not None:
                        self._tally.add_text(step, text)
                    if text and step != self._text_step:
                        text = BETWEEN_STEPS + text if self._text_step else text
                        self._text_step = step
                    yield KernelDelta(content=text)
                case ReasoningDelta():
                    reasoning = item.text
                    if self._tally is not None:
                        self._tally.add_reasoning(step, reasoning)
                    if reasoning and step != self._reasoning_step:
                        reasoning = BETWEEN_STEPS + reasoning if self._reasoning_step else reasoning
                        self._reasoning_step = step
                    yield KernelDelta(reasoning_content=reasoning)
                case CallDelta() | ResultDelta():
                    pass
                case _:
                    assert_never(item)


def refusal(error: ErrorInfo) -> KernelRefusal:
    """Render an error."""
    return KernelRefusal(success=False, message=error.message, code=MEANINGS[error.code].status)


def _joined(texts: Iterable[str]) -> str:
    return BETWEEN_STEPS.join(text for text in texts if text)
