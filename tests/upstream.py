"""Starts the stub upstream in a process of its own and asks it what it saw."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from kitemesh_cli import processes, servers

SCRIPT = Path(__file__).with_name("upstream_stub.py")


class Upstream:
    """A running stub.

    Attributes:
        url: What a catalog calls `base_url`.

    """

    def __init__(self, port: int) -> None:
        self._root = f"http://{servers.LOOPBACK}:{port}"
        self.url = f"{self._root}/v1"

    async def plan(self, text: str, *, model: str = "") -> None:
        """Answer every request, or those for one model, like this model name; empty ends that."""
        query = {"model": model}
        async with aiohttp.request("PUT", f"{self._root}/control/plan", data=text, params=query) as response:
            response.raise_for_status()

    async def reset(self) -> None:
        """Forget what was seen and planned."""
        async with aiohttp.request("DELETE", f"{self._root}/control/records") as response:
            response.raise_for_status()

    async def records(self, *, came: int = 0, ended: int = 0, timeout_s: float = 5.0) -> list[dict[str, Any]]:
        """Return the requests seen, once so many came and so many of them ended."""
        query = {"came": str(came), "ended": str(ended), "timeout_s": str(timeout_s)}
        async with aiohttp.request("GET", f"{self._root}/control/records", params=query) as response:
            records: list[dict[str, Any]] = await response.json()
            assert response.status == 200, f"the upstream waits in vain for {came} and {ended} of: {records}"
            return records

    async def calls(self, asked: str) -> int:
        """Count the requests whose last message of a user is this one."""
        return sum(record["asked"] == asked for record in await self.records())


@contextmanager
def start_upstream(log: Path) -> Iterator[Upstream]:
    """Run a stub while inside."""
    port = servers.free_port()
    process = processes.spawn([sys.executable, str(SCRIPT), str(port)], log)
    try:
        servers.wait_listening(process, port, timeout_s=15, log=log)
        yield Upstream(port)
    finally:
        process.kill()
        process.wait()
