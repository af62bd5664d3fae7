"""Whatever is lost, late or told again, and wherever a client is cut off: it is shown the whole answer once."""

import asyncio
import json
import re
from collections import Counter
from random import Random
from typing import Any, Final, NamedTuple, cast

import pytest
from structlog.testing import capture_logs

from kitemesh_contracts import subjects
from kitemesh_contracts.errors import ErrorCode, KitemeshError
from kitemesh_gateway import backlog, catching_up, positions
from kitemesh_gateway.dialects.base import Encoder, Facts
from kitemesh_gateway.dialects.completions_encoder import CompletionsEncoder
from kitemesh_gateway.dialects.native_stream import NativeEncoder
from kitemesh_gateway.positions import Position
from kitemesh_gateway.relay import TICK_S, Relay
from kitemesh_gateway.sse import Stream
from kitemesh_gateway.watches import Watched
from kitemesh_runtime.parcels import Parcels
from kitemesh_runtime.stores_memory import memory_stores
from unit.gateway.rig import TURN, ManualClock
from unit.gateway.streamed_turns import TENANT, Cluster, Faults, Plan, plan

CASES: Final = {
    "nothing": Faults(),
    "the way": Faults(lost=0.2, late=0.2, twice=0.1, end_lost=0.3),
    "what is captured": Faults(lost=0.1, late=0.1, uncaptured=0.15, wiped=0.02, end_lost=0.2),
    "workers": Faults(crashes=0.6, lost=0.1, late=0.1, twice=0.1),
    "workers and what is captured": Faults(crashes=0.6, lost=0.1, late=0.1, uncaptured=0.1, wiped=0.02),
    "who is asked": Faults(lost=0.15, late=0.1, unanswered=0.35),
    "models": Faults(crashes=0.7, others=0.4, lost=0.1, late=0.1, uncaptured=0.05),
    "everything": Faults(
        crashes=0.5,
        others=0.2,
        lost=0.2,
        late=0.2,
        twice=0.1,
        uncaptured=0.1,
        wiped=0.01,
        unanswered=0.3,
        end_lost=0.3,
    ),
}
TURNS: Final = 100
"""For each case and dialect."""
CUTS: Final = 5
"""How often a client loses its connection at the most."""
LOOKS: Final = 400
"""Ticks of the relay within which a turn that has ended must be told to its end."""


