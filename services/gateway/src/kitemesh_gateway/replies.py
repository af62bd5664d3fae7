"""How a turn's answer goes out, whole or as a stream, in any dialect. What runs the turn is the caller's business."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

from aiohttp import web

from kitemesh_contracts.deltas import Delta, TurnEnded
from kitemesh_contracts.errors import ErrorInfo
from kitemesh_contracts.headers import SERVER_TIMING
from kitemesh_gateway.dialects.base import JSON, Encoder, Place, Rest
from kitemesh_gateway.exchange import Exchange
from kitemesh_gateway.following import Pieces
from kitemesh_gateway.hops import hops_of, server_timing
from kitemesh_gateway.positions import Position
from kitemesh_gateway.sse import Streams
from kitemesh_gateway.watches import Sink, TurnFailed
from kitemesh_runtime.failpoints import reach
from kitemesh_runtime.metrics import FIRST_EVENT, HOP

_MS: Final = 1000
_GATEWAY, _RELAY = HOP.labels("gateway"), HOP.labels("relay")

Run = Callable[[Sink], AbstractAsyncContextManager[None]]
"""Has a turn answer to a sink while inside; entering it may raise a refusal."""


class Whole:
    """Waits for an answer that is not streamed."""

    def __init__(self) -> None:
        self._done: asyncio.Future[TurnEnded | TurnFailed] = asyncio.get_running_loop().create_future()

    def go_on(self, position: Position | None = None) -> None:
        """Begin, as any answer in one piece does, at the beginning."""

    def show(self, place: Place, items: tuple[Delta, ...], seen: int = 0) -> None:
        """Ignore what the closing event repeats."""

    def show_all(self, pieces: Pieces) -> None:
        """Ignore what the closing event repeats."""

    async def room(self) -> None:
        """Return: nothing is sent before the end."""

    def end(self, ended: TurnEnded, rest: tuple[Rest, ...], seen: int = 0) -> None:  # noqa: ARG002  it has it all
        """Take the answer."""
        self._finish(ended)

    def fail(self, place: Place, error: ErrorInfo, *, has_acted: bool) -> None:  # noqa: ARG002  nothing was shown
        """Take the failure."""
        self._finish(TurnFailed(error, has_acted=has_acted))

    def send_away(self, place: Place, error: ErrorInfo, *, retry_ms: int) -> None:  # noqa: ARG002  a status has no ids
        """Take it as the failure that it is for whoever asked for one piece."""
        self._finish(TurnFailed(error))

    async def answer(self) -> TurnEnded:
        """Return the closing event.

        Raises:
            TurnFailed: There is no complete answer.

        """
        done = await self._done
        if isinstance(done, TurnFailed):
            raise done
        return done

    def _finish(self, done: TurnEnded | TurnFailed) -> None:
        if not self._done.done():
            self._done.set_result(done)


class Replies:
    """Answers requests with what their turns say."""

    def __init__(self, streams: Streams) -> None:
        self._streams: Final = streams

    async def whole(self, exchange: Exchange, encoder: Encoder, run: Run) -> web.Response:
        """Answer at the end, in one piece."""
        sink = Whole()
        async with run(sink):
            accepted_ms = exchange.elapsed_ms()
            ended = await sink.answer()
            ended_ms = exchange.elapsed_ms()
        await reach("gw.before_first_byte")
        body = encoder.whole(ended)
        total_ms = exchange.elapsed_ms()
        relay_ms = total_ms - ended_ms
        _GATEWAY.observe(accepted_ms / _MS)
        _RELAY.observe(relay_ms / _MS)
        hops = {"gateway": accepted_ms, **hops_of(ended), "relay": relay_ms, "total": total_ms}
        return exchange.respond(body, JSON, headers={SERVER_TIMING: server_timing(hops)})

    async def stream(
        self, exchange: Exchange, encoder: Encoder, run: Run, *, opens_at_once: bool = False
    ) -> web.StreamResponse:
        """Answer as it comes.

        Args:
            exchange: The request.
            encoder: Of the answer.
            run: Runs the turn.
            opens_at_once: The status line, and what opens the stream, do not wait for the first event, or for the
                failure that it would tell.

        """
        stream = self._streams.open(encoder, exchange.request_id, starts_at_once=opens_at_once)
        try:
            async with run(stream):
                accepted_ms = exchange.elapsed_ms()
                _GATEWAY.observe(accepted_ms / _MS)
                hops = {"gateway": accepted_ms}
                if not opens_at_once:
                    await stream.first()
                    await reach("gw.before_first_byte")
                    first_ms = exchange.elapsed_ms()
                    FIRST_EVENT.observe(first_ms / _MS)
                    hops["first"] = first_ms
                headers = exchange.headers(exchange.dialect.stream_headers)
                headers[SERVER_TIMING] = server_timing(hops)
                response = web.StreamResponse(headers=headers)
                await self._streams.serve(stream, exchange.request, response)
        finally:
            self._streams.close(stream)
        return response
