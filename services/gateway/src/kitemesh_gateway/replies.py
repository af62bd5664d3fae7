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
from kitemesh_gateway.sse import Streams
from kitemesh_gateway.watches import Sink, TurnFailed
from kitemesh_runtime.failpoints import reach
from kitemesh_runtime.metrics import FIRST_EVENT

Run = Callable[[Sink], AbstractAsyncContextManager[None]]
"""Has a turn answer to a sink while inside; entering it may raise a refusal."""


class Whole:
    """Waits for an answer that is not streamed."""

    def __init__(self) -> None:
        self._done: asyncio.Future[TurnEnded | TurnFailed] = asyncio.get_running_loop().create_future()

    def show(self, place: Place, items: tuple[Delta, ...]) -> None:
        """Ignore what the closing event repeats."""

    def end(self, ended: TurnEnded, rest: tuple[Rest, ...]) -> None:  # noqa: ARG002  the closing event has it all
        """Take the answer."""
        self._finish(ended)

    def fail(self, place: Place, error: ErrorInfo, *, has_acted: bool) -> None:  # noqa: ARG002  nothing was shown
        """Take the failure."""
        self._finish(TurnFailed(error, has_acted=has_acted))

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
        await reach("gw.before_first_byte")
        headers = {SERVER_TIMING: _timing(accepted_ms, exchange.elapsed_ms(), ended)}
        return exchange.respond(encoder.whole(ended), JSON, headers=headers)

    async def stream(
        self, exchange: Exchange, encoder: Encoder, run: Run, *, opens_at_once: bool = False
    ) -> web.StreamResponse:
        """Answer as it comes.

        Args:
            exchange: The request.
            encoder: Of the answer.
            run: Runs the turn.
            opens_at_once: The status line does not wait for the first event, or for the failure that it would tell.

        """
        stream = self._streams.open(encoder, exchange.request_id)
        try:
            async with run(stream):
                accepted_ms = exchange.elapsed_ms()
                timing = f"gateway;dur={accepted_ms:.1f}"
                if not opens_at_once:
                    await stream.first()
                    await reach("gw.before_first_byte")
                    first_ms = exchange.elapsed_ms()
                    FIRST_EVENT.observe(first_ms / 1000)
                    timing += f", first;dur={first_ms:.1f}"
                headers = exchange.headers(exchange.dialect.stream_headers)
                headers[SERVER_TIMING] = timing
                response = web.StreamResponse(headers=headers)
                await self._streams.serve(stream, exchange.request, response)
        finally:
            self._streams.close(stream)
        return response


def _timing(accepted_ms: float, total_ms: float, ended: TurnEnded) -> str:
    """Say where the time went: until the turn was accepted, in the model queue, provider and store, altogether."""
    timings = ended.timings
    return (
        f"gateway;dur={accepted_ms:.1f}, queue;dur={timings.queued_ms:.1f}, "
        f"provider;dur={timings.total_ms:.1f}, store;dur={ended.store_ms:.1f}, total;dur={total_ms:.1f}"
    )
