"""From canonical deltas to the bytes of `chat.completion` and its chunks. Pure.

What every chunk of a stream repeats is put together once; a delta costs one encoded string and one concatenation. The
texts of a turn's steps are one text here, parted by a blank line. The first choice is streamed, the others come whole
at the end.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, assert_never

from kitemesh_contracts.codec import encode
from kitemesh_contracts.content import Alternative, FinishReason
from kitemesh_contracts.deltas import CallDelta, Delta, ReasoningDelta, ResultDelta, TextDelta, TurnEnded
from kitemesh_contracts.errors import ErrorCode, ErrorInfo
from kitemesh_gateway.dialects.base import Facts, Place, Rest, Tally
from kitemesh_gateway.dialects.completions_answers import (
    ChoiceOut,
    Completion,
    DeltaOut,
    KitemeshOut,
    MessageOut,
    call_out,
    logprobs_out,
    usage_out,
)
from kitemesh_gateway.dialects.completions_calls import LiveCalls
from kitemesh_gateway.dialects.completions_choices import (
    TellingLogprobs,
    choice_out,
    delta_out,
    finish_of,
    logprobs_member,
)
from kitemesh_gateway.dialects.completions_errors import error_body
from kitemesh_gateway.hops import hops_of
from kitemesh_gateway.instants import iso
from kitemesh_gateway.positions import Position

FINGERPRINT: Final = "fp_kitemesh"
BETWEEN_STEPS: Final = "\n\n"
_ROLE: Final = b'{"role":"assistant","content":""}'
_NOTHING: Final = b"{}"
_NO_TEXT: Final = b'{"content":""}'


class CompletionsEncoder:
    """One answer's bytes."""

    __slots__ = (
        "_calls",
        "_close",
        "_content",
        "_data",
        "_facts",
        "_id",
        "_logprobs",
        "_no_usage",
        "_reasoning_step",
        "_tally",
        "_text_step",
    )

    def __init__(self, facts: Facts) -> None:
        self._facts: Final = facts
        self._text_step = self._reasoning_step = 0
        self._logprobs: Final = TellingLogprobs()
        self._calls: Final = LiveCalls(facts)
        self._tally: Final = Tally(facts.after_step, usage=facts.include_usage) if facts.resumable else None
        self._id = b"id: %b:" % facts.turn.encode()
        self._no_usage = b',"usage":null' if facts.include_usage else b""
        self._data = (
            b'\ndata: {"id":"chatcmpl-%b","object":"chat.completion.chunk","created":%d,"model":%b,'
            b'"system_fingerprint":"%b","choices":['
            % (facts.turn.encode(), facts.created_s, encode(facts.model), FINGERPRINT.encode())
        )
        self._content = self._data + b'{"index":0,"delta":{"content":'
        self._close = b'},"finish_reason":null}]%b}\n\n' % self._no_usage

    def start(self) -> bytes:
        """Return the chunk that names the role."""
        return self._chunk(Place(self._facts.after_step, 0, 0), 0, _ROLE)

    def resume(self, position: Position) -> None:
        """Do nothing: what follows depends on the texts alone."""

    def delta(self, place: Place, items: Sequence[Delta]) -> bytes:
        """Return one chunk for each item that is shown."""
        if (
            len(items) == 1
            and type(item := items[0]) is TextDelta
            and place.step == self._text_step
            and not item.logprobs
        ):
            text = item.text
            tail = b""
            if self._tally is not None:
                self._tally.add_text(place.step, text)
                tail = self._tally.tail(place.step)
            return b"%b%d.%d.%d.0%b%b%b%b" % (self._id, *place, tail, self._content, encode(text), self._close)
        return b"".join(self._chunk(place, k, *shown) for k, shown in enumerate(self._shown(place.step, items)))

    def end(self, ended: TurnEnded, rest: Sequence[Rest]) -> bytes:
        """Return what was not shown, the calls, the finish reason, the usage if it was asked for, and `[DONE]`."""
        ends = {each.step: Place(each.step, each.attempt, each.last + 1) for each in ended.earlier}
        ends[ended.step] = Place(ended.step, ended.attempt, ended.last + 1)
        self._logprobs.expect(ended)
        events = [
            self._chunk(ends[step], k, *shown)
            for step, items in rest
            for k, shown in enumerate(self._shown(step, items))
        ]
        place = Place(ended.step, ended.attempt, ended.last + 2)
        more = [(encode(delta), b"") for delta in self._calls.rest(ended.calls)]
        left = logprobs_member(self._logprobs.left())
        if left:
            more.insert(0, (_NO_TEXT, left))
        events += [self._chunk(place, k, *each) for k, each in enumerate(more)]
        k = len(more)
        if self._calls.diverged:
            events.append(self.error(place._replace(n=place.n + 1), _gap(self._facts.turn), self._facts.label))
            return b"".join(events)
        for each in ended.alternatives:
            events += self._alternative(place, k, each)
            k += 2
        timings = hops_of(ended, again=self._facts.resumable)
        kitemesh = b',"kitemesh":%b' % encode(self._kitemesh(ended, timings))
        events.append(self._chunk(place, k, _NOTHING, finish=_finish(ended), extra=kitemesh))
        if self._facts.include_usage:
            k += 1
            usage = encode(usage_out(ended.usage))
            events.append(b'%b%b],"usage":%b}\n\n' % (self._line(place, k), self._data, usage))
        events.append(self._line(place, k + 1) + b"\ndata: [DONE]\n\n")
        return b"".join(events)

    def error(self, place: Place, error: ErrorInfo, request_id: str) -> bytes:
        """Return the error as the last event: no `[DONE]` follows."""
        line = b"" if self._tally is not None else self._line(place, 0) + b"\n"
        return b"%bdata: %b\n\n" % (line, error_body(error, request_id=request_id))

    def whole(self, ended: TurnEnded) -> bytes:
        """Return a `chat.completion`."""
        facts = self._facts
        text = _joined([*(step.text for step in ended.earlier), ended.text])
        return encode(
            Completion(
                id=f"chatcmpl-{facts.turn}",
                created=facts.created_s,
                model=facts.model,
                system_fingerprint=FINGERPRINT,
                choices=(
                    ChoiceOut(
                        index=0,
                        message=MessageOut(
                            role="assistant",
                            content=None if ended.hold is not None or (ended.calls and not text) else text,
                            reasoning_content=_joined([*(step.reasoning for step in ended.earlier), ended.reasoning]),
                            tool_calls=tuple(call_out(call) for call in ended.calls),
                        ),
                        logprobs=logprobs_out(ended.logprobs),
                        finish_reason=_finish(ended),
                    ),
                    *map(choice_out, ended.alternatives),
                ),
                usage=usage_out(ended.usage),
                kitemesh=self._kitemesh(ended),
            ),
        )

    def _line(self, place: Place, k: int) -> bytes:
        tail = b"" if self._tally is None else self._tally.tail(place.step)
        return b"%b%d.%d.%d.%d%b" % (self._id, *place, k, tail)

    def _chunk(
        self,
        place: Place,
        k: int,
        delta: bytes,
        logprobs: bytes = b"",
        *,
        index: int = 0,
        finish: str | None = None,
        extra: bytes = b"",
    ) -> bytes:
        return b'%b%b{"index":%d,"delta":%b%b,"finish_reason":%b}]%b%b}\n\n' % (
            self._line(place, k),
            self._data,
            index,
            delta,
            logprobs,
            encode(finish),
            self._no_usage,
            extra,
        )

    def _alternative(self, place: Place, k: int, choice: Alternative) -> Iterator[bytes]:
        """Return a further choice: one chunk that has it all, and one that finishes it."""
        delta = encode(delta_out(choice))
        yield self._chunk(place, k, delta, logprobs_member(choice.logprobs), index=choice.index)
        yield self._chunk(place, k + 1, _NOTHING, index=choice.index, finish=finish_of(choice))

    def _kitemesh(self, ended: TurnEnded, timings: Mapping[str, float] = {}) -> KitemeshOut:
        facts = self._facts
        return KitemeshOut(
            execution_id=facts.turn,
            request_id=facts.label,
            conversation_id=facts.conversation,
            stored=ended.stored,
            approval_id=ended.hold.id if ended.hold else None,
            expires_at=iso(ended.hold.expires_at_ms / 1000) if ended.hold else None,
            timings=timings,
        )

    def _shown(self, step: int, items: Iterable[Delta]) -> Iterator[tuple[bytes, bytes]]:
        for item in items:
            match item:
                case TextDelta():
                    text = item.text
                    if self._tally is not None:
                        self._tally.add_text(step, text)
                    if text and step != self._text_step:
                        text = BETWEEN_STEPS + text if self._text_step else text
                        self._text_step = step
                    yield encode(DeltaOut(content=text)), logprobs_member(self._logprobs.of(step, item))
                case ReasoningDelta():
                    reasoning = item.text
                    if self._tally is not None:
                        self._tally.add_reasoning(step, reasoning)
                    if reasoning and step != self._reasoning_step:
                        reasoning = BETWEEN_STEPS + reasoning if self._reasoning_step else reasoning
                        self._reasoning_step = step
                    yield encode(DeltaOut(reasoning_content=reasoning)), b""
                case CallDelta():
                    delta = self._calls.tell(step, item)
                    if delta is not None:
                        yield encode(delta), b""
                case ResultDelta():
                    pass
                case _:
                    assert_never(item)


def _gap(turn: str) -> ErrorInfo:
    message = f"The calls that this stream began are not those of the answer; GET /v1/executions/{turn} shows what is"
    return ErrorInfo(code=ErrorCode.STREAM_GAP, message=message)


def _finish(ended: TurnEnded) -> FinishReason:
    return "tool_calls" if ended.calls else ended.finish or "stop"


def _joined(texts: Iterable[str]) -> str:
    return BETWEEN_STEPS.join(text for text in texts if text)
