"""The routes of single turns: what one said, called and waits for, and having it cancelled."""

from typing import Final

from aiohttp import web

from kitemesh_contracts.codec import encode
from kitemesh_contracts.scopes import Scope
from kitemesh_gateway.auth import Authenticator, Principal
from kitemesh_gateway.cancelling import Cancelling, execution_unknown
from kitemesh_gateway.dialects.base import JSON
from kitemesh_gateway.dialects.native_rendering import execution_out
from kitemesh_gateway.exchange import Exchange
from kitemesh_runtime.execution_stores import Holds, LiveTurn, LiveTurns


class Executions:
    """Answers what concerns stored turns."""

    def __init__(
        self, authenticator: Authenticator, live_turns: LiveTurns, holds: Holds, cancelling: Cancelling
    ) -> None:
        self._authenticator: Final = authenticator
        self._live_turns: Final = live_turns
        self._holds: Final = holds
        self._cancelling: Final = cancelling

    async def one(self, exchange: Exchange) -> web.Response:
        """Show one.

        Raises:
            NotFound: There is none, or not for this key.

        """
        principal = await self._identify(exchange)
        turn = await self._live_turns.get(principal.tenant, exchange.tail)
        if turn is None or not principal.allows(turn.model):
            raise execution_unknown()
        hold = None
        if isinstance(turn, LiveTurn) and turn.status == "held" and turn.hold is not None:
            hold = await self._holds.get(principal.tenant, turn.hold)
        exchange.turn = turn.id
        exchange.conversation = turn.conversation or ""
        return exchange.respond(encode(execution_out(turn, hold)), JSON)

    async def cancel(self, exchange: Exchange) -> web.Response:
        """Cancel one. A body is not read: there is nothing to say."""
        principal = await self._identify(exchange)
        done = await self._cancelling.cancel(principal, exchange.tail, origin=exchange.request.remote or "")
        exchange.turn = done.id
        return exchange.respond(encode(done), JSON)

    async def _identify(self, exchange: Exchange) -> Principal:
        authorization = exchange.request.headers.getall("Authorization", ())
        exchange.principal = principal = await self._authenticator.identify(authorization)
        principal.require(Scope.CHAT)
        return principal
