"""Turns with effects, from the client's side: asked, answered where they are held, and what the client was shown."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

import aiohttp

from chaos.effect_catalog import FAR_TOOL, Effect, tool_of
from cluster import GROUP, Cluster, events, streamed_text

Shape = Literal["plain", "held", "pools"]
"""One call that runs; one that is held and approved; two calls of one step, in two pools."""

SHAPES: Final[tuple[Shape, ...]] = ("plain", "held", "pools")
PATIENCE_S: Final = 90.0
"""A client waits for so long; who is not answered by then is lost."""
WORDS: Final = "told to its end, word after word"

Result = Literal["answered", "failed", "lost", "refused"]
"""`failed` is an explicit error of a turn that was accepted, `refused` one before that."""


class Leg(NamedTuple):
    """One request of a client, in seconds of the monotonic clock."""

    began_s: float
    ended_s: float


class Told(NamedTuple):
    """What a request came to.

    Attributes:
        approval: The hold that it ended in, and the calls to be decided.
        problem: Why there is no answer.

    """

    execution: str
    text: str | None = None
    approval: str | None = None
    calls: tuple[str, ...] = ()
    problem: str = ""


@dataclass
class Turn:
    """A turn and its client.

    Attributes:
        tag: Names its effect; that of its call in the second pool is `far_tag`.
        execution: Its id; empty while it was not accepted.
        problem: Why it was not answered.

    """

    tag: str
    effect: Effect
    shape: Shape
    stream: bool
    execution: str = ""
    result: Result = "lost"
    shown: str | None = None
    problem: str = ""
    legs: list[Leg] = field(default_factory=list)

    @property
    def far_tag(self) -> str:
        return f"{self.tag}-far"

    @property
    def tags(self) -> dict[str, Effect]:
        """The effects that it has."""
        return {self.tag: self.effect} | ({self.far_tag: "keyed"} if self.shape == "pools" else {})

    @property
    def answer(self) -> str:
        """What it should say at its end."""
        return f"{self.tag} {WORDS}"

    @property
    def prompt(self) -> str:
        """What its client asks."""
        tool = tool_of(self.effect, held=self.shape == "held")
        calls = [f'@call {tool} {{"tag": "{self.tag}"}}']
        if self.shape == "pools":
            calls.append(f'@call {FAR_TOOL} {{"tag": "{self.far_tag}"}}')
        return "\n".join([*calls, "@then", "@delay_ms 10", f"@echo {self.answer}"])


def open_session() -> aiohttp.ClientSession:
    """Open connections for any number of clients, who wait as long as they like."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None))


class Client:
    """Asks a cluster; one for many turns at once."""

    def __init__(self, cluster: Cluster, session: aiohttp.ClientSession) -> None:
        self._origin = cluster.origin
        self._headers = {"Authorization": f"Bearer {cluster.key}"}
        self._session = session

    async def drive(self, turn: Turn) -> None:
        """Bring a turn to its end, approving what is held, and note in it what happened."""
        messages = [{"role": "user", "content": turn.prompt}]
        body: dict[str, Any] = {"model": GROUP, "messages": messages, "stream": turn.stream}
        told = await self._ask(turn, "/v1/chat/completions", body)
        if told is None:
            return
        if turn.shape == "held":
            if told.approval is None:
                turn.problem = "it was to be held and is not"
                return
            body = {
                "model": GROUP,
                "approval_id": told.approval,
                "approved_tool_execution_ids": list(told.calls),
                "stream": turn.stream,
            }
            told = await self._ask(turn, "/v1/chat/resume", body)
            if told is None:
                return
        turn.shown = told.text
        turn.result = "answered"

    async def _ask(self, turn: Turn, path: str, body: dict[str, Any]) -> Told | None:
        """Send one request of a turn; `None` when the turn is over with it."""
        began_s = time.monotonic()
        try:
            told = await self._send(path, body)
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            turn.problem = f"{path}: {type(exc).__name__} {exc}"
            return None
        finally:
            turn.legs.append(Leg(began_s, time.monotonic()))
        turn.execution = turn.execution or told.execution
        if told.problem:
            turn.problem = f"{path}: {told.problem}"
            turn.result = "failed" if turn.execution else "refused"
            return None
        return told

    async def _send(self, path: str, body: dict[str, Any]) -> Told:
        async with (
            asyncio.timeout(PATIENCE_S),
            self._session.post(self._origin + path, json=body, headers=self._headers) as reply,
        ):
            payload = await reply.read()
            execution = reply.headers.get("x-execution-id", "")
            if reply.status != 200:
                return Told(execution, problem=f"{reply.status} {payload.decode(errors='replace')}")
        return _streamed(execution, payload) if body["stream"] else _whole(execution, payload)


def _whole(execution: str, payload: bytes) -> Told:
    body = json.loads(payload)
    (choice,) = body["choices"]
    return Told(
        execution,
        choice["message"]["content"],
        body["kitemesh"].get("approval_id"),
        tuple(call["id"] for call in choice["message"].get("tool_calls", ())),
    )


def _streamed(execution: str, payload: bytes) -> Told:
    parts = events(payload)
    problems = [part["error"] for part in parts if "error" in part]
    finished = [choice["finish_reason"] for part in parts for choice in part.get("choices", ())][-1:]
    if problems:
        if payload.rstrip().endswith(b"data: [DONE]"):
            raise AssertionError(f"a stream with an error ends as if complete: {payload!r}")
        return Told(execution, problem=f"in the stream: {json.dumps(problems[0])}")
    if finished in ([], [None]) or not payload.rstrip().endswith(b"data: [DONE]"):
        raise TimeoutError(f"the stream ended with neither an error nor an end: {payload[-300:]!r}")
    approvals = [part["kitemesh"]["approval_id"] for part in parts if "approval_id" in part.get("kitemesh", {})]
    calls = [
        call["id"]
        for part in parts
        for choice in part.get("choices", ())
        for call in choice["delta"].get("tool_calls", ())
        if "id" in call
    ]
    return Told(execution, streamed_text(payload), approvals[0] if approvals else None, tuple(calls))
