"""Whether anything of a classic turn is left: it lives in messages alone, and a bus may lose all of them."""

from typing import Final

from kitemesh_contracts import subjects
from kitemesh_contracts.topology import CONTROL, EVENT, MODEL, TOOL, TURN
from kitemesh_gateway.watches import Watched
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.conversations import Conversations


class Traces:
    """Looks for turns in every queue."""

    def __init__(self, bus: Bus, conversations: Conversations) -> None:
        self._bus: Final = bus
        self._conversations: Final = conversations

    async def has_none(self, turn: Watched) -> bool:
        """Tell whether a turn is in no queue, and in no worker's hands: a message stays until it is acknowledged.

        Asked in the order in which work moves on; one that goes round meanwhile may be missed, so ask twice.

        Raises:
            Unavailable: The bus or the store does not answer.

        """
        name = turn.turn
        for stream, subject in (
            (TURN, subjects.turn_start(name)),
            (CONTROL, subjects.control_start(name)),
            (MODEL, subjects.model_jobs_of(name)),
            (TOOL, subjects.all_tool_jobs_of(name)),
            (EVENT, subjects.events_of(name)),
        ):
            if await self._bus.holds(stream, subject):
                return False
        if turn.conversation is None:
            return True
        found = await self._conversations.get(turn.tenant, turn.conversation)
        return found is None or all(entry.turn != name for entry in found.waiting)
