"""The bodies of the routes of conversations, as `/openapi.json` shows them."""

from typing import Literal

from msgspec import Struct

from kitemesh_gateway.dialects.native_answers import CallOut


class ConversationOut(Struct, frozen=True, kw_only=True):
    """A conversation.

    Attributes:
        title: `null` until it is given one.
        agent: Whom it is with; `null` for a bare model.
        model: As the request that began it named it; `null` where that is not known.
        turns: How many messages of a user had their turn so far.
        active_execution_id: The turn that runs or is held.
        waiting: How many wait behind it.

    """

    id: str
    title: str | None
    metadata: dict[str, str]
    agent: str | None
    model: str | None
    created_at: str
    updated_at: str
    turns: int
    active_execution_id: str | None
    waiting: int


class ConversationPage(Struct, frozen=True, kw_only=True):
    """Conversations, those begun last first; a page may hold fewer than asked for, or none, and still be continued.

    Attributes:
        next_cursor: Continues the list; `null` at its end.

    """

    data: tuple[ConversationOut, ...]
    next_cursor: str | None


class FileOut(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file in a message.

    Attributes:
        media_type: Empty for an address that does not say.
        size: In bytes, of a file that is kept here.
        url: Of one that is not.

    """

    media_type: str
    name: str = ""
    size: int = 0
    url: str | None = None


class MessageOut(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message of a conversation.

    Attributes:
        id: The client's own, where it gave one; the last answer of an execution has the execution's.
        role: `tool`: what the client told of a call that it ran itself.
        files: Of a user's message.
        tool_calls: What was called, and what came of it.
        tool_call_id: The call that a `tool` message is about.

    """

    id: str
    role: Literal["system", "user", "assistant", "tool"]
    content: str
    execution_id: str
    created_at: str
    files: tuple[FileOut, ...] = ()
    tool_calls: tuple[CallOut, ...] = ()
    tool_call_id: str = ""


class MessagePage(Struct, frozen=True, kw_only=True):
    """The latest messages, in the order in which they were said.

    Attributes:
        next_cursor: Leads to those before them; `null` where there are none.

    """

    data: tuple[MessageOut, ...]
    next_cursor: str | None


class ConversationDeleted(Struct, frozen=True, kw_only=True):
    """Answer to a deletion."""

    id: str
    deleted: Literal[True] = True
