"""Durable streams read again at another gateway: two relays on a real bus and store, the test plays the runner."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import cast

import pymongo
import pytest

from integration.bus.rig import OwnServer
from integration.gateway.rig import get, open_rig
from kitemesh_contracts import codec, subjects
from kitemesh_contracts.content import AssistantMessage, Step, Usage
from kitemesh_contracts.deltas import Delta, Frame, ReasoningDelta, TextDelta, TurnEnded
from kitemesh_contracts.errors import ErrorCode, KitemeshError
from kitemesh_gateway import positions
from kitemesh_gateway.dialects.base import Facts
from kitemesh_gateway.dialects.completions import Completions
from kitemesh_gateway.relay import Relay
from kitemesh_gateway.sse import Stream, Streams
from kitemesh_gateway.watches import Watched
from kitemesh_runtime.bus_nats import NatsBus, open_bus
from kitemesh_runtime.clock import SystemClock
from kitemesh_runtime.driver_mongo import open_database
from kitemesh_runtime.indexes_mongo import ensure_indexes
from kitemesh_runtime.live_turns import Job, LiveTurn
from kitemesh_runtime.parcels import Parcels
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.stores_mongo import open_stores
from kitemesh_runtime.turns import TurnRecord

_numbers = itertools.count(1)
TENANT = "acme"
CLOCK = SystemClock()


class Pipe:
    """A connection whose client has read everything."""

    def __init__(self) -> None:
        self.data = b""
        self._more = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    def write(self, data: bytes) -> None:
        self.data += data
        task = asyncio.create_task(self._tell())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self) -> None:
        async with self._more:
            self._more.notify_all()

    async def holds(self, part: bytes) -> None:
        async with asyncio.timeout(10), self._more:
            await self._more.wait_for(lambda: part in self.data)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False


class Turn:
    """A durable turn: what its runner publishes and its orchestrator stores."""

    def __init__(self, bus: NatsBus, stores: Stores) -> None:
        self.id = f"01990000-0000-7000-8000-{next(_numbers):012x}"
        self.bus = bus
        self.stores = stores
        self._told: dict[str, int] = {}
        self.facts = Facts(
            turn=self.id, model="m", created_s=17, label="r", conversation=None, include_usage=True, resumable=True
        )
        self.live = LiveTurn(
            id=self.id,
            tenant=TENANT,
            version=1,
            status="queued",
            mode="durable",
            model="m",
            state=b"",
            jobs=(Job(kind="model", step=1, pool="p"),),
        )

    async def accept(self) -> "Turn":
        assert await self.stores.live_turns.insert(TENANT, self.live)
        return self

    def tell(self, *texts: str, first: int = 1, step: int = 1, attempt: int = 1, gateway: str = "a") -> None:
        """Publish one frame for each text; one that begins with `~` is reasoning."""
        prefix = subjects.out(gateway, self.id, step, attempt)
        for n, text in enumerate(texts, start=first):
            item: Delta = ReasoningDelta(text=text[1:]) if text.startswith("~") else TextDelta(text=text)
            offset = self._told.get(prefix, 0)
            self.bus.post(subjects.out_frame(prefix, n), codec.encode(Frame(n=n, offset=offset, items=(item,))))
            self._told[prefix] = offset + (0 if text.startswith("~") else len(text))

    def close(self, text: str, *, step: int = 1, attempt: int = 1, last: int, reasoning: str = "") -> None:
        ended = TurnEnded(
            turn=self.id,
            tenant=TENANT,
            outcome="completed",
            step=step,
            attempt=attempt,
            last=last,
            text=text,
            reasoning=reasoning,
            finish="stop",
            usage=Usage(input_tokens=1, output_tokens=2),
        )
        self.bus.publish(subjects.live("a", self.id, step, attempt), codec.encode(ended))

    async def finish(self, text: str, *, last: int, attempt: int = 1, reasoning: str = "") -> None:
        record = TurnRecord(
            id=self.id,
            tenant=TENANT,
            status="completed",
            mode="durable",
            model="m",
            answer=AssistantMessage(text=text, reasoning=reasoning),
            finish="stop",
            usage=Usage(input_tokens=1, output_tokens=2),
            attempt=attempt,
            last=last,
        )
        await self.stores.live_turns.finish(TENANT, record, version=self.live.version)

    async def captured(self) -> None:
        assert await self.bus.posted(timeout_s=5)


class Gateway:
    """What of a gateway shows streams."""

    def __init__(self, bus: NatsBus, stores: Stores) -> None:
        self.relay = Relay(
            bus, Parcels(stores.blobs), stores.live_turns, stores.holds, CLOCK, conversations=stores.conversations
        )
        self.streams = Streams(CLOCK, ping_s=15, patience_s=15, max_unsent_bytes=256 * 1024, first_event_s=10)

    @asynccontextmanager
    async def follow(self, turn: Turn, last_event: str | None = None) -> AsyncIterator[tuple[Stream, Pipe]]:
        position = None
        if last_event is not None:
            _, position = positions.parse(last_event)
        stream = self.streams.open(Completions().encoder(turn.facts), "req")
        pipe = Pipe()
        watched = Watched(turn=turn.id, tenant=TENANT, budget_s=60, stream=True, durable=True)
        async with self.relay.attached(watched, stream, position=position):
            stream.attach(cast("asyncio.Transport", pipe), chunked=False, now_s=CLOCK.monotonic())
            yield stream, pipe

    async def read(self, turn: Turn, last_event: str | None = None) -> bytes:
        """Follow a turn to its end and return what was sent."""
        async with asyncio.timeout(20), self.follow(turn, last_event) as (stream, pipe):
            await stream.done()
            return pipe.data


@pytest.fixture
async def stores(mongo_url: str) -> AsyncIterator[Stores]:
    name = f"attach_{next(_numbers)}"
    async with open_database(mongo_url, name=name) as database:
        await ensure_indexes(database)
        async with open_stores(database) as opened:
            yield opened
    with pymongo.MongoClient[dict[str, object]](mongo_url) as client:
        client.drop_database(name)


@pytest.fixture
async def cluster(
    gateway_server: OwnServer, stores: Stores
) -> AsyncIterator[tuple[Gateway, Gateway, Callable[[], Turn]]]:
    async with AsyncExitStack() as stack:
        runner, a, b = [
            await stack.enter_async_context(open_bus(gateway_server.url, name=name)) for name in ("runner", "a", "b")
        ]
        first, second = Gateway(a, stores), Gateway(b, stores)
        await first.relay.listen("a")
        await second.relay.listen("b")
        yield first, second, lambda: Turn(runner, stores)


Cluster = tuple[Gateway, Gateway, Callable[[], Turn]]


def events(data: bytes) -> list[bytes]:
    return [event + b"\n\n" for event in data.split(b"\n\n")[:-1]]


def id_of(event: bytes) -> str:
    return event.split(b"\n", 1)[0].removeprefix(b"id: ").decode()


TEXTS = [f"{'~' if n < 4 else ''}word-{n} 🐟 " for n in range(1, 1101)]
TEXT = "".join(text for text in TEXTS if not text.startswith("~"))
REASONING = "".join(text[1:] for text in TEXTS if text.startswith("~"))


@pytest.mark.requirement("resume:exact-while-captured", "promise:P6")
async def test_from_any_event_on_any_gateway_sends_the_same_bytes_as_the_first_time(cluster: Cluster) -> None:
    first, second, begin = cluster
    turn = await begin().accept()
    async with first.follow(turn) as (stream, pipe):
        turn.tell(*TEXTS)
        await turn.captured()
        await pipe.holds(b"word-1100 ")
        await turn.finish(TEXT, last=len(TEXTS), reasoning=REASONING)
        turn.close(TEXT, last=len(TEXTS), reasoning=REASONING)
        async with asyncio.timeout(10):
            await stream.done()
        sent = events(pipe.data)
    assert len(sent) == len(TEXTS) + 4
    assert sent[-1].endswith(b"[DONE]\n\n")
    assert await second.read(turn) == b"".join(sent)
    for index in (0, 1, 2, 3, 4, 510, 511, 512, 513, 1024, 1099, 1100, 1101, 1102, 1103):
        assert await second.read(turn, id_of(sent[index])) == b"".join(sent[index + 1 :]), index


@pytest.mark.requirement("resume:exact-while-captured", "resume:several-readers")
async def test_readers_that_come_back_while_the_turn_runs_miss_nothing_and_are_told_nothing_twice(
    cluster: Cluster,
) -> None:
    first, second, begin = cluster
    turn = await begin().accept()
    async with first.follow(turn) as (stream, pipe), AsyncExitStack() as stack:
        turn.tell(*TEXTS[:300])
        await pipe.holds(b"word-300 ")
        sent = events(pipe.data)
        readers = [
            (index, await stack.enter_async_context(gateway.follow(turn, id_of(sent[index]))))
            for index, gateway in itertools.product((0, 7, 150, 300), (first, second))
        ]
        turn.tell(*TEXTS[300:], first=301)
        turn.close(TEXT, last=len(TEXTS), reasoning=REASONING)
        async with asyncio.timeout(10):
            await stream.done()
            for _, (each, _) in readers:
                await each.done()
        whole = events(pipe.data)
        for index, (_, read) in readers:
            assert read.data == b"".join(whole[index + 1 :]), index


@pytest.mark.requirement("resume:by-content")
async def test_behind_what_is_captured_the_stored_text_goes_on_exactly_where_the_client_is(cluster: Cluster) -> None:
    first, second, begin = cluster
    turn = await begin().accept()
    async with first.follow(turn) as (_, pipe):
        turn.tell("Hello ", "wor")
        await pipe.holds(b'"wor"')
        *_, last = events(pipe.data)
    await turn.finish("Hello world and all", attempt=4, last=9)
    rest = events(await second.read(turn, id_of(last)))
    assert b'{"content":"ld and all"}' in rest[0]
    assert len(rest) == 4
    assert await second.read(turn, id_of(rest[0])) == b"".join(rest[1:])
    assert await first.read(turn, id_of(rest[2])) == rest[3]
    assert await first.read(turn, id_of(rest[3])) == b""


@pytest.mark.requirement("attempt:newest-is-followed")
async def test_another_attempt_goes_on_where_the_one_before_it_died(cluster: Cluster) -> None:
    first, second, begin = cluster
    turn = await begin().accept()
    async with first.follow(turn) as (stream, pipe):
        turn.tell("One ", "two ", "th")
        await pipe.holds(b'"th"')
        seen = events(pipe.data)
        assert await turn.stores.live_turns.claim(TENANT, turn.id, turn.live.jobs[0])
        turn.tell("One two th", "ree ", "four.", attempt=2)
        turn.tell("zombie", first=4)
        await pipe.holds(b'"four."')
        async with second.follow(turn, id_of(seen[2])) as (_, late):
            await late.holds(b'"four."')
            assert b'{"content":"th"}' in late.data
            turn.close("One two three four.", attempt=2, last=3)
            async with asyncio.timeout(10):
                await stream.done()
    assert b"zombie" not in pipe.data
    assert events(pipe.data)[len(seen)].startswith(f"id: {turn.id}:1.2.2.0.14-".encode())


@pytest.mark.requirement("resume:gap-is-an-error")
async def test_where_the_answer_went_on_otherwise_nothing_is_sent(cluster: Cluster) -> None:
    first, second, begin = cluster
    turn = await begin().accept()
    async with first.follow(turn) as (_, pipe):
        turn.tell("Hello ")
        await pipe.holds(b'"Hello "')
        *_, last = events(pipe.data)
    await turn.finish("Goodbye", attempt=2, last=1)
    with pytest.raises(KitemeshError) as refused:
        await second.read(turn, id_of(last))
    assert refused.value.code is ErrorCode.STREAM_GAP
    assert turn.id in refused.value.message


async def test_the_steps_of_a_turn_are_replayed_in_order(cluster: Cluster) -> None:
    _, second, begin = cluster
    turn = begin()
    looked = Step(step=1, attempt=1, last=2, text="Let me look.")
    turn.live = LiveTurn(
        id=turn.id,
        tenant=TENANT,
        version=1,
        status="running",
        mode="durable",
        model="m",
        state=b"",
        steps=(looked,),
        jobs=(Job(kind="model", step=2, pool="p"),),
    )
    await turn.accept()
    turn.tell("Let me ", "look.")
    turn.tell("Sun", "ny.", step=2)
    await turn.captured()
    async with second.follow(turn) as (_, pipe):
        await pipe.holds(b'"ny."')
        assert b'{"content":"\\n\\nSun"}' in pipe.data


@pytest.mark.requirement("promise:P15")
async def test_a_history_larger_than_what_may_wait_reaches_a_client_that_reads_it(
    gateway_server: OwnServer, tmp_path: Path
) -> None:
    texts = [f"word-{n} " + "x" * 100 for n in range(1, 3001)]
    async with open_rig(gateway_server.url, tmp_path, replica="attach", max_unsent_bytes=16 * 1024) as rig:
        turn = await Turn(rig.cluster.bus, rig.stores).accept()
        turn.tell(*texts)
        await turn.captured()
        await turn.finish("".join(texts), last=len(texts))
        client = rig.client()
        await client.send(get(f"/v1/executions/{turn.id}/stream"))
        answer = await client.answer()
        assert len(answer.body) > 500_000
        assert answer.status == 200
        assert [line for line in answer.events if '"turn.ended"' in line] == answer.events[-1:]
        assert len(answer.events) == len(texts) + 2
