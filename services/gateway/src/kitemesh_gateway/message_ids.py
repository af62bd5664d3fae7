"""Clients' own ids of their messages: unique within a tenant, whatever the conversation. It knows no HTTP.

The claim's insert decides, so of any number of requests with one id one is a turn. A claim is valid while its turn is
stored, or for 30 s, which whoever holds a classic turn's client renews.
"""

from typing import Final

from kitemesh_contracts.errors import Conflict, ErrorCode
from kitemesh_gateway.refused import was_refused
from kitemesh_runtime.claims import MESSAGE_CLAIMS, Claims
from kitemesh_runtime.live_turns import LiveTurns


def message_exists() -> Conflict:
    """Return the refusal of a message whose id was used before."""
    return Conflict(ErrorCode.MESSAGE_EXISTS, "Message with the supplied id already exists")


class MessageIds:
    """Claims message ids for turns. An empty id, of a client that gave none, is nobody's."""

    def __init__(self, claims: Claims, live_turns: LiveTurns) -> None:
        self._claims: Final = claims
        self._live_turns: Final = live_turns

    async def claim(self, tenant: str, message: str, turn: str) -> str:
        """Claim an id and return the turn that has it: another one than the given, when that never came to anything.

        Raises:
            Conflict: The id is taken (`message.exists`).

        """
        if not message:
            return turn
        claim = await self._claims.claim(tenant, MESSAGE_CLAIMS, message, turn)
        if not claim.won:
            found = await self._live_turns.get(tenant, claim.turn)
            if found is None or not was_refused(found):
                raise message_exists()
            # Nothing was run for it: the id is the client's to try again with.
            await self._claims.drop(tenant, MESSAGE_CLAIMS, message, claim.turn, settled=True)
            claim = await self._claims.claim(tenant, MESSAGE_CLAIMS, message, turn)
            if not claim.won:
                raise message_exists()
        return claim.turn

    async def renew(self, tenant: str, message: str, turn: str) -> None:
        """Keep the claim of a turn that is not stored before it ends."""
        if message:
            await self._claims.renew(tenant, MESSAGE_CLAIMS, message, turn)

    async def give_back(self, tenant: str, message: str, turn: str) -> None:
        """Free the id of a turn that certainly never began."""
        if message:
            await self._claims.drop(tenant, MESSAGE_CLAIMS, message, turn)
