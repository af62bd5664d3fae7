"""An OpenAI-compatible upstream that costs next to nothing, in a process of its own.

The last user message says what to do: `tokens=20 delay_ms=5 hold_s=0`. Tokens are `w` and a space; a held stream stops
after its first token.
"""

import asyncio
import re
import sys
from typing import Final, cast

import uvloop

HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n"
)
_PLAN: Final = re.compile(rb"tokens=(\d+)(?: delay_ms=(\d+))?(?: hold_s=(\d+))?")
_LENGTH: Final = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


def _event(delta: bytes, finish: bytes = b"null") -> bytes:
    data = (
        b'data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"bench","choices":[{"index":0,"delta":'
        + delta
        + b',"finish_reason":'
        + finish
        + b"}]}\n\n"
    )
    return b"%x\r\n%s\r\n" % (len(data), data)


FIRST: Final = _event(b'{"role":"assistant","content":"w "}')
TOKEN: Final = _event(b'{"content":"w "}')
_END: Final = b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":%d}}\n\ndata: [DONE]\n\n'


def ending(tokens: int) -> bytes:
    """Return the last events of an answer."""
    end = _END % tokens
    return _event(b"{}", b'"stop"') + b"%x\r\n%s\r\n0\r\n\r\n" % (len(end), end)


class Upstream(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _: Exception | None) -> None:
        if self._answer is not None:
            self._answer.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not separator or length is None or len(rest) < int(length.group(1)):
            return
        self._buffer = b""
        plan = _PLAN.search(rest)
        tokens, delay_ms, hold_s = (int(group or 0) for group in plan.groups()) if plan else (1, 0, 0)
        if delay_ms or hold_s:
            self._answer = asyncio.create_task(self._slowly(tokens, delay_ms / 1000, hold_s))
        else:
            self._write(HEAD + FIRST + TOKEN * (tokens - 1) + ending(tokens))

    async def _slowly(self, tokens: int, delay_s: float, hold_s: int) -> None:
        self._write(HEAD + FIRST)
        await asyncio.sleep(hold_s)
        for _ in range(tokens - 1):
            await asyncio.sleep(delay_s)
            self._write(TOKEN)
        self._write(ending(tokens))

    def _write(self, data: bytes) -> None:
        self._transport.write(data)


async def serve(port: int) -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
