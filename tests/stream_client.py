"""Clients of event streams: they read event by event, leave in the middle, come back by the last id and check it all.

What they check beside the text is what every id says: how much of the step's text was shown up to its event.
"""

import asyncio
import json
import time
import zlib
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from itertools import cycle, groupby, pairwise
from typing import Any, NamedTuple

import aiohttp

from cluster import GROUP, Cluster
from kitemesh_gateway import positions

CHAT = "/v1/chat/completions"
RESUME = "/v1/chat/resume"
PATIENCE_S = 60.0
AGAIN_S = 0.1
"""A client that was refused waits for so long before it asks again."""
DRAINING = "service.draining"
TRANSIENT = frozenset({409, 429, 500, 502, 503, 504})
STEP_BREAK = "\n\n"


class Event(NamedTuple):
    """One event.

    Attributes:
        block: Its bytes without the blank line behind it.
        at_s: When it came, by the monotonic clock.

    """

    block: bytes
    at_s: float
    id: str = ""
    data: str = ""
    retry: str = ""


def read_event(block: bytes, at_s: float = 0.0) -> Event:
    """Read an event's lines."""
    fields = dict(line.split(": ", 1) for line in block.decode().split("\n") if not line.startswith(":"))
    assert fields.keys() <= {"id", "data", "retry"}, block
    return Event(block, at_s, **fields)


def events_in(body: bytes) -> list[Event]:
    """Return the events of a whole stream, pings left out."""
    *blocks, tail = body.split(b"\n\n")
    assert tail == b"", tail
    return [read_event(block) for block in blocks if not block.startswith(b":")]


class Stream:
    """An open stream."""

    def __init__(self, reply: aiohttp.ClientResponse) -> None:
        self.status = reply.status
        self.headers = reply.headers
        self._reply = reply

    async def read(self, count: int) -> list[Event]:
        """Return the next events."""
        found = []
        async for event in self.events():
            found.append(event)
            if len(found) == count:
                return found
        raise AssertionError(f"{count} events were expected, and these came: {found}")

    async def rest(self) -> list[Event]:
        """Return all that follows."""
        return [event async for event in self.events()]

    async def events(self) -> AsyncIterator[Event]:
        """Yield events as they come, whole ones only."""
        while True:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    block = await self._reply.content.readuntil(b"\n\n")
            except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError):
                # It was cut: what counts is what came before.
                return
            if not block.endswith(b"\n\n"):
                assert not block, block
                return
            if not block.startswith(b":"):
                yield read_event(block[:-2], time.monotonic())

    async def json(self) -> Any:
        """Return the body of a refusal."""
        return json.loads(await self._reply.read())


@asynccontextmanager
async def open_session() -> AsyncIterator[aiohttp.ClientSession]:
    """Open connections without time-outs or bounds of their own."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(
        connector=connector, timeout=aiohttp.ClientTimeout(), read_bufsize=2**22
    ) as session:
        yield session


def ask(text: str, *, mode: str | None = "durable", **more: Any) -> dict[str, Any]:
    """Return the body of a streamed chat."""
    metadata = {**({} if mode is None else {"mode": mode}), **more.pop("metadata", {})}
    messages = [{"role": "user", "content": text}]
    return {"model": GROUP, "stream": True, "messages": messages, "metadata": metadata, **more}


@asynccontextmanager
async def streaming(
    session: aiohttp.ClientSession,
    gateway: Cluster,
    body: dict[str, Any] | None = None,
    *,
    path: str = CHAT,
    last: str = "",
    idempotency: str = "",
    key: str = "",
) -> AsyncIterator[Stream]:
    """Ask for a stream: by POST with a body, else by GET. Leaving closes the connection."""
    headers = {"Authorization": f"Bearer {key or gateway.key}"}
    if last:
        headers["Last-Event-ID"] = last
    if idempotency:
        headers["Idempotency-Key"] = idempotency
    method = "GET" if body is None else "POST"
    reply = await session.request(method, gateway.origin + path, json=body, headers=headers)
    try:
        yield Stream(reply)
    finally:
        reply.close()


def followed(execution: str) -> str:
    """Return the path of an execution's own stream."""
    return f"/v1/executions/{execution}/stream"


