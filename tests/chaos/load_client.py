"""One client of the load: asks, reads, comes back by `Last-Event-ID` or by its key, and notes what it was shown.

A classic turn is asked once. A durable one is asked until it has ended: at another gateway each time, from the last
event on if there was one.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, NamedTuple

import aiohttp

from chaos.load_turns import Ask, LoadTurn

PATIENCE_S: Final = 90.0
"""Who has no end of a turn by then has lost it."""
SILENCE_S: Final = 20.0
"""A stream is pinged every 15 s; a client that hears nothing for longer asks again."""
AGAIN_S: Final = 0.25
WHOLE_S: Final = 60.0

TRANSIENT: Final = frozenset({408, 409, 429, 500, 502, 503, 504})
DRAINING: Final = "service.draining"


class _Told(NamedTuple):
    """What one request came to.

    Attributes:
        problem: Empty where it is complete.
        final: To ask again would not help.
        left: The client itself ended it.

    """

    status: int
    problem: str = ""
    final: bool = False
    left: bool = False
    stored: bool = True


class LoadClient:
    """Asks gateways in turn.

    Args:
        origins: The gateways.
        key: The API key.
        session: Connections; its own time-outs must be off.

    """

    def __init__(self, origins: Sequence[str], key: str, session: aiohttp.ClientSession) -> None:
        self._origins = origins
        self._headers = {"Authorization": f"Bearer {key}"}
        self._session = session

    async def drive(self, turn: LoadTurn, first: int) -> None:
        """Bring a turn to its end, beginning at one of the gateways."""
        end_s = time.monotonic() + PATIENCE_S
        place = first
        while True:
            began_s = time.monotonic()
            try:
                async with asyncio.timeout(max(0.1, end_s - began_s)):
                    told = await self._ask(turn, self._origins[place % len(self._origins)])
            except (aiohttp.ClientError, TimeoutError, OSError) as exc:
                told = _Told(0, f"{type(exc).__name__} {exc}")
            good = not told.problem
            turn.asks.append(Ask(began_s, time.monotonic(), told.status, good or told.left, told.stored))
            turn.problem = told.problem
            if good or told.final or not turn.keyed or time.monotonic() >= end_s:
                break
            place += 1
            await asyncio.sleep(AGAIN_S)
        if good:
            turn.result = "answered"
        elif told.final or told.status in TRANSIENT:
            turn.result = "failed" if told.status == 200 or turn.last_id else "refused"

    async def _ask(self, turn: LoadTurn, origin: str) -> _Told:
        headers = dict(self._headers)
        if turn.keyed:
            headers["Idempotency-Key"] = turn.tag
        if turn.last_id:
            headers["Last-Event-ID"] = turn.last_id
            turn.resumes += 1
        else:
            turn.shown = ""
        async with self._session.post(f"{origin}/v1/chat/completions", json=turn.body, headers=headers) as reply:
            turn.execution = reply.headers.get("x-execution-id", turn.execution)
            if reply.status != 200:
                words = (await reply.read()).decode(errors="replace")[:400]
                return _Told(reply.status, f"{reply.status} {words}", final=reply.status not in TRANSIENT)
            if turn.stream:
                return await _read_stream(turn, reply)
            async with asyncio.timeout(WHOLE_S):
                body = json.loads(await reply.read())
            turn.shown = body["choices"][0]["message"]["content"]
            return _Told(200, stored=body["kitemesh"].get("stored", True))


async def _read_stream(turn: LoadTurn, reply: aiohttp.ClientResponse) -> _Told:
    finished, stored = False, True
    async for name, data in read_events(reply):
        if data == "[DONE]":
            return _Told(200, "" if finished else "[DONE] before any finish_reason", final=True, stored=stored)
        event: dict[str, Any] = json.loads(data)
        if (error := event.get("error")) is not None:
            # Told to come back, a client of a durable turn does; of a classic one it cannot.
            return _Told(200, json.dumps(error), final=error.get("code") != DRAINING)
        for choice in event.get("choices", ()):
            turn.shown += choice["delta"].get("content") or ""
            finished = finished or choice["finish_reason"] is not None
        stored = stored and event.get("kitemesh", {}).get("stored", True)
        turn.last_id = name or turn.last_id
        if turn.leave_after is not None:
            turn.leave_after -= 1
            if turn.leave_after <= 0:
                turn.leave_after = None
                return _Told(200, "its client left", left=True)
    return _Told(0, "the stream ended with neither an error nor an end")


async def read_events(reply: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, str]]:
    """Yield id and data of each event; an event cut short is none.

    Raises:
        TimeoutError: Nothing came for longer than a stream may be silent.

    """
    name, data = "", ""
    while True:
        async with asyncio.timeout(SILENCE_S):
            line = await reply.content.readline()
        if not line.endswith(b"\n"):
            return
        text = line.decode().rstrip("\n")
        if text.startswith("id: "):
            name = text[4:]
        elif text.startswith("data: "):
            data = text[6:]
        elif not text:
            if data:
                yield name, data
            name, data = "", ""
