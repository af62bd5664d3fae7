"""Turns that have ended, as they are stored.

What holds for every store is said in `stores`.
"""

from typing import NamedTuple, Protocol

from msgspec import Struct

from kitemesh_contracts.commands import Mode
from kitemesh_contracts.content import AssistantMessage, FinishReason, Message, Step, Usage
from kitemesh_contracts.deltas import TurnOutcome
from kitemesh_contracts.errors import ErrorInfo
from kitemesh_contracts.events import StepTimings


class TurnRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A turn as it is stored when it ends.

    Attributes:
        ordinal: Its number within the conversation.
        input: What the request brought.
        answer: The final, or partial, answer; `None` when nothing was generated. Its calls are the caller's to run.
        gateway: Who last waited for a durable turn; its closing event may have to be sent again.
        dialect: As `StartTurn` has it, and so `include_usage`.
        attempt: Whose answer it is, and `last` the number of its last frame, of a durable turn whose answer is not one
            of `steps`.
        steps: The steps that called tools, in order; the last may be the one that `answer` is of.
        accepted_at_ms: Epoch milliseconds on the gateway's clock.
        prompt: As `StartTurn` has it, and so `message`, `row` and `details`.
        billed: The part of `usage` that was counted before: the turn was given up, and requeued.

    """

    id: str
    tenant: str
    status: TurnOutcome
    mode: Mode
    model: str
    conversation: str | None = None
    ordinal: int = 0
    key: str = ""
    agent: str | None = None
    served_by: str = ""
    request: str | None = None
    input: tuple[Message, ...] = ()
    answer: AssistantMessage | None = None
    usage: Usage = Usage()
    error: ErrorInfo | None = None
    finish: FinishReason | None = None
    timings: StepTimings = StepTimings()
    accepted_at_ms: int = 0
    ended_at_ms: int = 0
    steps: tuple[Step, ...] = ()
    gateway: str = ""
    dialect: str = ""
    include_usage: bool = False
    attempt: int = 0
    last: int = 0
    prompt: str | None = None
    message: str = ""
    row: int = 0
    details: str = ""
    billed: Usage = Usage()


class Erased(NamedTuple):
    """What a turn leaves behind that is no part of it.

    Attributes:
        message: The client's id of its message.
        blobs: That its messages and results name.
        rows: How many rows of its agent's history it was.

    """

    turn: str
    message: str = ""
    blobs: tuple[str, ...] = ()
    rows: int = 0


class Turns(Protocol):
    """Turns that have ended."""

    async def put(self, tenant: str, record: TurnRecord) -> None:
        """Store an ended turn; grouped. The first one stored under an id stays, also where it was erased since.

        Raises:
            Conflict: The turn is stored and has not ended, so that only `LiveTurns.finish` may end it (`store.stale`),
                or the id is another tenant's (`store.duplicate`).

        """

    async def get(self, tenant: str, turn: str) -> TurnRecord | None:
        """Return the turn, or `None`."""

    async def recent(self, tenant: str, conversation: str, *, limit: int) -> list[TurnRecord]:
        """Return the newest `limit` turns in which a model said or did something, oldest first."""

    async def erase(
        self, tenant: str, *, conversation: str | None = None, agent: str | None = None, limit: int = 500
    ) -> list[Erased]:
        """Empty turns, live and ended, and return what they leave, at most `limit` at once.

        For an hour nothing is written to them and nothing has their ids, then they are gone.

        Args:
            tenant: Whose they are.
            conversation: Those of a conversation.
            agent: Only those of an agent that have rows and have ended; of the conversation, if one is given.
            limit: How many at the most.

        """

    async def bury(self, tenant: str, turn: str) -> None:
        """Have a turn count as erased that is not stored so far; one that is stored stays."""
