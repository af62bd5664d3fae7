"""The calls of one stream: which of them were told, how far, and what of a call or a result is still to be told. Pure.

A call, and what came of it, may be given any number of times: by another attempt, by a catch-up, and once more by the
event that closes the stream. Each is told once.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import msgspec

from kitemesh_contracts.content import ToolCall
from kitemesh_contracts.deltas import ResultDelta
from kitemesh_contracts.errors import MEANINGS, ErrorCode, ErrorInfo
from kitemesh_gateway.dialects.run_chat_events import (
    ApprovalRequested,
    Event,
    InputAdded,
    InputAvailable,
    InputRefused,
    InputStart,
    OutputAvailable,
    OutputDenied,
    OutputRefused,
)
from kitemesh_gateway.dialects.run_chat_inputs import Arguments
from kitemesh_runtime.catalog_tools import Tool

_BLANKS: Final = " \t\r\n"
NOT_MADE: Final = "The call was not made"
NOT_AN_OBJECT: Final = "The arguments are not a JSON object"
_INTERNAL: Final = "It failed for an internal reason"
_NEVER_CALLS: Final = frozenset({ErrorCode.TOOL_ARGUMENTS, ErrorCode.TOOL_UNKNOWN})
"""Errors of what a model wrote: nothing was called."""


class _Call:
    """A call.

    Attributes:
        input: The complete arguments, as they were told last; `None` before that.

    """

    __slots__ = ("arguments", "id", "input", "is_held", "name", "step")

    def __init__(self, step: int, call: str, name: str, tool: Tool | None) -> None:
        self.step: Final = step
        self.id: Final = call
        self.name = name
        self.arguments = Arguments(tool)
        self.input: dict[str, Any] | None = None
        self.is_held = False


class Calls:
    """The calls of one stream.

    Args:
        tools: What may be secret in the arguments of each.
        after_step: The calls of this step were told by an earlier stream; 0 when there was none.

    """

    def __init__(self, tools: Mapping[str, Tool], after_step: int = 0) -> None:
        self._tools: Final = tools
        self._after_step: Final = after_step
        self._calls: dict[str, _Call] = {}
        self._places: dict[int, _Call] = {}
        self._answered: set[str] = set()
        self._step = 0

    def has(self, call: str) -> bool:
        """Tell whether the call was told here."""
        return call in self._calls

    def count_whole(self) -> int:
        """Return how many calls of the step, the first ones, have all their arguments."""
        count = 0
        while (call := self._places.get(count)) is not None and call.input is not None:
            count += 1
        return count

    def begin(self, step: int, index: int, call: str, name: str) -> Iterator[Event]:
        """Take the first piece of a call."""
        if step != self._step:
            self._step = step
            self._places.clear()
        known = self._calls.get(call)
        if known is None:
            known = self._calls[call] = _Call(step, call, name, self._tools.get(name))
            yield InputStart(tool_call_id=call, tool_name=name)
        elif name != known.name and call not in self._answered:
            # Another attempt calls another tool in its place.
            known.name, known.arguments, known.input = name, Arguments(self._tools.get(name)), None
            yield InputStart(tool_call_id=call, tool_name=name)
        else:
            known.arguments.restart()
        self._places[index] = known

    def add(self, step: int, index: int, arguments: str) -> Iterator[Event]:
        """Take a piece of a call's arguments; an object that has its last brace is complete."""
        call = self._places.get(index) if step == self._step else None
        if call is None or call.id in self._answered:
            return
        piece = call.arguments.add(arguments)
        if piece and call.input is None:
            yield InputAdded(tool_call_id=call.id, input_text_delta=piece)
        if arguments.rstrip(_BLANKS).endswith("}"):
            values = call.arguments.complete()
            # Another attempt may have other arguments.
            if values is not None and values != call.input:
                yield self._available(call, values)

    def settle(self, call: ToolCall) -> Iterator[Event]:
        """Take a call that was begun as it is stored: pieces of it may be lost, or another attempt's."""
        known = self._calls.get(call.id)
        if known is None or call.id in self._answered:
            return
        if known.name != call.name:
            yield from self.begin(known.step, -1, call.id, call.name)
        known.arguments.restart()
        known.arguments.add(call.arguments)
        values = known.arguments.complete()
        if values is not None and values != known.input:
            yield self._available(known, values)

    def complete(self, call_id: str) -> Iterator[Event]:
        """Take it that a call has all its arguments."""
        call = self._calls.get(call_id)
        if call is None or call.input is not None or call_id in self._answered:
            return
        values = call.arguments.complete()
        if values is None:
            yield self._refuse(call, NOT_AN_OBJECT)
        else:
            yield self._available(call, values)

    def make_ready(self, call_id: str) -> Iterator[Event]:
        """Tell a call's arguments if they were not told and are an object."""
        call = self._calls.get(call_id)
        values = None if call is None or call.input is not None else call.arguments.complete()
        if call is not None and values is not None and call_id not in self._answered:
            yield self._available(call, values)

    def hold(self, call_id: str) -> Iterator[Event]:
        """Take it that a call waits for a person."""
        yield from self.complete(call_id)
        call = self._calls.get(call_id)
        if call is not None and not call.is_held and call_id not in self._answered:
            call.is_held = True
            yield ApprovalRequested(approval_id=call_id, tool_call_id=call_id)
        elif call is None and self._after_step:
            yield ApprovalRequested(approval_id=call_id, tool_call_id=call_id)

    def answer(self, step: int, result: ResultDelta) -> Iterator[Event]:
        """Take what came of a call.

        Args:
            step: Where it is told, which is behind the step of the call, or that step itself at the end.
            result: Of the call.

        """
        call = self._calls.get(result.call)
        is_of_before = bool(self._after_step) and step <= self._after_step + 1
        if result.call in self._answered or (call is None and not is_of_before):
            return
        error = result.error
        if call is not None:
            if error is not None and error.code in _NEVER_CALLS and call.input is None:
                yield self._refuse(call, _told(error))
                return
            yield from self.complete(result.call)
            if result.call in self._answered:
                return
        self._answered.add(result.call)
        if error is None:
            yield OutputAvailable(tool_call_id=result.call, output=_output(result.text))
        elif call is None and error.code is ErrorCode.TOOL_DENIED and error.approval is not None:
            # Only a client that answered knows of the answer; to any other one it is an error like any other.
            yield OutputDenied(tool_call_id=result.call)
        else:
            yield OutputRefused(tool_call_id=result.call, error_text=_told(error))

    def give_up(self, before: int, spared: Collection[str] = ()) -> Iterator[Event]:
        """Take it that no call of a step before that one gets a result any more, but for those that are spared."""
        for call in list(self._calls.values()):
            if call.step >= before or call.id in self._answered or call.id in spared:
                continue
            if call.input is None:
                yield self._refuse(call, NOT_MADE)
            else:
                self._answered.add(call.id)
                yield OutputRefused(tool_call_id=call.id, error_text=NOT_MADE)

    def _refuse(self, call: _Call, why: str) -> InputRefused:
        self._answered.add(call.id)
        values = call.arguments.complete()
        return InputRefused(tool_call_id=call.id, tool_name=call.name, input=values, error_text=why)

    @staticmethod
    def _available(call: _Call, values: dict[str, Any]) -> InputAvailable:
        call.input = values
        return InputAvailable(tool_call_id=call.id, tool_name=call.name, input=values)


def _told(error: ErrorInfo) -> str:
    is_internal = MEANINGS[error.code].status == MEANINGS[ErrorCode.INTERNAL].status
    return _INTERNAL if is_internal else error.message


def _output(text: str) -> Any:
    if text[:1] in ("{", "["):
        try:
            return msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            pass
    return text
