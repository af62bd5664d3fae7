"""The least that could stand between a client and an upstream: a bare aiohttp pass-through. The bench's yardstick."""

import asyncio
import sys

import aiohttp
import uvloop
from aiohttp import web

_KEY = web.AppKey("session", aiohttp.ClientSession)


async def relay(request: web.Request) -> web.StreamResponse:
    """Forward a request and its answer, byte for byte."""
    body = await request.read()
    async with request.app[_KEY].post(sys.argv[2] + request.path, data=body) as upstream:
        response = web.StreamResponse(headers={"Content-Type": upstream.headers["Content-Type"]})
        await response.prepare(request)
        async for chunk in upstream.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
        return response


async def serve() -> None:
    """Serve until killed."""
    app = web.Application()
    app[_KEY] = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    app.router.add_post("/{path:.*}", relay)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(sys.argv[1]), backlog=4096).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve())
