"""The continuous pull against the real server: credit, survival, renewal."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from integration.bus.rig import OwnServer, Stream, jetstream, make_stream, until
from kitemesh_contracts.errors import Unavailable
from kitemesh_runtime import pull_nats
from kitemesh_runtime.bus import Delivery
from kitemesh_runtime.bus_nats import NatsBus, open_bus


class Inbox:
    """What a pull delivered."""

    def __init__(self) -> None:
        self.all: list[Delivery] = []
        self._queue: asyncio.Queue[Delivery] = asyncio.Queue()

    def __call__(self, delivery: Delivery) -> None:
        self.all.append(delivery)
        self._queue.put_nowait(delivery)

    async def next(self, timeout_s: float = 10) -> Delivery:
        async with asyncio.timeout(timeout_s):
            return await self._queue.get()

    async def take(self, count: int) -> list[Delivery]:
        return [await self.next() for _ in range(count)]


def watch_requests(bus: NatsBus) -> list[bytes]:
    """Collect the pull requests that the client is given from now on."""
    requests: list[bytes] = []
    client, offer = bus._client, bus._client.offer

    def watched(command: bytes) -> bool:
        if b"CONSUMER.MSG.NEXT" in command:
            requests.append(command)
        return offer(command)

    client.offer = watched  # type: ignore[method-assign]  # watched, not replaced
    return requests


@pytest.mark.requirement("pull:credit-is-the-bound")
async def test_no_credit_no_delivery_and_never_more_than_the_credit(bus: NatsBus) -> None:
    stream, inbox = await make_stream(bus), Inbox()
    await stream.put(*(b"%d" % n for n in range(20)))
    pull = await bus.pull(stream.name, stream.consumer, inbox)
    await bus.barrier()
    assert inbox.all == []
    pull.add_credit(3)
    pull.add_credit(4)
    await inbox.take(7)
    assert (await stream.waiting())["num_ack_pending"] == 7
    pull.add_credit(1)
    await inbox.next()
    assert (await stream.waiting())["num_ack_pending"] == 8
    assert (len(inbox.all), pull.credit) == (8, 0)
    await pull.stop()


@pytest.mark.requirement("pull:credit-is-the-bound")
async def test_credit_that_is_taken_back_is_gone_with_the_request_that_asked_for_it(
    bus: NatsBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull_nats, "EXPIRES_S", 0.5)
    stream, inbox = await make_stream(bus), Inbox()
    requests = watch_requests(bus)
    pull = pull_nats.NatsPull(
        bus._client,
        bus._stop_barrier,
        inbox_prefix="_INBOX",
        stream=stream.name,
        consumer=stream.consumer,
        on_delivery=inbox,
        heartbeat_s=0.2,
    )
    pull.set_credit(5)
    await until(lambda: _waits(stream, 1))
    pull.set_credit(1)
    await stream.put(b"1")
    delivery = await inbox.next()
    # The old request may bring four more, and nothing is asked for as long as it stands.
    assert (pull.credit, len(requests)) == (0, 1)
    pull.set_credit(0)
    await until(lambda: _waits(stream, 0))
    await stream.put(b"2")
    await bus.barrier()
    assert inbox.all == [delivery]
    assert await bus.waiting(stream.name, stream.consumer) == 1
    pull.set_credit(1)
    assert (await inbox.next()).pending == 0
    assert await bus.waiting(stream.name, stream.consumer) == 0
    await pull.stop()


async def _waits(stream: Stream, count: int) -> bool:
    return bool((await stream.waiting())["num_waiting"] == count)


async def test_what_waits_for_a_consumer_that_is_not_there_cannot_be_told(bus: NatsBus) -> None:
    stream = await make_stream(bus)
    with pytest.raises(Unavailable):
        await bus.waiting(stream.name, "nobody")


async def test_a_hundred_messages_with_ten_slots_are_each_processed_once(bus: NatsBus) -> None:
    stream = await make_stream(bus)
    seen: Counter[bytes] = Counter()
    held: set[bytes] = set()
    most = 0
    finished = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_delivery(delivery: Delivery) -> None:
        nonlocal most
        held.add(delivery.data)
        most = max(most, len(held))
        loop.call_soon(done, delivery)

    def done(delivery: Delivery) -> None:
        held.discard(delivery.data)
        seen[delivery.data] += 1
        delivery.ack()
        pull.add_credit(1)
        if len(seen) == 100:
            finished.set()

    pull = await bus.pull(stream.name, stream.consumer, on_delivery)
    pull.add_credit(10)
    await stream.put(*(b"%d" % n for n in range(100)))
    async with asyncio.timeout(10):
        await finished.wait()
    await bus.barrier()
    assert seen == {b"%d" % n: 1 for n in range(100)}
    assert most <= 10
    state = await stream.state()
    assert (state["messages"], (await stream.waiting())["num_ack_pending"]) == (0, 0)
    await pull.stop()


async def test_requests_are_far_fewer_than_messages(bus: NatsBus) -> None:
    stream, inbox = await make_stream(bus), Inbox()
    pull = await bus.pull(stream.name, stream.consumer, inbox)
    requests = watch_requests(bus)
    pull.add_credit(20)
    for n in range(60):  # one by one, so that nothing is saved by chance
        await stream.put(b"%d" % n)
        (await inbox.next()).ack()
        pull.add_credit(1)
        await bus.barrier()
    assert 4 <= len(requests) <= 8
    await pull.stop()


async def test_a_paused_pull_leaves_messages_in_the_queue_until_it_is_resumed(bus: NatsBus) -> None:
    stream, inbox = await make_stream(bus), Inbox()
    pull = await bus.pull(stream.name, stream.consumer, inbox)
    pull.add_credit(5)
    await bus.barrier()
    pull.pause()
    pull.pause()
    pull.add_credit(1)
    await bus._client.force_reconnect()
    await bus.wait_connected(10)
    await stream.put(*(b"%d" % n for n in range(10)))
    await bus.barrier()
    info = await stream.waiting()
    assert (info["num_waiting"], info["num_pending"], inbox.all) == (0, 10, [])
    pull.resume()
    pull.resume()
    await inbox.take(6)
    await bus.barrier()
    assert (len(inbox.all), pull.credit) == (6, 0)
    await pull.stop()


async def test_a_message_that_is_given_back_comes_again_and_is_counted(bus: NatsBus) -> None:
    stream, inbox = await make_stream(bus), Inbox()
    await stream.put(b"x")
    pull = await bus.pull(stream.name, stream.consumer, inbox)
    pull.add_credit(10)
    for deliveries in (1, 2, 3):
        delivery = await inbox.next()
        assert (delivery.deliveries, delivery.sequence, delivery.data) == (deliveries, 1, b"x")
        delivery.nak()
    last = await inbox.next()
    last.ack()
    await bus.barrier()
    assert (await stream.state())["messages"] == 0
    await pull.stop()


@pytest.mark.requirement("worker:heartbeat")
async def test_in_progress_puts_redelivery_off(bus: NatsBus) -> None:
    stream, inbox = await make_stream(bus, ack_wait_s=0.4), Inbox()
    await stream.put(b"kept", b"dropped")
    pull = await bus.pull(stream.name, stream.consumer, inbox)
    pull.add_credit(10)
    kept, _dropped = await inbox.take(2)
    assert kept.data == b"kept"
    for _ in range(2):  # two redeliveries of the other one: well past the ack wait
        kept.in_progress()
        again = await asyncio.wait_for(beating(inbox, kept), 10)
        assert again.data == b"dropped"
    kept.ack()
    await pull.stop()


async def beating(inbox: Inbox, kept: Delivery) -> Delivery:
    while True:
        try:
            return await inbox.next(timeout_s=0.1)
        except TimeoutError:
            kept.in_progress()


@pytest.fixture
async def deaf_bus(server: OwnServer) -> AsyncIterator[NatsBus]:
    """A connection whose pulls would notice silence only after half a minute."""
    async with open_bus(server.url, name="test", reconnect_wait_s=0.02, pull_heartbeat_s=15) as opened:
        yield opened


@pytest.mark.requirement("pull:goes-on-by-itself")
async def test_pulling_survives_a_kill_of_the_server(server: OwnServer, deaf_bus: NatsBus) -> None:
    stream, inbox = await make_stream(deaf_bus, ack_wait_s=30), Inbox()
    pull = await deaf_bus.pull(stream.name, stream.consumer, inbox)
    pull.add_credit(10)
    for n in range(3):
        await stream.put(b"%d" % n)
        while (delivery := await inbox.next()).data != b"%d" % n:
            delivery.ack()  # a killed server forgets an ack that it had not written yet
        delivery.ack()
        await deaf_bus.barrier()
        server.kill()
        server.start()
        await deaf_bus.wait_connected(10)
    assert pull.credit == 10 - len(inbox.all)
    await pull.stop()


@pytest.mark.requirement("pull:credit-is-the-bound")
async def test_pulling_survives_a_lost_connection_without_exceeding_the_credit(deaf_bus: NatsBus) -> None:
    stream, inbox = await make_stream(deaf_bus), Inbox()
    pull = await deaf_bus.pull(stream.name, stream.consumer, inbox)
    pull.add_credit(5)
    await deaf_bus.barrier()
    for _ in range(3):
        await deaf_bus._client.force_reconnect()
        await deaf_bus.wait_connected(10)
    await stream.put(*(b"%d" % n for n in range(50)))
    await inbox.take(5)
    await deaf_bus.barrier()
    assert (await stream.waiting())["num_ack_pending"] == 5
    assert len(inbox.all) == 5
    await pull.stop()


@pytest.mark.requirement("pull:goes-on-by-itself")
async def test_a_pull_that_hears_nothing_begins_again(own_bus: NatsBus) -> None:
    stream, inbox = await make_stream(own_bus), Inbox()
    pull = await own_bus.pull(stream.name, stream.consumer, inbox)
    pull.add_credit(5)
    await own_bus.barrier()
    own_bus._client.mute(pull._sid)  # as if the server had forgotten the subscription and its requests
    await own_bus.barrier()
    await stream.put(*(b"%d" % n for n in range(20)))
    await inbox.take(5)
    await own_bus.barrier()
    assert (await stream.waiting())["num_ack_pending"] == 5
    assert (len(inbox.all), pull.credit) == (5, 0)
    await pull.stop()


@pytest.mark.requirement("pull:credit-is-the-bound")
async def test_a_renewal_beside_a_frozen_server_never_exceeds_the_credit(server: OwnServer) -> None:
    async with (
        open_bus(server.url, name="other") as other,
        open_bus(server.url, name="test", pull_heartbeat_s=0.1, ping_interval_s=30) as bus,
    ):
        stream, inbox = await make_stream(other), Inbox()
        pull = await bus.pull(stream.name, stream.consumer, inbox)
        pull.add_credit(5)
        await bus.barrier()
        server.freeze()
        filling = [asyncio.create_task(stream.put(b"%d" % n)) for n in range(50)]
        with capture_logs() as logs:
            async with asyncio.timeout(10):
                while sum(entry["event"] == "pull.silent" for entry in logs) < 4:
                    with pytest.raises(TimeoutError):
                        await inbox.next(timeout_s=0.05)
        server.thaw()
        await asyncio.gather(*filling)
        await inbox.take(5)
        await bus.barrier()
        assert (len(inbox.all), pull.credit) == (5, 0)
        pull.add_credit(45)
        seen = Counter(delivery.data for delivery in [*inbox.all, *await inbox.take(45)])
        assert seen == {b"%d" % n: 1 for n in range(50)}
        await pull.stop()


async def test_what_an_old_request_still_brings_after_a_renewal_counts_against_the_credit(server: OwnServer) -> None:
    async with (
        open_bus(server.url, name="other") as other,
        open_bus(server.url, name="test", pull_heartbeat_s=0.1, ping_interval_s=30) as bus,
    ):
        stream, inbox = await make_stream(other), Inbox()
        pull = await bus.pull(stream.name, stream.consumer, inbox)
        pull.add_credit(5)
        await bus.barrier()
        bus._client._socket().pause_reading()  # deliveries pile up unread while the pull believes in silence
        with capture_logs() as logs:
            await stream.put(*(b"%d" % n for n in range(50)))
            async with asyncio.timeout(10):
                while not any(entry["event"] == "pull.silent" for entry in logs):
                    await other.barrier()
        bus._client._socket().resume_reading()
        await inbox.take(5)
        await bus.barrier()
        await bus.barrier()
        assert (len(inbox.all), pull.credit) == (5, 0)
        assert (await stream.waiting())["num_ack_pending"] == 5
        pull.add_credit(1)
        await inbox.next()
        await pull.stop()


async def test_a_request_that_expires_gives_its_credit_back(
    server: OwnServer, own_bus: NatsBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull_nats, "EXPIRES_S", 0.7)
    stream, inbox = await make_stream(own_bus, max_waiting=1), Inbox()
    pull = await own_bus.pull(stream.name, stream.consumer, inbox)
    requests = watch_requests(own_bus)

    async def asked_again() -> bool:
        await own_bus.barrier()
        return len(requests) >= 2

    with capture_logs() as logs:
        pull.add_credit(5)
        await until(asked_again)
    assert logs == []  # by the server's word, not by silence
    await stream.put(*(b"%d" % n for n in range(10)))
    await inbox.take(5)
    await own_bus.barrier()
    assert (await stream.waiting())["num_ack_pending"] == 5
    assert (len(inbox.all), pull.credit) == (5, 0)
    await pull.stop()


@pytest.mark.requirement("pull:goes-on-by-itself")
async def test_a_deleted_consumer_is_retried_with_backoff_and_pulled_again_once_it_is_back(own_bus: NatsBus) -> None:
    stream, inbox = await make_stream(own_bus), Inbox()
    pull = await own_bus.pull(stream.name, stream.consumer, inbox)
    pull.add_credit(3)

    async def asked() -> bool:
        return bool((await stream.waiting())["num_waiting"] == 1)

    await until(asked)
    with capture_logs() as logs:
        await stream.delete_consumer()
        async with asyncio.timeout(10):
            while sum(entry["event"] == "pull.interrupted" for entry in logs) < 3:
                await own_bus.barrier()
        waits = [entry["retry_s"] for entry in logs if entry["event"] == "pull.interrupted"]
        await stream.create_consumer()
        await stream.put(*(b"%d" % n for n in range(10)))
        await inbox.take(3)
    assert waits[:3] == [0.1, 0.2, 0.4]
    assert logs[0]["reason"] == "Consumer Deleted"
    await own_bus.barrier()
    assert (await stream.waiting())["num_ack_pending"] == 3
    await pull.stop()


@pytest.mark.requirement("pull:goes-on-by-itself")
async def test_a_consumer_that_never_was_is_no_busy_loop(bus: NatsBus) -> None:
    stream, inbox = await make_stream(bus), Inbox()
    with capture_logs() as logs:
        pull = await bus.pull(stream.name, "missing", inbox)
        pull.add_credit(3)
        async with asyncio.timeout(5):
            while len(logs) < 3:
                await bus.barrier()
    assert [(entry["status"], entry["retry_s"]) for entry in logs[:3]] == [(503, 0.1), (503, 0.2), (503, 0.4)]
    await pull.stop()


@pytest.mark.requirement("bus:close-never-hangs")
async def test_stopping_after_pulling_returns_at_once_and_nothing_arrives_any_more(bus: NatsBus) -> None:
    stream, inbox = await make_stream(bus), Inbox()
    pull = await bus.pull(stream.name, stream.consumer, inbox)
    pull.add_credit(100)
    await stream.put(b"1", b"2")
    for delivery in await inbox.take(2):
        delivery.ack()
    async with asyncio.timeout(2):
        await pull.stop()
        await pull.stop()
    await stream.put(b"3")
    pull.add_credit(1)
    await bus.barrier()
    assert len(inbox.all) == 2
    assert (await stream.waiting())["num_ack_pending"] == 0


@pytest.mark.requirement("bus:close-never-hangs")
async def test_stopping_beside_a_frozen_server_takes_a_second_at_most(server: OwnServer, own_bus: NatsBus) -> None:
    stream, inbox = await make_stream(own_bus), Inbox()
    pull = await own_bus.pull(stream.name, stream.consumer, inbox)
    pull.add_credit(1)
    await own_bus.barrier()
    server.freeze()
    async with asyncio.timeout(3):
        await pull.stop()
    server.thaw()
    await own_bus.barrier()


async def test_a_callback_that_raises_does_not_stop_the_pull(bus: NatsBus) -> None:
    stream, inbox = await make_stream(bus), Inbox()

    def on_delivery(delivery: Delivery) -> None:
        inbox(delivery)
        if delivery.data == b"1":
            raise ZeroDivisionError

    pull = await bus.pull(stream.name, stream.consumer, on_delivery)
    pull.add_credit(10)
    with capture_logs() as logs:
        await stream.put(b"1", b"2")
        assert [delivery.data for delivery in await inbox.take(2)] == [b"1", b"2"]
    assert [entry["event"] for entry in logs] == ["bus.receiver_failed"]
    await pull.stop()


async def test_two_pulls_share_the_messages_of_one_consumer(nats_url: str, bus: NatsBus) -> None:
    stream = await make_stream(bus)
    seen: Counter[bytes] = Counter()
    finished = asyncio.Event()

    def on_delivery(delivery: Delivery) -> None:
        seen[delivery.data] += 1
        delivery.ack()
        if len(seen) == 60:
            finished.set()

    async with open_bus(nats_url, name="second") as second:
        pulls = [await each.pull(stream.name, stream.consumer, on_delivery) for each in (bus, second)]
        for pull in pulls:
            pull.add_credit(60)
        await stream.put(*(b"%d" % n for n in range(60)))
        async with asyncio.timeout(10):
            await finished.wait()
        for pull in pulls:
            await pull.stop()
    assert seen == {b"%d" % n: 1 for n in range(60)}


async def test_a_terminated_message_leaves_the_queue(bus: NatsBus) -> None:
    stream, inbox = await make_stream(bus), Inbox()
    await stream.put(b"x")
    pull = await bus.pull(stream.name, stream.consumer, inbox)
    pull.add_credit(1)
    (await inbox.next()).term("no good")
    await bus.barrier()

    async def empty() -> bool:
        return bool((await jetstream(bus, f"STREAM.INFO.{stream.name}"))["state"]["messages"] == 0)

    await until(empty)
    await pull.stop()
