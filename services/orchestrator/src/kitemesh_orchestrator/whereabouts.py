"""Where a stored turn's work is: in a queue or in a worker's hands, told and not yet heard, or nowhere any more.

A message stays in its queue until it is acknowledged, so what is in no queue is in nobody's hands. Each question is
asked in the order in which work moves on, so that what moves meanwhile is met further on; whoever acts on an answer
makes sure that the turn has not changed since.
"""

from typing import Final

from kitemesh_contracts import subjects
from kitemesh_contracts.topology import CONTROL, EVENT, MODEL, TOOL, TURN
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.conversations import Conversations
from kitemesh_runtime.live_turns import Job, LiveTurn


class Whereabouts:
    """Asks for work."""

    def __init__(self, bus: Bus, conversations: Conversations) -> None:
        self._bus: Final = bus
        self._conversations: Final = conversations

    async def has_no_start(self, live: LiveTurn) -> bool:
        """Tell whether a turn's start is in no queue, and does not wait in its conversation."""
        if await self.has_first_start(live.id):
            return False
        if await self._bus.holds(CONTROL, subjects.control_start(live.id)):
            return False
        if live.conversation is None:
            return True
        found = await self._conversations.get(live.tenant, live.conversation)
        return found is None or all(entry.turn != live.id for entry in found.waiting)

    async def has_first_start(self, turn: str) -> bool:
        """Tell whether the start that was published first is in its queue, or in an orchestrator's hands."""
        return await self._bus.holds(TURN, subjects.turn_start(turn))

    async def is_lost(self, turn: str, job: Job) -> bool:
        """Tell whether a job is neither in its queue, or in a worker's hands, nor done."""
        model = job.kind == "model"
        queued = subjects.model_jobs_of(turn) if model else subjects.tool_jobs_of(turn, job.pool)
        return not await self._bus.holds(MODEL if model else TOOL, queued) and not await self._bus.holds(
            EVENT, subjects.events_of(turn)
        )
