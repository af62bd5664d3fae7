"""The route that runs a turn, in any dialect: check, read, parse, run, answer.

The order of the checks is part of the contract: headers, credential, body, JSON, schema, model.
"""

from typing import Final

from aiohttp import web

from kitemesh_contracts.commands import StartTurn
from kitemesh_contracts.deltas import TurnEnded
from kitemesh_contracts.errors import BadRequest, ErrorCode
from kitemesh_contracts.headers import IDEMPOTENCY_KEY, LAST_EVENT_ID, SERVER_TIMING
from kitemesh_contracts.scopes import Scope
from kitemesh_gateway import strict_json
from kitemesh_gateway.auth import Authenticator
from kitemesh_gateway.body import check_headers, read_body
from kitemesh_gateway.dialects.base import JSON, Encoder, Facts, TurnRequest
from kitemesh_gateway.exchange import Exchange
from kitemesh_gateway.sse import Streams
from kitemesh_gateway.turns import Turns, Whole
from kitemesh_runtime.failpoints import reach
from kitemesh_runtime.metrics import FIRST_EVENT


class Chat:
    """Answers chat requests.

    Args:
        max_body_bytes: Largest body.
        body_timeout_s: How long a body may take.

    """

    def __init__(
        self,
        authenticator: Authenticator,
        turns: Turns,
        streams: Streams,
        *,
        max_body_bytes: int,
        body_timeout_s: float,
    ) -> None:
        self._authenticator: Final = authenticator
        self._turns: Final = turns
        self._streams: Final = streams
        self._max_body_bytes: Final = max_body_bytes
        self._body_timeout_s: Final = body_timeout_s

    async def handle(self, exchange: Exchange) -> web.StreamResponse:
        """Run a turn and answer with it."""
        request = exchange.request
        check_headers(request, self._max_body_bytes)
        principal = await self._authenticator.identify(request.headers.getall("Authorization", ()))
        exchange.principal = principal
        principal.require(Scope.CHAT)
        for header in (IDEMPOTENCY_KEY, LAST_EVENT_ID):
            if header in request.headers:
                raise BadRequest(ErrorCode.REQUEST_UNSUPPORTED, f"The header {header} is not supported yet")
        body = await read_body(request, self._max_body_bytes, self._body_timeout_s)
        asked = exchange.dialect.parse(strict_json.decode(body))
        start = self._turns.accept(principal, asked, self._turns.route(principal, asked))
        exchange.turn = start.turn
        exchange.conversation = start.conversation or ""
        encoder = exchange.dialect.encoder(_facts(exchange, asked, start))
        if asked.stream:
            return await self._stream(exchange, start, encoder)
        return await self._whole(exchange, start, encoder)

    async def _whole(self, exchange: Exchange, start: StartTurn, encoder: Encoder) -> web.Response:
        sink = Whole()
        watch = await self._turns.begin(start, sink)
        try:
            accepted_ms = exchange.elapsed_ms()
            ended = await sink.answer()
        finally:
            self._turns.finish(watch)
        await reach("gw.before_first_byte")
        headers = {SERVER_TIMING: _timing(accepted_ms, exchange.elapsed_ms(), ended)}
        return exchange.respond(encoder.whole(ended), JSON, headers=headers)

    async def _stream(self, exchange: Exchange, start: StartTurn, encoder: Encoder) -> web.StreamResponse:
        stream = self._streams.open(encoder, exchange.request_id)
        try:
            watch = await self._turns.begin(start, stream)
            try:
                accepted_ms = exchange.elapsed_ms()
                await stream.first()
                await reach("gw.before_first_byte")
                first_ms = exchange.elapsed_ms()
                FIRST_EVENT.observe(first_ms / 1000)
                headers = exchange.headers(exchange.dialect.stream_headers)
                headers[SERVER_TIMING] = f"gateway;dur={accepted_ms:.1f}, first;dur={first_ms:.1f}"
                response = web.StreamResponse(headers=headers)
                await self._streams.serve(stream, exchange.request, response)
            finally:
                self._turns.finish(watch)
        finally:
            self._streams.close(stream)
        return response


def _facts(exchange: Exchange, asked: TurnRequest, start: StartTurn) -> Facts:
    return Facts(
        turn=start.turn,
        model=asked.model,
        created_s=start.accepted_at_ms // 1000,
        label=exchange.request_id if asked.label is None else asked.label,
        conversation=start.conversation,
        include_usage=asked.include_usage,
    )


def _timing(accepted_ms: float, total_ms: float, ended: TurnEnded) -> str:
    """Say where the time went: until the turn was accepted, in the model queue, provider and store, altogether."""
    timings = ended.timings
    return (
        f"gateway;dur={accepted_ms:.1f}, queue;dur={timings.queued_ms:.1f}, "
        f"provider;dur={timings.total_ms:.1f}, store;dur={ended.store_ms:.1f}, total;dur={total_ms:.1f}"
    )
