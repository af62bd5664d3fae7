"""From stored conversations and their turns to what the native routes answer. Pure."""

import re
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from kitemesh_contracts.content import (
    AssistantMessage,
    FilePart,
    Message,
    SystemMessage,
    ToolMessage,
    UserMessage,
    files_of,
    user_text,
)
from kitemesh_gateway.dialects.conversations_answers import ConversationOut, FileOut, MessageOut
from kitemesh_gateway.dialects.native_answers import CallOut
from kitemesh_gateway.dialects.native_rendering import execution_out
from kitemesh_gateway.instants import iso
from kitemesh_runtime.conversations import Conversation
from kitemesh_runtime.holds import Hold
from kitemesh_runtime.live_turns import LiveTurn
from kitemesh_runtime.turns import TurnRecord

Role = Literal["system", "user", "assistant", "tool"]

_PLACE: Final = re.compile(r"\A([0-9]{1,9})-([0-9]{1,6})\Z")


class Place(NamedTuple):
    """Where a message stands in its conversation.

    Attributes:
        nth: Within the turn, from 0.

    """

    ordinal: int
    nth: int


class Placed(NamedTuple):
    """A message and its place."""

    place: Place
    message: MessageOut


def place_text(place: Place) -> str:
    """Return what a cursor says; `read_place` reads it again."""
    return f"{place.ordinal}-{place.nth}"


def read_place(text: str) -> Place | None:
    """Read what a cursor says; `None` when it says something else."""
    match = _PLACE.match(text)
    return None if match is None else Place(int(match[1]), int(match[2]))


def conversation_out(kept: Conversation, now_s: float) -> ConversationOut:
    """Render a conversation. A lock that ran out is nobody's."""
    is_active = kept.active_until_s is not None and kept.active_until_s > now_s
    return ConversationOut(
        id=kept.id,
        title=kept.title or None,
        metadata=kept.metadata,
        agent=kept.agent,
        model=kept.model or None,
        created_at=iso(kept.created_at_s),
        updated_at=iso(kept.updated_at_s),
        turns=kept.turns,
        active_execution_id=kept.active if is_active else None,
        waiting=len(kept.waiting),
    )


def messages_of(turn: LiveTurn | TurnRecord, hold: Hold | None) -> list[Placed]:
    """Render what was said in a turn so far, in order.

    Args:
        turn: Live or ended.
        hold: The one that it waits for.

    """
    said_at = iso(turn.accepted_at_ms / 1000)
    told_at = iso(turn.updated_at_s if isinstance(turn, LiveTurn) else turn.ended_at_ms / 1000)
    spoken = [*_asked(turn), *_answered(turn, hold)]
    last = len(spoken) - 1 if isinstance(turn, TurnRecord) and spoken and spoken[-1].role == "assistant" else None
    return [
        Placed(
            Place(turn.ordinal, index),
            MessageOut(
                id=turn.id if index == last else each.name or f"{turn.id}-{index}",
                role=each.role,
                content=each.text,
                execution_id=turn.id,
                created_at=told_at if each.role == "assistant" else said_at,
                files=each.files,
                tool_calls=each.calls,
                tool_call_id=each.call,
            ),
        )
        for index, each in enumerate(spoken)
    ]


class _Said(NamedTuple):
    role: Role
    text: str
    name: str = ""
    files: tuple[FileOut, ...] = ()
    calls: tuple[CallOut, ...] = ()
    call: str = ""


def _asked(turn: LiveTurn | TurnRecord) -> Iterator[_Said]:
    newest = max((index for index, each in enumerate(turn.input) if isinstance(each, UserMessage)), default=None)
    for index, message in enumerate(turn.input):
        yield _said(message, turn.message if index == newest else "")


def _said(message: Message, name: str) -> _Said:
    match message:
        case UserMessage():
            return _Said("user", user_text(message), name, files=tuple(map(_file, files_of(message))))
        case SystemMessage():
            return _Said("system", message.text)
        case ToolMessage():
            return _Said("tool", message.text, call=message.call)
        case AssistantMessage():
            return _Said("assistant", message.text)


def _answered(turn: LiveTurn | TurnRecord, hold: Hold | None) -> Iterator[_Said]:
    """Tell the steps, with what a person added to each behind it."""
    texts = {step.step: step.texts for step in turn.steps}
    for step in execution_out(turn, hold).steps:
        yield _Said("assistant", step.text, calls=step.tool_calls)
        for text in texts.get(step.step, ()):
            yield _Said("user", text)


def _file(part: FilePart) -> FileOut:
    return FileOut(media_type=part.media_type, name=part.name, size=part.size, url=part.url)
