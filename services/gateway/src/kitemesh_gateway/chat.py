"""The route that runs a turn, in any dialect: check, read, parse, accept, answer.

The order of the checks is part of the contract: what `reading` does, then schema, model, limits, idempotency key.
"""

from collections.abc import Sequence
from functools import partial
from typing import Final

from aiohttp import web
from msgspec.structs import replace

from kitemesh_contracts.commands import StartTurn
from kitemesh_contracts.errors import MEANINGS, KitemeshError
from kitemesh_contracts.headers import LAST_EVENT_ID
from kitemesh_gateway.accepting import Accepting
from kitemesh_gateway.admission import Admission
from kitemesh_gateway.auth import Principal
from kitemesh_gateway.dialects.base import Facts, TurnRequest
from kitemesh_gateway.exchange import Exchange
from kitemesh_gateway.idempotency import Key, claimed_as
from kitemesh_gateway.preparing import Preparing
from kitemesh_gateway.reading import Read, Reading
from kitemesh_gateway.reattaching import Reattaching
from kitemesh_gateway.replies import Replies
from kitemesh_gateway.turns import Turns
from kitemesh_gateway.wishes import wished


class Chat:
    """Answers chat requests."""

    def __init__(
        self,
        reading: Reading,
        turns: Turns,
        accepting: Accepting,
        preparing: Preparing,
        *,
        admission: Admission,
        reattaching: Reattaching,
        replies: Replies,
    ) -> None:
        self._reading: Final = reading
        self._turns: Final = turns
        self._accepting: Final = accepting
        self._preparing: Final = preparing
        self._admission: Final = admission
        self._reattaching: Final = reattaching
        self._replies: Final = replies

    async def handle(self, exchange: Exchange) -> web.StreamResponse:
        """Run a turn and answer with it."""
        request = exchange.request
        if LAST_EVENT_ID in request.headers:
            return await self._reattaching.handle(exchange)
        read = await self.read(exchange)
        asked = exchange.dialect.parse(read.decoded)
        return await self.run(exchange, read.principal, asked, key=read.key, body=read.body)

    async def read(self, exchange: Exchange) -> Read:
        """Read a request that wants a turn, as far as that does not depend on its dialect.

        Raises:
            KitemeshError: It is refused.

        """
        return await self._reading.read(exchange)

    async def run(
        self,
        exchange: Exchange,
        principal: Principal,
        asked: TurnRequest,
        *,
        key: str | None = None,
        body: bytes = b"",
    ) -> web.StreamResponse:
        """Run a turn and answer with it.

        Args:
            exchange: The request.
            principal: Who asks.
            asked: What for.
            key: The request's idempotency key.
            body: What a repetition of that key must repeat.

        Raises:
            KitemeshError: It is refused, or failed before anything was sent.

        """
        asked = wished(exchange.request.headers, asked)
        route = self._turns.route(principal, asked)
        await self._turns.check_conversation(principal, asked.conversation)
        mode = self._turns.mode(asked, route, keyed=key is not None)
        asked, exchange.more_headers = await self._preparing.prepare(principal.tenant, asked, route)
        start = self._turns.accept(
            principal, asked, route, mode=mode, request_id=exchange.request_id, dialect=exchange.dialect.name
        )
        await self._admission.reserve(exchange, start)
        if start.mode == "durable":
            return await self._durable(exchange, start, claimed_as(exchange.dialect.name, key, body), asked.files)
        return await self._classic(exchange, start, asked)

    async def _classic(self, exchange: Exchange, start: StartTurn, asked: TurnRequest) -> web.StreamResponse:
        start = await self._accepting.reserve(start, asked.files)
        self._admission.named(exchange, start)
        _name(exchange, start)
        facts = _facts(exchange, start, include_usage=asked.include_usage)
        if start.tools:
            facts = replace(facts, own_tools=self._turns.own_tools(start), one_call=start.parallel_calls is False)
        encoder = exchange.dialect.encoder(facts)
        run = partial(self._turns.running, start)
        reply = self._replies.stream if asked.stream else self._replies.whole
        try:
            return await reply(exchange, encoder, run)
        except KitemeshError as exc:
            if MEANINGS[exc.code].outcome == "refused":
                await self._accepting.free(start)
            raise

    async def _durable(
        self, exchange: Exchange, start: StartTurn, key: Key | None, files: Sequence[bytes]
    ) -> web.StreamResponse:
        stored = await self._accepting.store(start, key, files)
        if not isinstance(stored, StartTurn):
            exchange.replayed = True
            self._admission.attached(exchange)
            follow = self._reattaching.follow if start.stream else self._reattaching.wait
            return await follow(exchange, stored)
        self._admission.named(exchange, stored)
        _name(exchange, stored)
        encoder = exchange.dialect.encoder(_facts(exchange, stored, include_usage=stored.include_usage))
        run = partial(self._accepting.running, stored, key)
        if stored.stream:
            return await self._replies.stream(exchange, encoder, run, opens_at_once=True)
        return await self._replies.whole(exchange, encoder, run)


def _name(exchange: Exchange, start: StartTurn) -> None:
    exchange.turn = start.turn
    exchange.conversation = start.conversation or ""


def _facts(exchange: Exchange, start: StartTurn, *, include_usage: bool) -> Facts:
    return Facts(
        turn=start.turn,
        model=start.route.requested,
        created_s=start.accepted_at_ms // 1000,
        label=exchange.request_id if start.request is None else start.request,
        conversation=start.conversation,
        include_usage=include_usage,
        resumable=start.mode == "durable",
        message=start.message,
        row=start.row,
        agent=start.route.agent,
    )
