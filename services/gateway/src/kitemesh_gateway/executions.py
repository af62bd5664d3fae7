"""The routes of stored turns: list them, show what one said, called and waits for, follow it, have it cancelled."""

from typing import Final, cast, get_args

from aiohttp import web

from kitemesh_contracts.codec import encode
from kitemesh_contracts.headers import LAST_EVENT_ID
from kitemesh_contracts.scopes import Scope
from kitemesh_gateway.auth import Authenticator, Principal
from kitemesh_gateway.cancelling import Cancelling
from kitemesh_gateway.dialects.base import JSON, Mistake, Mistakes
from kitemesh_gateway.dialects.native_answers import ExecutionPage, ExecutionStatus
from kitemesh_gateway.dialects.native_rendering import (
    execution_out,
    execution_status,
    listed_execution,
    stored_statuses,
)
from kitemesh_gateway.exchange import Exchange
from kitemesh_gateway.paging import PAGE_MAX, READS_MAX, PageQuery, cursor_of, read_query
from kitemesh_gateway.reattaching import Reattaching, last_event
from kitemesh_runtime.holds import Holds
from kitemesh_runtime.live_turns import LiveTurn, LiveTurns
from kitemesh_runtime.turns import TurnRecord

STATUSES: Final[tuple[ExecutionStatus, ...]] = get_args(ExecutionStatus)


class Executions:
    """Answers what concerns stored turns."""

    def __init__(
        self,
        authenticator: Authenticator,
        live_turns: LiveTurns,
        holds: Holds,
        *,
        cancelling: Cancelling,
        reattaching: Reattaching,
    ) -> None:
        self._authenticator: Final = authenticator
        self._live_turns: Final = live_turns
        self._holds: Final = holds
        self._cancelling: Final = cancelling
        self._reattaching: Final = reattaching

    async def all(self, exchange: Exchange) -> web.Response:
        """List those of the tenant that the key may see, newest first."""
        principal = await self._identify(exchange)
        asked = read_query(exchange, STATUSES, ("conversation_id",))
        found, after = await self._find(principal, asked)
        page = ExecutionPage(data=tuple(map(listed_execution, found)), next_cursor=cursor_of(after))
        return exchange.respond(encode(page), JSON)

    async def _find(self, principal: Principal, asked: PageQuery) -> tuple[list[LiveTurn | TurnRecord], str | None]:
        """Return the turns of a page, and the id behind which there are more; `None` at the end.

        What ran out of time is stored as failed, so that neither `failed` nor `expired` can be asked of the store.
        """
        status = cast("ExecutionStatus | None", asked.status)
        is_sparse = status in ("failed", "expired") or principal.models is not None
        step = (PAGE_MAX if is_sparse else asked.limit) + 1
        before = asked.before
        fit: list[LiveTurn | TurnRecord] = []
        for _ in range(READS_MAX):
            found = await self._live_turns.page(
                principal.tenant,
                statuses=stored_statuses(status),
                conversation=asked.ids.get("conversation_id"),
                before=before,
                limit=step,
            )
            fit += (turn for turn in found if status in (None, execution_status(turn)) and principal.allows(turn.model))
            if len(fit) > asked.limit:
                return fit[: asked.limit], fit[asked.limit - 1].id
            if len(found) < step:
                return fit, None
            before = found[-1].id
        return fit, before

    async def one(self, exchange: Exchange) -> web.Response:
        """Show one.

        Raises:
            NotFound: There is none, or not for this key.

        """
        principal = await self._identify(exchange)
        turn = await self._reattaching.find(principal, exchange.tail)
        hold = None
        if isinstance(turn, LiveTurn) and turn.status == "held" and turn.hold is not None:
            hold = await self._holds.get(principal.tenant, turn.hold)
        exchange.turn = turn.id
        exchange.conversation = turn.conversation or ""
        return exchange.respond(encode(execution_out(turn, hold)), JSON)

    async def stream(self, exchange: Exchange) -> web.StreamResponse:
        """Follow one, from its beginning or from behind `Last-Event-ID`.

        Raises:
            NotFound: There is none, or not for this key.

        """
        principal = await self._identify(exchange)
        last = last_event(exchange)
        if last is not None and last[0] != exchange.tail:
            raise Mistakes([Mistake(LAST_EVENT_ID, "is not of this execution")])
        turn = await self._reattaching.find(principal, exchange.tail)
        if exchange.request.method == "HEAD":
            exchange.turn = turn.id
            return exchange.respond(b"", exchange.dialect.stream_headers["Content-Type"])
        return await self._reattaching.follow(exchange, turn, None if last is None else last[1])

    async def cancel(self, exchange: Exchange) -> web.Response:
        """Cancel one. A body is not read: there is nothing to say."""
        principal = await self._identify(exchange)
        done = await self._cancelling.cancel(principal, exchange.tail, origin=exchange.request.remote or "")
        exchange.turn = done.id
        return exchange.respond(encode(done), JSON)

    async def _identify(self, exchange: Exchange) -> Principal:
        authorization = exchange.request.headers.getall("Authorization", ())
        exchange.principal = principal = await self._authenticator.identify(authorization, exchange.peer)
        principal.require(Scope.CHAT)
        return principal
