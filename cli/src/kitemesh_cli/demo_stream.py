"""A client of one durable stream, as anybody could write it: POST, read events, and after a break go on elsewhere.

It knows HTTP and server-sent events, and of gateways no more than their addresses.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final, NamedTuple

import aiohttp
import msgspec

from kitemesh_cli.failures import Failed
from kitemesh_contracts.headers import EXECUTION_ID, LAST_EVENT_ID

PATH: Final = "/v1/chat/completions"
DONE: Final = "[DONE]"
DRAINING: Final = "service.draining"

_SILENCE_S: Final = 20.0
_TRY_AGAIN_S: Final = 0.05
_OK: Final = 200
_UNAVAILABLE: Final = 503


class Piece(NamedTuple):
    """An event of the stream.

    Attributes:
        text: What it adds to the answer, perhaps nothing.
        finish: Why the answer ends, in the one event that says so.

    """

    id: str
    text: str
    finish: str | None


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta
    finish_reason: str | None = None


class _Error(msgspec.Struct):
    message: str
    code: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    error: _Error | None = None


class _BrokenError(Exception):
    """The connection ended before the stream did."""


class Stream:
    """One turn and its stream.

    Args:
        gateways: Where it may be asked for, the first one first.
        broke: Told of each break, why and where the stream goes on.

    Attributes:
        execution: The turn's public id, once it is accepted.
        gateway: Where the stream comes from now.
        breaks: How often it broke.

    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        gateways: Sequence[str],
        body: Any,
        broke: Callable[[str, str], None],
    ) -> None:
        self.execution = ""
        self.gateway = gateways[0]
        self.breaks = 0
        self._session: Final = session
        self._gateways: Final = gateways
        self._body: Final = body
        self._broke: Final = broke
        self._last_id = ""
        self._tries = 0

    async def pieces(self) -> AsyncIterator[Piece]:
        """Yield every event once, whatever becomes of connections; ends with the stream.

        Raises:
            Failed: The stream says that it cannot go on, or broke before the turn was accepted.

        """
        while True:
            try:
                async for piece in self._connected():
                    self._last_id, self._tries = piece.id or self._last_id, 0
                    yield piece
                return
            except (_BrokenError, aiohttp.ClientError, OSError, TimeoutError) as exc:
                if not self.execution:
                    raise Failed(f"the turn was not accepted: {exc}") from exc
                await self._turn_away(str(exc) if isinstance(exc, _BrokenError) else "the connection broke")

    async def _turn_away(self, reason: str) -> None:
        place = self._gateways.index(self.gateway) + 1
        self.gateway = self._gateways[place % len(self._gateways)]
        if not self._tries:
            self.breaks += 1
            self._broke(reason, self.gateway)
        self._tries += 1
        await asyncio.sleep(_TRY_AGAIN_S)

    async def _connected(self) -> AsyncIterator[Piece]:
        headers = {LAST_EVENT_ID: self._last_id} if self._last_id else {}
        timeout = aiohttp.ClientTimeout(total=None, sock_read=_SILENCE_S)
        async with self._session.post(self.gateway + PATH, json=self._body, headers=headers, timeout=timeout) as answer:
            if answer.status == _UNAVAILABLE and self.execution:
                raise _BrokenError("the gateway is not available")
            if answer.status != _OK:
                raise Failed(f"the gateway answered {answer.status}: {await answer.text()}")
            self.execution = answer.headers.get(EXECUTION_ID, self.execution)
            async for id_, data in _events(answer.content):
                if data == DONE:
                    return
                yield _piece(id_, data)
        raise _BrokenError("the connection ended before the stream did")


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[tuple[str, str]]:
    """Yield each event's id, empty when it has none, and data."""
    id_ = data = ""
    async for raw in content:
        line = raw.decode().rstrip("\r\n")
        if line.startswith("id: "):
            id_ = line.removeprefix("id: ")
        elif line.startswith("data: "):
            data = line.removeprefix("data: ")
        elif not line and data:
            yield id_, data
            id_ = data = ""


def _piece(id_: str, data: str) -> Piece:
    chunk = msgspec.json.decode(data, type=_Chunk)
    if chunk.error is not None:
        if chunk.error.code == DRAINING:
            raise _BrokenError("the gateway drains")
        raise Failed(f"the stream ended with {chunk.error.code}: {chunk.error.message}")
    text = "".join(choice.delta.content or "" for choice in chunk.choices)
    finish = next((choice.finish_reason for choice in chunk.choices if choice.finish_reason), None)
    return Piece(id_, text, finish)
