"""The health port of every service: alive, ready, dependencies, metrics.

Alive means the event loop turns; ready means started and not draining. Readiness does not follow dependencies: taking
every replica out when a store is down would turn an exact error into none.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from kitemesh_runtime.metrics import DEPENDENCY_UP, REGISTRY


class Watched(Protocol):
    """A dependency's state, from its last real operation."""

    @property
    def name(self) -> str:
        """Which one."""

    @property
    def is_up(self) -> bool:
        """Whether its last operation succeeded."""

    @property
    def reason(self) -> str:
        """Why it is down; empty when up."""


def routes(is_ready: Callable[[], bool], dependencies: Sequence[Watched]) -> web.Application:
    """Build the health application."""

    async def livez(_: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def readyz(_: web.Request) -> web.Response:
        ready = is_ready()
        return web.json_response({"status": "ready" if ready else "not ready"}, status=200 if ready else 503)

    async def healthz(_: web.Request) -> web.Response:
        states = {each.name: {"up": each.is_up, "reason": each.reason} for each in dependencies}
        healthy = is_ready() and all(each.is_up for each in dependencies)
        return web.json_response(
            {"status": "healthy" if healthy else "degraded", "ready": is_ready(), "dependencies": states},
            status=200 if healthy else 503,
        )

    async def metrics(_: web.Request) -> web.Response:
        for each in dependencies:
            DEPENDENCY_UP.labels(each.name).set(1 if each.is_up else 0)
        return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes(
        [
            web.get("/livez", livez),
            web.get("/readyz", readyz),
            web.get("/healthz", healthz),
            web.get("/metrics", metrics),
        ],
    )
    return app


@asynccontextmanager
async def serve_health(
    host: str,
    port: int,
    *,
    is_ready: Callable[[], bool],
    dependencies: Sequence[Watched],
) -> AsyncIterator[int]:
    """Serve the health port while inside; yields the port, which was chosen when 0 was asked for."""
    runner = web.AppRunner(routes(is_ready, dependencies), access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