class Pipe:
    """A connection whose client has read everything."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    @property
    def events(self) -> list[bytes]:
        return self.data.split(b"\n\n")[:-1]


class Reading(NamedTuple):
    """What one connection brought, and whether anything is to follow."""

    events: list[bytes]
    is_over: bool
    refusal: ErrorCode | None = None


def encoder_of(dialect: str, *, usage: bool) -> Encoder:
    facts = Facts(turn=TURN, model="m", created_s=1, label="r", conversation="c", include_usage=usage, resumable=True)
    return CompletionsEncoder(facts) if dialect == "completions" else NativeEncoder(facts)


async def read(
    cluster: Cluster, encoder: Encoder, position: Position | None, chance: Random, *, most: int | None = None
) -> Reading:
    """Attach to the turn at a gateway that never heard of it, and leave behind `most` events."""
    clock = ManualClock()
    relay = Relay(
        cluster.bus.as_bus(),
        Parcels(memory_stores().blobs),
        cast("Any", cluster),
        cast("Any", cluster),
        clock,
        conversations=cast("Any", cluster),
    )
    stream = Stream(encoder, "req", max_unsent_bytes=1 << 20, opens_by_s=0, starts_at_once=True)
    pipe = Pipe()
    watched = Watched(turn=TURN, tenant=TENANT, budget_s=1e6, stream=True, durable=True)
    attached = relay.attached(watched, stream, position=position)
    entering = asyncio.ensure_future(attached.__aenter__())
    while not entering.done():
        await asyncio.sleep(0)
        if chance.random() < 0.3:
            cluster.go_on()
    try:
        await entering
    except KitemeshError as refused:
        return Reading([], is_over=True, refusal=refused.code)
    try:
        stream.attach(cast("asyncio.Transport", pipe), chunked=False, now_s=clock.now_s)
        looks = 0
        while not stream._done.done() and (most is None or len(pipe.events) < most):
            if not cluster.go_on():
                assert (looks := looks + 1) < LOOKS, "the stream never ends"
                clock.now_s += TICK_S
                relay.tick()
                while not relay._to_look_up.empty():
                    await relay.look_up_next()
            for _ in range(chance.choice([0, 1, 5, 20])):
                await asyncio.sleep(0)
    finally:
        await attached.__aexit__(None, None, None)
    events = pipe.events if most is None else pipe.events[:most]
    return Reading(events, is_over=stream._done.done() and len(events) == len(pipe.events))


def id_of(event: bytes) -> str | None:
    found = re.search(rb"^id: (.*)$", event, re.MULTILINE)
    return found and found[1].decode()


class Told:
    """What events come to."""

    def __init__(self, events: list[bytes]) -> None:
        self.texts: dict[tuple[int, str], str] = {}
        self.kinds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.errors: list[str] = []
        for event in events:
            data = re.search(rb"^data: (.*)$", event, re.MULTILINE)
            assert data is not None
            if data[1] == b"[DONE]":
                self.kinds["done"] += 1
            elif "type" in (told := json.loads(data[1])):
                self._take_native(told)
            else:
                self._take_chunk(told)

    def _take_native(self, told: dict[str, Any]) -> None:
        kind = told["type"]
        if kind.endswith(".delta"):
            self._add(told["step"], kind.partition(".")[0], told["text"])
        else:
            self.kinds[kind] += kind != "call.requested"
        if kind == "call.requested":
            self.calls[told["tool_execution_id"]] += 1
        if told.get("error"):
            self.errors.append(told["error"]["code"])

    def _take_chunk(self, told: dict[str, Any]) -> None:
        if "error" in told:
            self.errors.append(told["error"]["code"])
        for choice in told.get("choices", ()):
            delta = choice["delta"]
            self._add(0, "text", delta.get("content") or "")
            self._add(0, "reasoning", delta.get("reasoning_content") or "")
            self.kinds["role"] += "role" in delta
            self.kinds["finish"] += choice["finish_reason"] is not None
            self.calls.update(call["id"] for call in delta.get("tool_calls", ()))

    def _add(self, step: int, kind: str, text: str) -> None:
        if text:
            self.texts[step, kind] = self.texts.get((step, kind), "") + text


def texts_of(turn: Plan, dialect: str) -> dict[tuple[int, str], str]:
    """Return what a client is to have in the end."""
    parts = [(step.step, kind, getattr(step, kind)) for step in turn.steps for kind in ("text", "reasoning")]
    if dialect == "native":
        return {(step, kind): text for step, kind, text in parts if text}
    joined = {
        kind: "\n\n".join(text for _, each, text in parts if each == kind and text) for kind in ("text", "reasoning")
    }
    return {(0, kind): text for kind, text in joined.items() if text}


async def check(case: str, dialect: str, seed: int) -> None:
    """Read a turn through one connection after another and hold what came against what it said."""
    faults = CASES[case]
    chance = Random(f"{case}/{dialect}/{seed}")
    turn = plan(chance, faults)
    usage = chance.random() < 0.5

    calm = Cluster(chance, Faults(), turn._replace(attempts=counted(turn)))
    truth = await read(calm, encoder_of(dialect, usage=usage), None, chance)
    assert truth.is_over
    whole = Told(truth.events)
    assert whole.texts == texts_of(turn, dialect)

    cluster = Cluster(chance, faults, turn)
    got: list[bytes] = []
    position: Position | None = None
    for cut in range(CUTS + 1):
        for _ in range(chance.choice([0, 0, 1, 5, 40])):
            cluster.go_on()
        most = chance.randint(0, len(truth.events)) if cut < CUTS else None
        reading = await read(cluster, encoder_of(dialect, usage=usage), position, chance, most=most)
        got += reading.events
        if reading.is_over:
            break
        last = next((each for each in map(id_of, reversed(got)) if each), None)
        position = None if last is None else positions.parse(last)[1]

    told = Told(got)
    ids = [each for each in map(id_of, got) if each is not None]
    assert len(ids) == len(set(ids))
    assert set(told.calls.values()) <= {1}
    if ErrorCode.STREAM_GAP in (reading.refusal, *told.errors):
        # The one thing that may keep an answer from its client: it was shown what turned out to be another one.
        assert faults.others
        return
    assert reading.refusal is None
    assert told.errors == whole.errors
    assert told.kinds == whole.kinds
    if turn.outcome != "failed":
        assert told.texts == whole.texts
    elif not faults.others:
        # The rest of an answer that failed is not waited for.
        assert all(whole.texts.get(key, "").startswith(text) for key, text in told.texts.items())
    if dialect == "completions":
        assert told.calls == whole.calls
    if case == "nothing":
        assert got == truth.events


def counted(turn: Plan) -> tuple[Any, ...]:
    """Return the attempts that count."""
    return tuple(each for each in turn.attempts if each.attempt == turn.steps[each.step - 1].attempt)


@pytest.mark.requirement("promise:P6", "resume:nothing-is-missed", "attempt:newest-is-followed")
@pytest.mark.parametrize("dialect", ["completions", "native"])
@pytest.mark.parametrize("case", CASES)
async def test_whatever_fails_a_client_gets_the_whole_answer_once(
    case: str, dialect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catching_up, "PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(catching_up, "FAILED_AGAIN_S", (0.0,))
    # So small that short turns reach them.
    monkeypatch.setattr(catching_up, "SLICE_PIECES", 3)
    monkeypatch.setattr(subjects, "OUT_BLOCK", 3)
    monkeypatch.setattr(backlog, "MAX_FRAMES", 4)
    for seed in range(TURNS):
        try:
            with capture_logs():
                async with asyncio.timeout(10):
                    await check(case, dialect, seed)
        except BaseException as exc:
            exc.add_note(f"{case}, {dialect}, seed {seed}")
            raise
