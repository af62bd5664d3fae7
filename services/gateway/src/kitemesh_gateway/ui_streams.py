"""The streams that a chat comes back to: what its active turn says, from the beginning or behind what a client has."""

from typing import Final

from aiohttp import web

from kitemesh_contracts.headers import LAST_EVENT_ID
from kitemesh_contracts.scopes import Scope
from kitemesh_gateway.auth import Authenticator, Principal
from kitemesh_gateway.dialects.base import Mistake, Mistakes
from kitemesh_gateway.dialects.run_chat import RunChat
from kitemesh_gateway.exchange import Exchange
from kitemesh_gateway.positions import Position
from kitemesh_gateway.reattaching import Reattaching, last_event
from kitemesh_gateway.ui_chat import tells_operations
from kitemesh_gateway.visibility import conversation_unknown, may_see
from kitemesh_runtime.conversations import Conversations
from kitemesh_runtime.live_turns import LiveTurn, LiveTurns
from kitemesh_runtime.turns import TurnRecord

AFTER: Final = "afterIdx"
AFTER_DIGITS: Final = 9
OPEN: Final = ("queued", "running")
_NOTHING: Final = 204


class UiStreams:
    """Answers with the streams of conversations.

    Args:
        dialect: What is spoken.

    """

    def __init__(
        self,
        authenticator: Authenticator,
        conversations: Conversations,
        live_turns: LiveTurns,
        reattaching: Reattaching,
        dialect: RunChat,
    ) -> None:
        self._authenticator: Final = authenticator
        self._conversations: Final = conversations
        self._live_turns: Final = live_turns
        self._reattaching: Final = reattaching
        self._dialect: Final = dialect

    async def active(self, exchange: Exchange) -> web.StreamResponse:
        """Follow a conversation's active turn, or the one that `Last-Event-ID` names; 204 when there is none to follow.

        Raises:
            NotFound: The conversation does not exist.

        """
        return await self._follow(exchange, 0)

    async def behind(self, exchange: Exchange) -> web.StreamResponse:
        """Do the same without the events up to the one whose index, from 0, is `afterIdx`.

        Raises:
            NotFound: The conversation does not exist.
            Mistakes: The index is none.

        """
        return await self._follow(exchange, _after(exchange) + 1)

    async def _follow(self, exchange: Exchange, skips: int) -> web.StreamResponse:
        authorization = exchange.request.headers.getall("Authorization", ())
        exchange.principal = principal = await self._authenticator.identify(authorization, exchange.peer)
        principal.require(Scope.CHAT)
        exchange.conversation = exchange.tail
        turn, position = await self._find(exchange, principal)
        if turn is None:
            return web.Response(status=_NOTHING, headers=exchange.headers())
        if exchange.request.method == "HEAD":
            exchange.turn = turn.id
            return exchange.respond(b"", exchange.dialect.stream_headers["Content-Type"])
        # A position says by itself where the client is.
        exchange.dialect = self._dialect.told(
            tells_operations=tells_operations(exchange), skips=skips if position is None else 0
        )
        return await self._reattaching.follow(exchange, turn, position)

    async def _find(
        self, exchange: Exchange, principal: Principal
    ) -> tuple[LiveTurn | TurnRecord | None, Position | None]:
        tenant, conversation = principal.tenant, exchange.tail
        kept = await self._conversations.get(tenant, conversation)
        newest = None
        if kept is None or kept.active is None:
            # A turn is stored before its orchestrator makes the conversation, or takes its lock.
            found = await self._live_turns.page(tenant, statuses=OPEN, conversation=conversation, limit=1)
            newest = found[0] if found and principal.allows(found[0].model) else None
        if not (newest if kept is None else may_see(principal, kept)):
            raise conversation_unknown()
        last = last_event(exchange)
        if last is not None:
            turn = await self._reattaching.find(principal, last[0])
            if turn.conversation != conversation:
                raise Mistakes([Mistake(LAST_EVENT_ID, "is not of this conversation")])
            return turn, last[1]
        active = await self._live_turns.get(tenant, kept.active) if kept and kept.active else newest
        # What a classic turn has said is kept nowhere while it runs.
        is_open = isinstance(active, LiveTurn) and active.mode == "durable" and principal.allows(active.model)
        return (active if is_open else None), None


def _after(exchange: Exchange) -> int:
    """Read the index of the last event that a client has; -1 when it has none.

    Raises:
        Mistakes: It is no index.

    """
    given = exchange.request.query.getall(AFTER, [])
    if not given:
        return -1
    text = given[0]
    if len(given) > 1:
        raise Mistakes([Mistake(AFTER, "must be given once")])
    if text == "-1":
        return -1
    if not (text.isascii() and text.isdigit() and len(text) <= AFTER_DIGITS):
        raise Mistakes([Mistake(AFTER, "must be the index of an event, or -1")])
    return int(text)
