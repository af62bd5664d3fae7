"""Messages that a stream is to store while nobody waits, against the real server."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from integration.bus.rig import OwnServer, Stream, jetstream, make_stream
from kitemesh_contracts.errors import ContractViolation, ErrorCode, Unavailable
from kitemesh_contracts.topology import OUT, topology
from kitemesh_runtime import connection_nats, posting_nats
from kitemesh_runtime.bus_nats import NatsBus, open_bus
from kitemesh_runtime.metrics import POSTS_GIVEN_UP
from kitemesh_runtime.topology_nats import apply

OUT_SPECS = [spec for spec in topology() if spec.name == OUT]
STORED = b'{"stream":"S","seq":1}'


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting_nats, "REPEAT_S", 0.04)
    monkeypatch.setattr(posting_nats, "TICK_S", 0.02)


class Listening:
    """Somebody who hears what is posted, and acknowledges what the test says."""

    def __init__(self, bus: NatsBus) -> None:
        self._bus = bus
        self.subject = bus._client.new_inbox()
        self.heard: asyncio.Queue[tuple[bytes, bytes | None, bytes]] = asyncio.Queue()
        bus._client.listen(self.subject, lambda _, reply, block, payload: self._hear(reply, block, payload))

    def _hear(self, reply: bytes, block: bytes | None, payload: bytes) -> None:
        self.heard.put_nowait((reply, block, payload))

    async def next(self) -> tuple[bytes, bytes | None, bytes]:
        async with asyncio.timeout(10):
            return await self.heard.get()

    def answer(self, reply: bytes, acknowledgement: bytes) -> None:
        self._bus.publish(reply.decode(), acknowledgement)


async def payloads(bus: NatsBus, stream: str, subject: str = ">") -> list[bytes]:
    kept = await bus.since(stream, subject, 0, limit=100_000, timeout_s=10)
    return [message.payload for message in kept]


async def make_out(bus: NatsBus, **options: Any) -> Stream:
    return await make_stream(bus, **{"retention": "limits", "storage": "memory", "allow_direct": True, **options})


def numbered(n: int) -> list[bytes]:
    return [b"%d" % i for i in range(n)]


async def lose(bus: NatsBus, end: Callable[[], None]) -> None:
    """End the server, and return once the connection has noticed."""
    gone = asyncio.Event()
    bus._client.on_lost(gone.set)
    end()
    async with asyncio.timeout(10):
        await gone.wait()


async def test_what_is_posted_is_heard_at_once_and_stored_without_headers(nats_url: str, bus: NatsBus) -> None:
    stream = await make_out(bus)
    async with open_bus(nats_url, name="listener") as listener:
        heard: asyncio.Queue[tuple[bytes, bytes | None]] = asyncio.Queue()
        listener._client.listen(
            stream.subject("*"), lambda _subject, _reply, block, payload: heard.put_nowait((payload, block))
        )
        await listener.barrier()
        for n in range(5):
            bus.post(stream.subject(n), b"%d" % n)
        async with asyncio.timeout(5):
            assert [await heard.get() for _ in range(5)] == [(payload, None) for payload in numbered(5)]
    assert await bus.posted(timeout_s=5)
    assert await payloads(bus, stream.name) == numbered(5)
    assert (bus._posting.under_way, bus._posting.held_bytes) == (0, 0)


async def test_nothing_is_left_behind_by_ten_thousand_posts(bus: NatsBus) -> None:
    stream = await make_out(bus)
    for n in range(10_000):
        bus.post(stream.subject(n), b"%d" % n)
        if n % 100 == 0:
            await asyncio.sleep(0)
    assert await bus.posted(timeout_s=20)
    assert (bus._posting.under_way, bus._posting.held_bytes) == (0, 0)
    assert not bus._posting._behind
    assert not bus._posting._waits
    assert await payloads(bus, stream.name) == numbered(10_000)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("first", [None, b"gibberish", b"{}", b'{"error":{"code":503,"err_code":10077},"seq":0}'])
async def test_what_is_not_acknowledged_or_refused_is_sent_again(bus: NatsBus, first: bytes | None) -> None:
    listening = Listening(bus)
    bus.post(listening.subject, b"frame")
    reply, block, payload = await listening.next()
    assert (block, payload) == (None, b"frame")
    if first is not None:
        listening.answer(reply, first)
    assert await listening.next() == (reply, None, b"frame")
    listening.answer(reply, STORED)
    assert await bus.posted(timeout_s=5)
    assert bus._posting.under_way == 0


@pytest.mark.usefixtures("quick")
async def test_an_acknowledgement_that_comes_twice_counts_once(bus: NatsBus) -> None:
    listening = Listening(bus)
    bus.post(listening.subject, b"frame")
    reply, _, _ = await listening.next()
    listening.answer(reply, STORED)
    listening.answer(reply, STORED)
    await bus.barrier()
    assert (bus._posting.under_way, bus._posting.held_bytes) == (0, 0)


@pytest.mark.usefixtures("quick")
async def test_a_stream_that_comes_up_later_gets_what_was_posted_before(bus: NatsBus) -> None:
    stream = await make_out(bus)
    await jetstream(bus, f"STREAM.DELETE.{stream.name}")
    bus.post(stream.subject(), b"early")
    assert not await bus.posted(timeout_s=0.1)
    config = {"name": stream.name, "subjects": [f"{stream.name}.>"], "storage": "memory", "allow_direct": True}
    await jetstream(bus, f"STREAM.CREATE.{stream.name}", config)
    assert await bus.posted(timeout_s=10)
    assert set(await payloads(bus, stream.name)) == {b"early"}


@pytest.mark.usefixtures("quick")
async def test_what_no_stream_takes_is_given_up_in_time_and_counted(
    bus: NatsBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posting_nats, "POST_S", 0.15)
    before = POSTS_GIVEN_UP._value.get()
    stream = await make_out(bus, max_msg_size=10)
    for _ in range(3):
        bus.post(stream.subject(), b"x" * 100)
    bus.post(stream.subject(), b"small")
    assert await bus.posted(timeout_s=10)
    assert POSTS_GIVEN_UP._value.get() - before == 3
    assert (bus._posting.under_way, bus._posting.held_bytes) == (0, 0)
    assert await payloads(bus, stream.name) == [b"small"]


@pytest.mark.parametrize("slice_bytes", [posting_nats.SLICE_BYTES, 500])
async def test_what_is_posted_while_disconnected_is_stored_in_order_on_the_next_connection(
    server: OwnServer, own_bus: NatsBus, monkeypatch: pytest.MonkeyPatch, slice_bytes: int
) -> None:
    monkeypatch.setattr(posting_nats, "SLICE_BYTES", slice_bytes)
    monkeypatch.setattr(posting_nats, "PAUSE_S", 0.001)
    stream = await make_out(own_bus, storage="file")
    await lose(own_bus, server.kill)
    for n in range(100):
        own_bus.post(stream.subject(n), b"%d" % n)
    assert own_bus._posting.under_way == 100
    back = asyncio.Event()

    def post_more() -> None:
        own_bus.post(stream.subject(100), b"100")
        back.set()

    own_bus.on_reconnect(post_more)
    server.start()
    async with asyncio.timeout(10):
        await back.wait()
    assert await own_bus.posted(timeout_s=10)
    kept = await payloads(own_bus, stream.name)
    assert list(dict.fromkeys(kept)) == numbered(101)


async def test_a_kill_of_the_server_mid_stream_loses_nothing_that_it_had_not_acknowledged(
    server: OwnServer, own_bus: NatsBus
) -> None:
    await apply(own_bus, OUT_SPECS, replicas=1)
    for n in range(100):
        own_bus.post(f"km.v1.out.g.t.1.1.0.{n}", b"%d" % n)
    assert await own_bus.posted(timeout_s=5)
    server.freeze()
    for n in range(100, 200):
        own_bus.post(f"km.v1.out.g.t.1.1.0.{n}", b"%d" % n)
    await asyncio.sleep(0)  # they are on their way, unacknowledged
    await lose(own_bus, server.kill)
    for n in range(200, 300):
        own_bus.post(f"km.v1.out.g.t.1.1.0.{n}", b"%d" % n)
    server.start()
    await own_bus.wait_connected(10)
    await apply(own_bus, OUT_SPECS, replicas=1)
    assert await own_bus.posted(timeout_s=10)
    kept = await own_bus.last_of(OUT, "km.v1.out.*.t.1.1.0.*")
    # It was in memory: the stream, and what it had acknowledged, ended with the server.
    assert sorted(int(message.payload) for message in kept) == list(range(100, 300))


async def test_a_lost_connection_has_all_that_is_not_acknowledged_sent_again(bus: NatsBus) -> None:
    listening = Listening(bus)
    for n in range(3):
        bus.post(listening.subject, b"%d" % n)
    first = [await listening.next() for _ in range(3)]
    listening.answer(first[1][0], STORED)
    await bus.barrier()
    await bus._client.force_reconnect()
    again = [await listening.next() for _ in range(2)]
    assert again == [first[0], first[2]]
    for reply, _, _ in again:
        listening.answer(reply, STORED)
    assert await bus.posted(timeout_s=5)


async def test_what_the_connection_does_not_take_at_once_goes_out_later_in_order(
    bus: NatsBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = await make_out(bus)
    monkeypatch.setattr(connection_nats, "UNSENT_MAX_BYTES", 2_000)
    for n in range(200):
        bus.post(stream.subject(n), b"%d" % n)
    assert bus._posting._behind
    assert await bus.posted(timeout_s=10)
    assert await payloads(bus, stream.name) == numbered(200)


@pytest.mark.parametrize("bound", [("POSTS_MAX", 10), ("POSTS_MAX_BYTES", 1_000)])
async def test_too_much_that_waits_is_refused_and_there_is_room_again_once_it_is_stored(
    server: OwnServer, own_bus: NatsBus, monkeypatch: pytest.MonkeyPatch, bound: tuple[str, int]
) -> None:
    stream = await make_out(own_bus, storage="file")
    monkeypatch.setattr(posting_nats, *bound)
    await lose(own_bus, server.kill)

    def fill() -> None:
        for n in range(1_000):
            own_bus.post(stream.subject(n), b"%d" % n)

    with pytest.raises(Unavailable) as caught:
        fill()
    assert caught.value.code == ErrorCode.BUS_DOWN
    waiting = own_bus._posting.under_way
    assert 10 <= waiting < 20
    assert own_bus._posting.held_bytes <= 1_000
    server.start()
    assert await own_bus.posted(timeout_s=10)
    own_bus.post(stream.subject("after"), b"after")
    assert await own_bus.posted(timeout_s=10)
    kept = await payloads(own_bus, stream.name)
    assert list(dict.fromkeys(kept)) == [*numbered(waiting), b"after"]


async def test_waiting_is_for_what_was_posted_before_and_ends_when_the_time_is_up(bus: NatsBus) -> None:
    listening = Listening(bus)
    assert await bus.posted(timeout_s=0)
    bus.post(listening.subject, b"before")
    reply, _, _ = await listening.next()
    assert not await bus.posted(timeout_s=0.01)
    waiting = asyncio.create_task(bus.posted(timeout_s=10))
    await asyncio.sleep(0)
    bus.post(listening.subject, b"after")
    listening.answer(reply, STORED)
    assert await waiting
    assert bus._posting.under_way == 1
    assert not bus._posting._waits


async def test_a_cancelled_wait_leaves_nothing_behind_and_the_message_is_still_stored(bus: NatsBus) -> None:
    listening = Listening(bus)
    bus.post(listening.subject, b"frame")
    waiting = asyncio.create_task(bus.posted(timeout_s=10))
    reply, _, _ = await listening.next()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not bus._posting._waits
    listening.answer(reply, STORED)
    assert await bus.posted(timeout_s=5)


async def test_closing_drops_what_is_not_acknowledged_and_tells_who_waits(nats_url: str) -> None:
    async with open_bus(nats_url, name="test") as bus:
        listening = Listening(bus)
        bus.post(listening.subject, b"frame")
        await listening.next()
        waiting = asyncio.create_task(bus.posted(timeout_s=60))
        await asyncio.sleep(0)
    assert not await waiting
    assert not await bus.posted(timeout_s=5)
    with pytest.raises(Unavailable):
        bus.post(listening.subject, b"late")
    assert bus._posting.under_way == 0


@pytest.mark.requirement("bus:subjects-cannot-be-injected")
@pytest.mark.parametrize(
    ("subject", "size"), [("a b", 1), ("a\r\nPUB x 0\r\n\r\n", 1), ("", 1), ("a", 1024 * 1024 + 1)]
)
async def test_what_may_not_travel_is_refused_and_not_kept(bus: NatsBus, subject: str, size: int) -> None:
    with pytest.raises(ContractViolation):
        bus.post(subject, b"x" * size)
    assert (bus._posting.under_way, bus._posting.held_bytes) == (0, 0)
    await bus.barrier()
