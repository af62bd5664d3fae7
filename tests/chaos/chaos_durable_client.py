"""The client of a durable turn: asks, and comes back at another gateway until it has the whole answer.

It comes back by `Last-Event-ID` where it had an event, else by its key. Only what the server tells it counts.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from zlib import crc32

import aiohttp

from chaos.chaos_durable_turns import DurableTurn
from chaos.chaos_turns import PATIENCE_S, Leg
from chaos.load_client import AGAIN_S, TRANSIENT, read_events
from cluster import GROUP

CHAT: Final = "/v1/chat/completions"
RESUME: Final = "/v1/chat/resume"
RUNS: Final = "/v1/executions"
POLL_S: Final = 0.25
WHOLE_S: Final = 30.0
"""Who waits for an answer in one piece asks again when there is none."""
COME_BACK: Final = frozenset({"service.draining", "store.down", "bus.down"})
"""Errors within a stream that ask the client to come back, as 503 does before it."""
PENDING: Final = "idempotency.pending"
ENDED: Final = frozenset({"completed", "failed", "cancelled", "expired"})


class Told(NamedTuple):
    """What one request came to.

    Attributes:
        problem: Why there is no answer; empty where there is one.
        final: Asking again would change nothing.
        approval: The hold that the answer ended in, and the calls to be decided.

    """

    problem: str = ""
    final: bool = False
    approval: str = ""
    calls: tuple[str, ...] = ()


class Pieces:
    """What the events of one answer add up to over all requests, checked against what their ids say."""

    def __init__(self, turn: DurableTurn) -> None:
        self._turn = turn
        self._steps: dict[int, str] = {}
        self._last = (0, 0, 0, 0)
        self.calls: list[str] = []

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(self._steps.values())

    def take(self, name: str, text: str) -> None:
        """Take an event, as its id names it, with the text that it adds."""
        turn = self._turn
        turn.progress_s.append(time.monotonic())
        if not name:
            turn.wrong.append(f"an event of a durable stream has no id: {text!r}")
            return
        execution, _, position = name.rpartition(":")
        turn.ids.add(execution)
        step, attempt, n, k, measure, *_ = position.partition("~")[0].split(".")
        place = (int(step), int(attempt), int(n), int(k))
        before = self._last
        if place <= before and place[1:3] != (0, 0):
            turn.wrong.append(f"event {name} comes after {before}")
        self._last = max(before, place)
        self._steps[place[0]] = whole = self._steps.get(place[0], "") + text
        length, _, digest = measure.partition("-")
        if (int(length), int(digest, 16)) != (len(whole), crc32(whole.encode())):
            turn.wrong.append(f"event {name} does not fit the {len(whole)} characters shown: ...{whole[-40:]!r}")
        turn.last_id = name


class DurableClient:
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
        self._place = 0

    async def drive(self, turn: DurableTurn) -> None:
        """Bring a turn to its end, approving what is held, and note what happened."""
        if turn.kind in ("polled", "followed"):
            told = await self._answer(turn, RUNS, turn.body)
            if told is not None and turn.kind == "polled":
                told = await self._answer(turn, f"{RUNS}/{turn.execution}", None)
            elif told is not None:
                told = await self._answer(turn, f"{RUNS}/{turn.execution}/stream", None)
        else:
            told = await self._answer(turn, CHAT, turn.body)
        if told is not None and turn.kind == "held":
            if not told.approval:
                turn.wrong.append("it was to be held and is not")
                return
            approved = list(told.calls)
            body = {"model": GROUP, "approval_id": told.approval, "approved_tool_execution_ids": approved}
            told = await self._answer(turn, RESUME, {**body, "stream": turn.stream})
        if told is not None:
            turn.result = "answered"

    async def _answer(self, turn: DurableTurn, path: str, body: dict[str, Any] | None) -> Told | None:
        """Have one answer, however often it must be asked for; `None` when there is none."""
        end_s = time.monotonic() + PATIENCE_S
        turn.last_id, pieces = "", Pieces(turn)
        while True:
            began_s = time.monotonic()
            self._place += 1
            try:
                async with asyncio.timeout(max(0.1, end_s - began_s)):
                    if not turn.last_id:
                        pieces = Pieces(turn)
                    told = await self._ask(turn, self._origins[self._place % len(self._origins)] + path, body, pieces)
            except (aiohttp.ClientError, TimeoutError, OSError) as exc:
                told = Told(f"{type(exc).__name__} {exc}")
            turn.legs.append(Leg(began_s, time.monotonic()))
            if not told.problem:
                turn.progress_s.append(time.monotonic())
                return told
            turn.problem = f"{path}: {told.problem}"
            turn.is_behind_claim = turn.is_behind_claim or PENDING in told.problem
            if told.final:
                turn.errors.append(turn.problem)
                turn.result = "failed"
                return None
            if time.monotonic() >= end_s:
                return None
            turn.again += 1
            await asyncio.sleep(AGAIN_S)

    async def _ask(self, turn: DurableTurn, url: str, body: dict[str, Any] | None, pieces: Pieces) -> Told:
        headers = dict(self._headers)
        if turn.last_id:
            headers["Last-Event-ID"] = turn.last_id
            turn.resumes += 1
        elif turn.is_keyed and body is not None and not url.endswith(RESUME):
            headers["Idempotency-Key"] = turn.tag
        method = "GET" if body is None else "POST"
        async with self._session.request(method, url, json=body, headers=headers) as reply:
            if reply.status not in (200, 202):
                words = (await reply.read()).decode(errors="replace")[:400]
                return Told(f"{reply.status} {words}", final=reply.status not in TRANSIENT)
            if execution := reply.headers.get("x-execution-id", ""):
                turn.accepted_s = turn.accepted_s or time.monotonic()
                turn.execution = execution
                turn.ids.add(execution)
            turn.conversation = reply.headers.get("x-conversation-id", turn.conversation)
            if reply.content_type == "text/event-stream":
                return await _read_stream(turn, reply, pieces)
            async with asyncio.timeout(WHOLE_S):
                answer = json.loads(await reply.read())
        if reply.status == 202:
            return Told()
        return _whole(turn, answer) if "choices" in answer else await self._poll(turn, url, answer)

    async def _poll(self, turn: DurableTurn, url: str, shown: dict[str, Any]) -> Told:
        while shown["status"] not in ENDED:
            await asyncio.sleep(POLL_S)
            async with self._session.get(url, headers=self._headers) as reply:
                if reply.status != 200:
                    return Told(f"{reply.status} {await reply.text()}", final=reply.status not in TRANSIENT)
                shown = await reply.json()
        if shown["status"] != "completed":
            return Told(f"it is {shown['status']}: {shown.get('error')}", final=True)
        turn.shown = "".join(step["text"] for step in shown["steps"])
        return Told()


def _whole(turn: DurableTurn, body: dict[str, Any]) -> Told:
    (choice,) = body["choices"]
    if approval := body["kitemesh"].get("approval_id"):
        return Told(approval=approval, calls=tuple(call["id"] for call in choice["message"]["tool_calls"]))
    turn.shown = choice["message"]["content"]
    return Told()


async def _read_stream(turn: DurableTurn, reply: aiohttp.ClientResponse, pieces: Pieces) -> Told:
    approval = ""
    async for name, data in read_events(reply):
        if data == "[DONE]":
            turn.shown = pieces.text
            return Told(approval=approval, calls=tuple(pieces.calls))
        event: dict[str, Any] = json.loads(data)
        if (error := event.get("error")) is not None and event.get("type", "error") in ("error", "turn.ended"):
            return Told(f"in the stream: {json.dumps(error)}", final=error.get("code") not in COME_BACK)
        if "type" in event:
            pieces.take(name, event["text"] if event["type"] == "text.delta" else "")
            if event["type"] == "turn.ended":
                turn.shown = pieces.text
                return Told()
            continue
        deltas = [choice["delta"] for choice in event["choices"]]
        pieces.take(name, "".join(delta.get("content") or "" for delta in deltas))
        pieces.calls += [call["id"] for delta in deltas for call in delta.get("tool_calls", ()) if "id" in call]
        approval = event.get("kitemesh", {}).get("approval_id") or approval
    return Told("the stream ended with neither an error nor an end")
