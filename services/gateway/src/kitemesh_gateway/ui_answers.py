"""Which held calls the answers in a chat's messages mean: the active turn's, else those of the message they stand in.

Clients send their history again, decided answers included: those are not decided a second time. It knows no HTTP.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from kitemesh_gateway.answers import Answer
from kitemesh_gateway.auth import Principal
from kitemesh_gateway.deciding import approval_gone, approval_unknown
from kitemesh_gateway.dialects.run_chat_messages import Reply
from kitemesh_gateway.visibility import conversation_unknown, may_see
from kitemesh_runtime.conversations import Conversations
from kitemesh_runtime.holds import Hold, Holds
from kitemesh_runtime.live_turns import LiveTurn, LiveTurns
from kitemesh_runtime.turns import TurnRecord

LOOKUPS: Final = 4
"""So many messages with answers are looked at, the latest first; only one turn of a conversation can be held."""


class Answered(NamedTuple):
    """The calls that answers mean.

    Attributes:
        step: Whose calls they are.
        calls: All that were answered.
        hold: Which of them are held still; `None` when none is.
        answers: To those that nobody has decided.

    """

    turn: LiveTurn | TurnRecord
    step: int
    calls: frozenset[str]
    hold: Hold | None
    answers: Mapping[str, Answer]


class UiAnswers:
    """Finds the calls that answers mean."""

    def __init__(self, conversations: Conversations, live_turns: LiveTurns, holds: Holds) -> None:
        self._conversations: Final = conversations
        self._live_turns: Final = live_turns
        self._holds: Final = holds

    async def find(self, principal: Principal, conversation: str, replies: Sequence[Reply]) -> Answered:
        """Return the calls.

        Raises:
            NotFound: The conversation does not exist (`conversation.unknown`), or has no such calls
                (`approval.unknown`).
            KitemeshError: Their hold was cancelled (`approval.gone`).

        """
        kept = await self._conversations.get(principal.tenant, conversation)
        if kept is None or not may_see(principal, kept):
            raise conversation_unknown()
        wanted = {reply.call: reply for reply in replies}
        messages = dict.fromkeys(reply.message for reply in reversed(replies) if reply.message)
        for turn in dict.fromkeys(([kept.active] if kept.active else []) + list(messages)[:LOOKUPS]):
            found = await self._live_turns.get(principal.tenant, turn)
            if found is None or found.conversation != conversation or not principal.allows(found.model):
                continue
            for step in reversed(found.steps):
                calls = frozenset(call.id for call in step.calls if call.id in wanted)
                if calls:
                    return await self._answered(found, step.step, {call: wanted[call] for call in calls})
        raise approval_unknown()

    async def _answered(self, turn: LiveTurn | TurnRecord, step: int, replies: Mapping[str, Reply]) -> Answered:
        calls = frozenset(replies)
        hold = None
        if isinstance(turn, LiveTurn) and turn.hold is not None:
            hold = await self._holds.get(turn.tenant, turn.hold)
        if hold is None or hold.step != step or hold.status == "expired":
            return Answered(turn, step, calls, None, {})
        if hold.status == "cancelled":
            raise approval_gone(hold)
        answers = {
            call.id: Answer(replies[call.id].approved, replies[call.id].reason)
            for call in hold.calls
            if call.id in replies and call.verdict is None
        }
        return Answered(turn, step, calls, hold if answers else None, answers)
