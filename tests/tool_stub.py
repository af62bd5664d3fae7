"""A tool's HTTP server with a ledger of its own, in its own process: `python tool_stub.py PORT LEDGER`.

Every effect is one line of the ledger, on the disk before the answer begins. Under `/keyed/` a request whose
Idempotency-Key is in the ledger has no second effect: it is a line with `replay`. The query says how to answer: `mode`
is one of `MODES`, for the first `times` requests of a key (always without it), and `ok` after them.
"""

import asyncio
import gzip
import hashlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import uvloop
from aiohttp import web

MODES: Final = {
    "ok": "200 with JSON that tells the request",
    "slow": "ok after delay_ms",
    "hang": "the effect, then nothing",
    "drop": "the effect, then the connection is closed without an answer",
    "500": "500 with text",
    "503": "503 with Retry-After: retry_after, 1 without it",
    "429": "429 likewise",
    "404": "404 with text",
    "410": "410 with text",
    "cut": "headers and half a body, then a reset",
    "huge": "a body of `bytes`, 8 MiB without it",
    "redirect": "302 to `to`",
    "binary": "an image",
    "latin": "text in ISO-8859-1",
    "gzip": "a compressed body that nobody asked for",
    "garbage": "no HTTP at all",
    "empty": "204",
    "cookie": "ok, with a cookie to keep",
}
SECRET_WORDS: Final = "the tool's own words"


class Ledger:
    """Effects, on the disk."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.known = {line["id"] for line in read_ledger(path) if not line["replay"]}

    def append(self, call: str, **more: Any) -> None:
        """Note one effect before anything is answered."""
        line = {"id": call, "replay": False, "at": time.time(), **more}
        os.write(self._file, json.dumps(line).encode() + b"\n")
        os.fsync(self._file)
        self.known.add(call)


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """Return the effects so far, oldest first."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line]


class Stub:
    """The server's state."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._seen: Counter[str] = Counter()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Have the effect, then answer as the query says."""
        body = await request.read()
        call = request.headers.get("Idempotency-Key") or request.headers.get("x-kitemesh-execution-id", "")
        self._ledger.append(
            call,
            replay=request.path.startswith("/keyed/") and call in self._ledger.known,
            method=request.method,
            path=request.raw_path,
            body_sha256=hashlib.sha256(body).hexdigest(),
        )
        self._seen[call] += 1
        mode = request.query.get("mode", "ok")
        if self._seen[call] > int(request.query.get("times", sys.maxsize)):
            mode = "ok"
        return await self._answer(request, body, mode)

    async def _answer(self, request: web.Request, body: bytes, mode: str) -> web.StreamResponse:
        match mode:
            case "hang":
                await asyncio.Event().wait()
            case "slow":
                await asyncio.sleep(float(request.query.get("delay_ms", 1000)) / 1000)
            case "404" | "410" | "500":
                return web.Response(status=int(mode), text=SECRET_WORDS)
            case "503" | "429":
                return web.Response(status=int(mode), headers={"Retry-After": request.query.get("retry_after", "1")})
            case "redirect":
                return web.Response(status=302, headers={"Location": request.query["to"]}, text=SECRET_WORDS)
            case "binary":
                return web.Response(body=b"\x89PNG\r\n\x1a\n", content_type="image/png")
            case "latin":
                return web.Response(body="caf\u00e9".encode("latin-1"), content_type="text/plain", charset="iso-8859-1")
            case "gzip":
                bomb = gzip.compress(b" " * 4 * 1024 * 1024)
                return web.Response(body=bomb, content_type="text/plain", headers={"Content-Encoding": "gzip"})
            case "huge":
                return await _stream(request, int(request.query.get("bytes", 8 * 1024 * 1024)))
            case "cut" | "drop" | "garbage":
                return await _break(request, mode)
            case "empty":
                return web.Response(status=204)
        answer = web.json_response(
            {
                "path": request.raw_path,
                "headers": {name.lower(): value for name, value in request.headers.items()},
                "body": body.decode(errors="replace"),
            }
        )
        if mode == "cookie":
            answer.set_cookie("session", "kept")
        return answer


async def _stream(request: web.Request, size: int) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    await response.prepare(request)
    block = b"x" * 65_536
    for start in range(0, size, len(block)):
        await response.write(block[: size - start])
    return response


async def _break(request: web.Request, mode: str) -> web.StreamResponse:
    transport = request.transport
    assert transport is not None
    if mode == "cut":
        response = web.StreamResponse(headers={"Content-Type": "text/plain", "Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"half")
        await asyncio.sleep(0.05)
        transport.abort()
    elif mode == "garbage":
        transport.write(b"\x00\x01 this is no HTTP\r\n\r\n")
        await asyncio.sleep(0.05)
        transport.close()
    else:
        transport.close()
    raise ConnectionResetError


async def serve(port: int, ledger: Path) -> None:
    """Serve until killed."""
    app = web.Application(client_max_size=16 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", Stub(Ledger(ledger)).serve)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    await asyncio.Event().wait()


class ToolStub:
    """A running stub.

    Attributes:
        url: Its root, without a slash at the end.
        ledger: Its effects.

    """

    def __init__(self, port: int, ledger: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.ledger = ledger

    def effects(self, call: str | None = None) -> list[dict[str, Any]]:
        """Return the effects so far, of one call or of all, without replays."""
        lines = read_ledger(self.ledger)
        return [line for line in lines if not line["replay"] and (call is None or line["id"] == call)]


@contextmanager
def start_tool_stub(folder: Path) -> Iterator[ToolStub]:
    """Run a stub while inside; its ledger and log are in the folder."""
    from kitemesh_cli import processes, servers  # noqa: PLC0415  the stub's own process needs none of it

    port, ledger, log = servers.free_port(), folder / "effects.jsonl", folder / "tool-stub.log"
    process = processes.spawn([sys.executable, str(Path(__file__)), str(port), str(ledger)], log)
    try:
        servers.wait_listening(process, port, timeout_s=15, log=log)
        yield ToolStub(port, ledger)
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), Path(sys.argv[2])))