class Shown:
    """What a client of chat completions was shown, over all of its requests.

    Attributes:
        execution: Its id.
        events: Every event with an id.
        text: Of all steps.
        finishes: Every finish reason.
        problem: The error that ended it, or its latest request.
        sent_away: Events that told it to come back elsewhere.
        requests: How often it asked.

    """

    def __init__(self) -> None:
        self.execution = ""
        self.requests = 0
        self.sent_away: list[Event] = []
        self.events: list[Event] = []
        self.text = ""
        self.reasoning = ""
        self.finishes: list[str] = []
        self.is_done = False
        self.problem: dict[str, Any] = {}
        self._steps: dict[int, tuple[str, str]] = {}

    @property
    def last_id(self) -> str:
        """The id of the last event."""
        return self.events[-1].id if self.events else ""

    def take(self, event: Event) -> None:
        """Note an event and hold its id against what was shown."""
        said = self.note(event)
        if not event.id:
            return
        _, place = positions.parse(event.id)
        text, reasoning = self._steps.get(place.step, ("", ""))
        begins = not text and any(earlier for earlier, _ in self._steps.values())
        text += said[0].removeprefix(STEP_BREAK) if begins else said[0]
        reasoning += said[1]
        self._steps[place.step] = text, reasoning
        assert place.text is not None, event
        assert place.text == measure(text), event
        assert place.reasoning == measure(reasoning), event

    def note(self, event: Event) -> tuple[str, str]:
        """Note an event whose id says nothing of what was shown; return the text and the reasoning that it brought."""
        assert not self.is_done, f"{event} behind the end"
        text = reasoning = ""
        told = {} if event.data == "[DONE]" else json.loads(event.data)
        self.problem = told.get("error", {})
        if self.problem:
            if self.problem["code"] == DRAINING:
                self.sent_away.append(event)
            return "", ""
        self.events.append(event)
        self.is_done = not told
        for choice in told.get("choices", ()):
            text += choice["delta"].get("content") or ""
            reasoning += choice["delta"].get("reasoning_content") or ""
            if choice["finish_reason"]:
                self.finishes.append(choice["finish_reason"])
        self.text += text
        self.reasoning += reasoning
        return text, reasoning

    def take_all(self, events: Iterable[Event]) -> None:
        """Note events."""
        for event in events:
            self.take(event)

    def attempts(self) -> list[int]:
        """Return the attempts that its events were of, in the order in which they came; that of the opening is 0."""
        found = [positions.parse(event.id)[1].attempt for event in self.events]
        return [attempt for attempt, _ in groupby(found) if attempt]

    def is_contiguous(self) -> bool:
        """Tell whether no frame and no event of one is missing, where there was one step and one attempt."""
        places = [positions.parse(event.id)[1] for event in self.events]
        told = [(place.n, place.k) for place in places]
        # The text that no frame had would stand between the last frame and what closes.
        return all(
            (n, k) in {(before[0], before[1] + 1), (before[0] + 1, 0), (before[0] + 2, 0)}
            for before, (n, k) in pairwise(told)
        )

    @property
    def is_complete(self) -> bool:
        """Whether it ended as a complete answer does."""
        return self.is_done and self.finishes == ["stop"] and not self.problem


async def read_to_the_end(
    session: aiohttp.ClientSession,
    gateways: Sequence[Cluster],
    body: dict[str, Any],
    shown: Shown,
    *,
    idempotency: str = "",
) -> Shown:
    """Be the client of a durable turn: come back by the last id, at the next gateway each time, until it has ended."""
    end_s = time.monotonic() + PATIENCE_S
    for gateway in cycle(gateways):
        assert time.monotonic() < end_s, f"no end after {shown.requests} requests: {shown.problem}, {shown.last_id}"
        shown.requests += 1
        with suppress(aiohttp.ClientConnectionError):
            async with streaming(session, gateway, body, last=shown.last_id, idempotency=idempotency) as stream:
                shown.execution = stream.headers.get("x-execution-id", shown.execution)
                if stream.status == HTTPStatus.OK:
                    async for event in stream.events():
                        shown.take(event)
                else:
                    shown.problem = {**(await stream.json())["error"], "status": stream.status}
        if shown.is_done or (shown.problem and not is_passing(shown.problem)):
            return shown
        await asyncio.sleep(AGAIN_S)
    raise AssertionError("there are no gateways")


def is_passing(problem: dict[str, Any]) -> bool:
    """Tell whether a client that asks again may be answered."""
    return problem["code"] == DRAINING or problem.get("status") in TRANSIENT


def measure(text: str) -> positions.Measure:
    """Measure a text as ids do."""
    return positions.Measure(len(text), zlib.crc32(text.encode()))
