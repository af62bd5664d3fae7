"""Clients that ask again as soon as they are answered, wherever a gateway serves them, and keep a record of each turn.

A client that is refused, or finds nobody, asks again elsewhere, as the answer's Retry-After allows: no turn was begun.
Once a turn was accepted, whatever is not its whole answer is a failure; only a durable stream may be come back for.
"""

import asyncio
import contextlib
import json
import re
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import aiohttp

from scale.scale_record import Kind, Turn

PATIENCE_S: Final = 60.0
SILENCE_S: Final = 25.0
PAUSE_S: Final = 0.2
"""Before a client asks elsewhere that was told nothing of when to."""
PAUSE_MOST_S: Final = 2.0
REFUSED: Final = frozenset({429, 503})
DRAINING: Final = "service.draining"

_WAITED: Final = re.compile(r"\bmodel_queue;dur=([\d.]+)")


class Wish(NamedTuple):
    """What a client asks for.

    Attributes:
        expected: The text that makes the answer whole.

    """

    kind: Kind
    model: str
    expected: str
    durable: bool = False


class _Refused(Exception):
    """No turn was begun; it may be asked for again, after so many seconds."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__()
        self.retry_after_s = retry_after_s


class _Cut(Exception):
    """A stream stopped, and its turn goes on."""


class _Asking:
    """One turn, seen from its client."""

    def __init__(self, wish: Wish, asked_s: float) -> None:
        self.wish = wish
        self.asked_s = self.began_s = asked_s
        self.key = uuid.uuid4().hex
        self.text = ""
        self.last_id = ""
        self.accepted = False
        self.waited_s: float | None = None
        self.again = self.resumes = 0

    @property
    def body(self) -> dict[str, Any]:
        mode = "durable" if self.wish.durable else "classic"
        messages = [{"role": "user", "content": "go on"}]
        stream = self.wish.kind == "stream"
        return {"model": self.wish.model, "stream": stream, "messages": messages, "metadata": {"mode": mode}}

    def ended(self, at_s: float, problem: str) -> Turn:
        return Turn(
            kind=self.wish.kind,
            durable=self.wish.durable,
            asked_s=self.asked_s,
            began_s=self.began_s,
            ended_s=at_s,
            waited_s=self.waited_s,
            again=self.again,
            resumes=self.resumes,
            problem=problem,
        )


class Clients:
    """All clients; made by `asking`.

    Args:
        origins: The gateways that are said to serve; it may change meanwhile.
        key: The API key.
        turns: Gets each turn that ended.
        began: The run's beginning, of the monotonic clock.

    """

    def __init__(self, origins: Sequence[str], key: str, turns: list[Turn], began: float) -> None:
        self._origins = origins
        self._headers = {"Authorization": f"Bearer {key}"}
        self._turns = turns
        self._began = began
        self._asked = 0

    @contextlib.asynccontextmanager
    async def asking(self, wishes: Mapping[Wish, int]) -> AsyncIterator[None]:
        """Have so many clients for each wish while inside; leaving waits for the end of every turn."""
        ending = asyncio.Event()
        timeout = aiohttp.ClientTimeout(total=None, connect=5)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector, headers=self._headers) as session:
            tasks = [
                asyncio.create_task(self._keep_asking(session, wish, ending))
                for wish, count in wishes.items()
                for _ in range(count)
            ]
            try:
                yield
                ending.set()
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep_asking(self, session: aiohttp.ClientSession, wish: Wish, ending: asyncio.Event) -> None:
        while not ending.is_set():
            asking = _Asking(wish, self._now_s())
            try:
                async with asyncio.timeout(PATIENCE_S):
                    problem = await self._bring_to_an_end(session, asking, ending)
            except TimeoutError:
                problem = f"not answered within {PATIENCE_S:g} s"
            if problem is not None:
                self._turns.append(asking.ended(self._now_s(), problem))

    async def _bring_to_an_end(
        self, session: aiohttp.ClientSession, asking: _Asking, ending: asyncio.Event
    ) -> str | None:
        """Return the problem, empty for none; `None` where the end came before a turn was begun."""
        while not (ending.is_set() and not asking.accepted):
            pause_s = PAUSE_S
            if not asking.accepted:
                asking.began_s = self._now_s()
            try:
                return await self._ask(session, asking)
            except _Refused as refused:
                pause_s = min(refused.retry_after_s, PAUSE_MOST_S)
                asking.again += 1
            except _Cut:
                asking.resumes += 1
            except (aiohttp.ClientError, OSError) as exc:
                if asking.accepted and not asking.last_id:
                    return f"{type(exc).__name__} {exc}"
                if asking.accepted:
                    asking.resumes += 1
                else:
                    asking.again += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await ending.wait()
        return None

    async def _ask(self, session: aiohttp.ClientSession, asking: _Asking) -> str:
        headers = {"Idempotency-Key": asking.key} if asking.wish.durable else {}
        if asking.last_id:
            headers["Last-Event-ID"] = asking.last_id
        # Taken in turns, as a load balancer would.
        self._asked += 1
        origin = self._origins[self._asked % len(self._origins)]
        async with session.post(f"{origin}/v1/chat/completions", json=asking.body, headers=headers) as reply:
            if reply.status in REFUSED:
                raise _Refused(float(reply.headers.get("Retry-After", PAUSE_S)))
            if reply.status != 200:
                return f"{reply.status} {(await reply.text())[:300]}"
            asking.accepted = True
            if asking.wish.kind == "stream":
                await _read(asking, reply)
            else:
                asking.waited_s = _waited_s(reply.headers.get("Server-Timing", ""))
                body = json.loads(await reply.read())
                asking.text = body["choices"][0]["message"]["content"]
        return "" if asking.text == asking.wish.expected else f"told {asking.text[:200]!r}"

    def _now_s(self) -> float:
        return time.monotonic() - self._began


def _waited_s(timing: str) -> float:
    found = _WAITED.search(timing)
    return float(found.group(1)) / 1000 if found is not None else 0.0


async def _read(asking: _Asking, reply: aiohttp.ClientResponse) -> None:
    """Read a stream to its end.

    Raises:
        _Cut: It stopped before that, and can be come back for.
        ClientPayloadError: It stopped, and cannot.

    """
    name = ""
    while True:
        async with asyncio.timeout(SILENCE_S):
            line = (await reply.content.readline()).decode()
        if line.startswith("id: "):
            name = line[4:].rstrip()
        elif line.startswith("data: [DONE]"):
            return
        elif line.startswith("data: "):
            event = json.loads(line[6:])
            error = event.get("error")
            if error is not None and asking.wish.durable and error.get("code") == DRAINING:
                raise _Cut
            if error is not None:
                raise aiohttp.ClientPayloadError(json.dumps(error))
            for choice in event["choices"]:
                asking.text += choice["delta"].get("content") or ""
            if asking.wish.durable:
                asking.last_id = name
        elif not line:
            if asking.last_id:
                raise _Cut
            raise aiohttp.ClientPayloadError("the stream stopped without an end")
