"""Following a turn that is stored: from the start or from a `Last-Event-ID` on, live or ended, accepted by whom it may.

What the answer says of its turn comes from the store alone, so the bytes are the same at every gateway.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from aiohttp import web

from kitemesh_contracts.errors import ErrorCode, KitemeshError
from kitemesh_contracts.headers import LAST_EVENT_ID
from kitemesh_contracts.scopes import Scope
from kitemesh_gateway import positions
from kitemesh_gateway.auth import Authenticator, Principal
from kitemesh_gateway.body import check_headers, read_body
from kitemesh_gateway.cancelling import execution_unknown
from kitemesh_gateway.dialects.base import Facts, Mistake, Mistakes
from kitemesh_gateway.exchange import Exchange
from kitemesh_gateway.positions import Position
from kitemesh_gateway.relay import Relay
from kitemesh_gateway.replies import Replies
from kitemesh_gateway.turns import Turns
from kitemesh_gateway.watches import Sink, Watched
from kitemesh_runtime.catalog_file import CatalogHandle
from kitemesh_runtime.live_turns import LiveTurn, LiveTurns
from kitemesh_runtime.turns import TurnRecord


def facts_of(turn: LiveTurn | TurnRecord, position: Position | None = None) -> Facts:
    """Return what any answer says of a stored turn, or the stream of it that has the position. Pure."""
    after_step = 0 if position is None else position.after_step
    return Facts(
        turn=turn.id,
        model=turn.model,
        created_s=turn.accepted_at_ms // 1000,
        label=turn.request or "",
        conversation=turn.conversation,
        include_usage=position.usage if position is not None and after_step else turn.include_usage,
        resumable=turn.mode == "durable",
        after_step=after_step,
        message=turn.message,
        row=turn.row,
        agent=turn.agent,
    )


class Reattaching:
    """Answers with what stored turns say.

    Args:
        budget_s: How long a turn is watched.
        max_body_bytes: Largest body.
        body_timeout_s: How long a body may take.

    """

    def __init__(
        self,
        authenticator: Authenticator,
        live_turns: LiveTurns,
        *,
        turns: Turns,
        relay: Relay,
        replies: Replies,
        catalog: CatalogHandle,
        budget_s: float,
        max_body_bytes: int,
        body_timeout_s: float,
    ) -> None:
        self._authenticator: Final = authenticator
        self._live_turns: Final = live_turns
        self._turns: Final = turns
        self._relay: Final = relay
        self._replies: Final = replies
        self._catalog: Final = catalog
        self._budget_s: Final = budget_s
        self._max_body_bytes: Final = max_body_bytes
        self._body_timeout_s: Final = body_timeout_s

    async def handle(self, exchange: Exchange) -> web.StreamResponse:
        """Answer a POST that carries `Last-Event-ID` with the rest of that stream; its body says nothing."""
        request = exchange.request
        has_body = request.can_read_body
        if has_body:
            check_headers(request, self._max_body_bytes)
        authorization = request.headers.getall("Authorization", ())
        principal = await self._authenticator.identify(authorization, exchange.peer)
        exchange.principal = principal
        principal.require(Scope.CHAT)
        if has_body:
            await read_body(request, self._max_body_bytes, self._body_timeout_s)
        last = last_event(exchange)
        assert last is not None  # noqa: S101  the caller saw the header
        turn, position = last
        return await self.follow(exchange, await self.find(principal, turn), position)

    async def find(self, principal: Principal, turn: str) -> LiveTurn | TurnRecord:
        """Return a stored turn.

        Raises:
            NotFound: There is none, or not for this key (`execution.unknown`).

        """
        found = await self._live_turns.get(principal.tenant, turn)
        if found is None or not principal.allows(found.model):
            raise execution_unknown()
        return found

    async def follow(
        self, exchange: Exchange, turn: LiveTurn | TurnRecord, position: Position | None = None
    ) -> web.StreamResponse:
        """Stream a turn from its beginning, or from behind a position.

        Raises:
            KitemeshError: A position was given, and the turn's stream cannot be resumed (`execution.classic`), or not
                from there any more (`stream.gap`).
            Busy: Too many turns are open here, or followed.

        """
        facts = facts_of(turn, position)
        if position is not None:
            if not facts.resumable:
                message = (
                    "A classic execution's stream cannot be resumed; GET /v1/executions/{id} shows what became of it"
                )
                raise KitemeshError(ErrorCode.EXECUTION_CLASSIC, message)
            if position.words != exchange.dialect.words:
                position = position.by_content()
        self._turns.admit_reader()
        _name(exchange, turn)
        watched = self._watched(turn, stream=True, after_step=facts.after_step)
        run = partial(self._attached, watched, position, self._is_heard(turn))
        return await self._replies.stream(exchange, exchange.dialect.encoder(facts), run, opens_at_once=True)

    async def wait(self, exchange: Exchange, turn: LiveTurn | TurnRecord) -> web.Response:
        """Answer in one piece when a turn has ended, or holds.

        Raises:
            Busy: Too many turns are open here, or followed.

        """
        self._turns.admit_reader()
        _name(exchange, turn)
        run = partial(self._attached, self._watched(turn, stream=False), None, self._is_heard(turn))
        return await self._replies.whole(exchange, exchange.dialect.encoder(facts_of(turn)), run)

    @asynccontextmanager
    async def _attached(
        self, turn: Watched, position: Position | None, is_heard: bool, sink: Sink
    ) -> AsyncIterator[None]:
        async with self._relay.attached(turn, sink, position=position, is_heard=is_heard):
            yield

    def _is_heard(self, turn: LiveTurn | TurnRecord) -> bool:
        """Tell whether all that a turn says from now on comes here without being asked for.

        One that has ended says nothing. One without an agent never holds, and only an answered hold has a turn speak
        to another gateway than the one that accepted it.
        """
        return isinstance(turn, TurnRecord) or (turn.agent is None and self._relay.hears(turn.gateway))

    def _watched(self, turn: LiveTurn | TurnRecord, *, stream: bool, after_step: int = 0) -> Watched:
        agent = self._catalog.current.agents.get(turn.agent or "")
        return Watched(
            turn=turn.id,
            tenant=turn.tenant,
            budget_s=self._budget_s,
            stream=stream,
            conversation=turn.conversation,
            acts=agent is not None and bool(agent.tools),
            durable=True,
            model=turn.model,
            after_step=after_step,
        )


def last_event(exchange: Exchange) -> tuple[str, Position] | None:
    """Read `Last-Event-ID`: whose event it was, and which one; `None` without the header.

    Raises:
        BadRequest: It is none that this server gives out.

    """
    given = exchange.request.headers.getall(LAST_EVENT_ID, [])
    if not given:
        return None
    if len(given) > 1:
        raise Mistakes([Mistake(LAST_EVENT_ID, "must be given once")])
    return positions.parse(given[0])


def _name(exchange: Exchange, turn: LiveTurn | TurnRecord) -> None:
    exchange.turn = turn.id
    exchange.conversation = turn.conversation or ""
