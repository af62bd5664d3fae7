"""Turns over upstreams that fail in every way there is: what is asked, and what each client was shown."""

import asyncio
import itertools
import json
import random
import time
import uuid
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import aiohttp

from chaos.load_client import read_events
from upstream_faults import FAULTS, WORDS, model_of, providers_at, slug

MARK: Final = "chaos"
LATE: Final = "comes and goes"
"""A model whose upstream is well and ill by turns, for seconds."""
LATE_PLAN: Final = f"ok?mark={slug(LATE)}"
PATIENCE_S: Final = 30.0
LEFT_SHARE: Final = 0.05
"""Clients of streams that go away after their first words."""

Result = Literal["answered", "refused", "failed", "left", "stuck"]
"""`refused` is an error instead of an answer, `failed` one within a stream."""


def catalog_at(url: str) -> dict[str, Any]:
    """Define a model for each fault, and each again as the first of a group and as the second of another."""
    models: dict[str, Any] = {slug(name): model_of(fault, MARK) for name, fault in FAULTS.items()}
    models[slug(LATE)] = {"provider": "stub", "upstream": LATE_PLAN}
    models["spare"] = {"provider": "stub", "upstream": "ok?mark=spare"}
    names = [*FAULTS, LATE]
    groups = {_group(name): {"models": [slug(name), "spare"]} for name in names}
    groups |= {
        _group(f"{first} then {second}"): {"models": [slug(first), slug(second), "spare"]}
        for first, second in itertools.pairwise(names)
        if slug(first) != slug(second)
    }
    return {"version": 1, "providers": providers_at(url), "models": models, "groups": groups}


def _group(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"chaos {name}"))


@dataclass
class UpstreamTurn:
    """A turn and its client.

    Attributes:
        tag: What it says; the stub counts its calls by it.
        kind: What is asked: one model, or a group of two or three.
        codes: Of the errors that it may end in; empty for one that must be answered.
        problem: What is wrong with how it ended; empty when nothing is.

    """

    tag: str
    model: str
    kind: str
    stream: bool
    durable: bool
    leaves: bool
    result: Result = "stuck"
    status: int = 0
    took_s: float = 0.0
    shown: str = ""
    problem: str = ""
    error: dict[str, Any] = field(default_factory=dict)

    @property
    def body(self) -> dict[str, Any]:
        mode = {"metadata": {"mode": "durable" if self.durable else "classic"}}
        return {
            "model": self.model,
            "stream": self.stream,
            "messages": [{"role": "user", "content": self.tag}],
            **mode,
        }


def plan(rng: random.Random, count: int) -> list[UpstreamTurn]:
    """Choose so many turns: every fault in turn, alone and in groups, in both modes, streamed and whole."""
    names = [*FAULTS, LATE]
    turns = []
    for number in range(count):
        name = names[number % len(names)]
        place = names.index(name)
        kind = rng.choice(["alone", "group of two", "group of three"])
        if kind == "group of three" and place == len(names) - 1:
            kind = "group of two"
        model = {
            "alone": slug(name),
            "group of two": f"group:{_group(name)}",
            "group of three": f"group:{_group(f'{name} then {names[(place + 1) % len(names)]}')}",
        }[kind]
        stream = rng.random() < 0.5
        turns.append(
            UpstreamTurn(
                tag=f"{number}: {name}",
                model=model,
                kind=kind,
                stream=stream,
                durable=rng.random() < 0.3,
                leaves=stream and rng.random() < LEFT_SHARE,
            )
        )
    rng.shuffle(turns)
    return turns


def open_session() -> aiohttp.ClientSession:
    """Open connections for any number of clients, each for one request: one that had an error in a stream is closed."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))


class UpstreamClient:
    """Asks once and never again: a client's retries would hide what is looked for."""

    def __init__(self, origin: str, key: str, session: aiohttp.ClientSession) -> None:
        self._url = f"{origin}/v1/chat/completions"
        self._headers = {"Authorization": f"Bearer {key}"}
        self._session = session

    async def drive(self, turn: UpstreamTurn) -> None:
        """Ask, read to the end, and note what came."""
        began_s = time.monotonic()
        try:
            async with (
                asyncio.timeout(PATIENCE_S),
                self._session.post(self._url, json=turn.body, headers=self._headers) as reply,
            ):
                await self._read(turn, reply)
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            turn.problem = f"{type(exc).__name__} {exc}"
        turn.took_s = time.monotonic() - began_s

    async def _read(self, turn: UpstreamTurn, reply: aiohttp.ClientResponse) -> None:
        turn.status = reply.status
        if reply.status != 200:
            turn.error = json.loads(await reply.read())["error"]
            turn.result = "refused"
        elif turn.stream:
            await _read_stream(turn, reply)
        else:
            (choice,) = json.loads(await reply.read())["choices"]
            turn.shown = choice["message"]["content"] or ""
            turn.result = "answered"
            if choice["finish_reason"] != "stop":
                turn.problem = f"it ended with {choice['finish_reason']}"


async def _read_stream(turn: UpstreamTurn, reply: aiohttp.ClientResponse) -> None:
    finish = None
    async for _, data in read_events(reply):
        if data == "[DONE]":
            turn.result = "answered"
            if finish != "stop":
                turn.problem = f"[DONE] after the finish_reason {finish}"
            return
        event = json.loads(data)
        if event.get("error") is not None:
            turn.error, turn.result = event["error"], "failed"
            if finish is not None:
                turn.problem = "an error after the finish_reason"
            return
        for choice in event.get("choices", ()):
            turn.shown += choice["delta"].get("content") or ""
            finish = finish or choice["finish_reason"]
        if turn.leaves and turn.shown:
            turn.result = "left"
            return
    turn.problem = "the stream ended with neither an error nor an end"


def is_whole(text: str) -> bool:
    """Tell whether a text is all that an upstream had to say."""
    return text in {WORDS, "w0 w1"}
