"""The demo's client against gateways that break off, refuse, drain and report errors."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from kitemesh_cli.demo_stream import PATH, Piece, Stream
from kitemesh_cli.failures import Failed

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

LIMIT_S = 10.0


def event(number: int, text: str, finish: str = "null") -> str:
    return f'id: run:{number}\ndata: {{"choices":[{{"delta":{{"content":"{text}"}},"finish_reason":{finish}}}]}}\n\n'


def serving(*events: str, cut: bool = False, seen: list[str | None] | None = None, status: int = 200) -> Handler:
    """Answer with these events; `cut` breaks the connection behind them."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if seen is not None:
            seen.append(request.headers.get("Last-Event-ID"))
        response = web.StreamResponse(status=status, headers={"x-execution-id": "run"})
        await response.prepare(request)
        for each in events:
            await response.write(each.encode())
        if cut:
            assert request.transport is not None
            request.transport.abort()
        return response

    return handle


@asynccontextmanager
async def streaming(*handlers: Handler) -> AsyncIterator[tuple[Stream, list[str]]]:
    """Yield a stream over gateways that answer so, and the list of where it went after breaks."""
    async with AsyncExitStack() as stack:
        urls = []
        for handler in handlers:
            app = web.Application()
            app.router.add_post(PATH, handler)
            server = await stack.enter_async_context(TestServer(app))
            urls.append(str(server.make_url("")).rstrip("/"))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        went: list[str] = []
        yield Stream(session, urls, {}, lambda _, url: went.append(f"gateway {urls.index(url) + 1}")), went


async def read(stream: Stream) -> list[Piece]:
    async with asyncio.timeout(LIMIT_S):
        return [piece async for piece in stream.pieces()]


DONE = "data: [DONE]\n\n"


async def test_after_a_break_it_goes_on_elsewhere_behind_the_last_whole_event() -> None:
    seen: list[str | None] = []
    half = event(2, "lost")[:20]
    async with streaming(
        serving(event(1, "one "), half, cut=True, seen=seen), serving(event(2, "two", '"stop"'), DONE, seen=seen)
    ) as (stream, went):
        pieces = await read(stream)
    assert pieces == [Piece("run:1", "one ", None), Piece("run:2", "two", "stop")]
    assert seen == [None, "run:1"]
    assert (went, stream.breaks, stream.execution) == (["gateway 2"], 1, "run")


async def test_a_gateway_that_drains_or_is_not_available_is_left() -> None:
    draining = 'data: {"error":{"message":"Later","code":"service.draining"}}\n\n'
    seen: list[str | None] = []
    first = iter([serving(event(1, "one "), draining), serving(event(2, "two", '"stop"'), DONE, seen=seen)])

    async def handle(request: web.Request) -> web.StreamResponse:
        return await next(first)(request)

    async with streaming(handle, serving(status=503)) as (stream, went):
        pieces = await read(stream)
    assert "".join(piece.text for piece in pieces) == "one two"
    assert seen == ["run:1"]
    assert went == ["gateway 2"]


async def test_an_end_without_done_is_a_break_and_no_end() -> None:
    async with streaming(serving(event(1, "one ")), serving(DONE)) as (stream, went):
        assert len(await read(stream)) == 1
    assert went == ["gateway 2"]


async def test_an_error_in_the_stream_ends_it_with_that_word() -> None:
    gap = 'data: {"error":{"message":"Not kept any more","code":"stream.gap"}}\n\n'
    async with streaming(serving(event(1, "one "), gap)) as (stream, _):
        with pytest.raises(Failed, match=r"stream\.gap: Not kept any more"):
            await read(stream)


async def test_what_is_not_accepted_is_not_tried_again() -> None:
    async with streaming(serving(status=400), serving(DONE)) as (stream, went):
        with pytest.raises(Failed, match="400"):
            await read(stream)
    assert went == []


async def test_a_connection_that_breaks_before_the_turn_is_accepted_ends_it() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with streaming(handle, serving(DONE)) as (stream, _):
        with pytest.raises(Failed, match="not accepted"):
            await read(stream)
