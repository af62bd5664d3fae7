"""Streams that are read to the last byte: what came when, and whether numbered tokens came each once and in order."""

import asyncio
import re
import time
from typing import Final, NamedTuple, cast

from bench.bench_client import Target, chat_body, post_bytes
from kitemesh_contracts.headers import LAST_EVENT_ID

_EVENT: Final = re.compile(rb"id: (\S+)\ndata: (\{[^\n]*\})\n\n")
_TEXT: Final = re.compile(rb'"content":"([^"]*)"')
_DONE: Final = b"data: [DONE]"


class Told(NamedTuple):
    """What a connection has told.

    Attributes:
        ids: Of every whole event.
        text: Of all of them.
        done: The stream is over.

    """

    status: int
    ids: list[str]
    text: str
    done: bool


class Reading(asyncio.Protocol):
    """One connection with one stream."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.chunks: list[tuple[float, bytes]] = []
        self._awaited = b""
        self._came = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        tail = self.chunks[-1][1][-len(_DONE) - 32 :] if self.chunks else b""
        self.chunks.append((time.perf_counter(), data))
        if self._awaited and self._awaited in tail + data:
            self._came.set()
        if _DONE in tail + data and not self.ended.done():
            self.ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._came.set()
        if not self.ended.done():
            self.ended.set_result(None)

    async def until(self, text: bytes) -> None:
        """Return once a text has come, or the connection has ended."""
        if text not in b"".join(data for _, data in self.chunks):
            self._awaited = text
            await self._came.wait()

    def told(self) -> Told:
        """Return what has come in whole events."""
        raw = b"".join(data for _, data in self.chunks)
        found = _EVENT.findall(raw)
        text = b"".join(piece for _, data in found for piece in _TEXT.findall(data))
        status = int(raw[9:12]) if len(raw) > 12 else 0
        return Told(status, [each.decode() for each, _ in found], text.decode(), _DONE in raw)

    def counts(self) -> list[tuple[float, int]]:
        """Return when how many tokens had come."""
        tokens = 0
        found = []
        for moment, data in self.chunks:
            tokens += sum(piece.count(b" ") for piece in _TEXT.findall(data))
            found.append((moment, tokens))
        return found


async def read(target: Target, text: str, last_id: str = "") -> Reading:
    """Ask for a stream, or for what follows a position of one."""
    headers = f"{LAST_EVENT_ID}: {last_id}\r\n" if last_id else ""
    request = post_bytes(target, target.path, chat_body(target, text, stream=True), headers)
    _, reading = await asyncio.get_running_loop().create_connection(Reading, "127.0.0.1", target.port)
    reading.transport.write(request)
    return reading


def numbered(tokens: int) -> str:
    """Return the text of so many numbered tokens."""
    return "".join(f"w{number} " for number in range(tokens))
