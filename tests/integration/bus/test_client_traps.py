"""A regression test for each trap of nats-py that the guarded client closes."""

import asyncio

import pytest
from nats import errors
from structlog.testing import capture_logs

from integration.bus.rig import OwnServer, greet, obey, scripted
from kitemesh_contracts.errors import ContractViolation, Unavailable
from kitemesh_runtime.bus_nats import NatsBus, open_bus
from kitemesh_runtime.wire_nats import pub


class Errors:
    """Counts what `on_error` is given."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self._arrived = asyncio.Event()

    def __call__(self, kind: str) -> None:
        self.kinds.append(kind)
        self._arrived.set()

    async def reach(self, kind: str, count: int = 1) -> None:
        async with asyncio.timeout(10):
            while self.kinds.count(kind) < count:
                self._arrived.clear()
                await self._arrived.wait()


def reconnected(bus: NatsBus) -> asyncio.Event:
    event = asyncio.Event()
    bus.on_reconnect(event.set)
    return event


async def hear(event: asyncio.Event) -> None:
    async with asyncio.timeout(10):
        await event.wait()


@pytest.mark.requirement("bus:cancelled-flush")
async def test_a_cancelled_flush_does_not_kill_the_read_loop(bus: NatsBus) -> None:
    for _ in range(3):
        flushing = asyncio.create_task(bus._client.flush())
        await asyncio.sleep(0)
        flushing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await flushing
    await bus.barrier()
    await bus._client.flush()


@pytest.mark.requirement("bus:cancelled-flush")
async def test_a_flush_that_times_out_does_not_kill_the_read_loop(server: OwnServer, own_bus: NatsBus) -> None:
    server.freeze()
    with pytest.raises(errors.FlushTimeoutError):
        await own_bus._client.flush(timeout=0.05)
    server.thaw()
    await own_bus.barrier()
    assert own_bus._client.stats["reconnects"] == 0


@pytest.mark.requirement("bus:flush-is-a-barrier")
async def test_a_flush_is_a_barrier_behind_what_was_queued_before(bus: NatsBus) -> None:
    got: list[bytes] = []
    subject = bus._client.new_inbox()
    bus._client.listen(subject, lambda _subject, _reply, _headers, payload: got.append(payload))
    for n in range(100):
        bus.publish(subject, b"%d" % n)
    await bus._client.flush()
    assert got == [b"%d" % n for n in range(100)]


@pytest.mark.requirement("bus:flush-is-a-barrier")
async def test_a_ping_goes_out_behind_what_was_queued_before() -> None:
    heard: list[bytes] = []

    async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)
        while line := await reader.readline():
            heard.append(line)
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")

    async with scripted(record) as url, open_bus(url, name="test", ping_interval_s=60) as bus:
        bus._client.listen("a", lambda *_message: None)
        bus.publish("b", b"")
        await bus._client.flush()
        assert [line.split()[:1] for line in heard] == [[b"SUB"], [b"SUB"], [b"PUB"], [], [b"PING"]]


@pytest.mark.requirement("bus:flush-is-a-barrier")
async def test_the_barrier_comes_back_behind_subscriptions_and_publications(bus: NatsBus) -> None:
    got: list[tuple[str, bytes]] = []
    subject = bus._client.new_inbox()
    await bus.subscribe(subject, lambda *message: got.append(message))
    bus.publish(subject, b"x")
    await bus.barrier()
    assert got == [(subject, b"x")]


@pytest.mark.requirement("bus:reconnects-without-end")
async def test_more_than_sixty_failed_reconnects_do_not_end_the_client(server: OwnServer) -> None:
    count = Errors()
    async with open_bus(server.url, name="test", on_error=count, reconnect_wait_s=0.001) as bus:
        back = reconnected(bus)
        server.kill()
        await count.reach("connect", 100)
        assert not bus.connected
        server.start()
        await hear(back)
        await bus.barrier()


async def test_an_outage_is_logged_once_for_each_reason_and_counted_each_time(server: OwnServer) -> None:
    count = Errors()
    with capture_logs() as logs:
        async with open_bus(server.url, name="test", on_error=count, reconnect_wait_s=0.001) as bus:
            server.kill()
            await count.reach("connect", 20)
            assert not bus.connected
    reported = [entry for entry in logs if entry["event"] == "bus.error_reported" and entry["kind"] == "connect"]
    assert 1 <= len(reported) <= 2


@pytest.mark.requirement("bus:reconnects-without-end")
async def test_an_unforeseen_error_on_the_way_back_does_not_end_the_client() -> None:
    async def drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)

    async def endless_line(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # readline raises ValueError for this, which the library's reconnect loop does not survive
        writer.write(b"INFO " + b"x" * 200_000)
        await writer.drain()

    count = Errors()
    async with (
        scripted(drop, endless_line, obey) as url,
        open_bus(url, name="test", on_error=count, reconnect_wait_s=0.001) as bus,
    ):
        await hear(reconnected(bus))
        await bus._client.flush()
        assert "connect" in count.kinds


async def test_garbage_from_the_server_is_answered_with_a_new_connection() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)
        writer.write(b"HELLO\r\n")
        await reader.read()

    count = Errors()
    async with (
        scripted(babble, obey) as url,
        open_bus(url, name="test", on_error=count, reconnect_wait_s=0.001) as bus,
    ):
        await hear(reconnected(bus))
        await bus._client.flush()
        assert count.kinds == ["connection"]


@pytest.mark.requirement("bus:reconnects-without-end")
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (b"Maximum Connections Exceeded", "server"),
        (b"User Authentication Expired", "server"),
        (b"Slow Consumer", "slow_consumer"),
        (b"Stale Connection", "server"),
    ],
)
async def test_an_error_that_costs_the_connection_does_not_end_the_client(error: bytes, kind: str) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)
        writer.write(b"-ERR '%b'\r\n" % error)

    count = Errors()
    async with scripted(refuse, obey) as url, open_bus(url, name="test", on_error=count, reconnect_wait_s=0.001) as bus:
        await hear(reconnected(bus))
        await bus._client.flush()
        assert count.kinds == [kind, "connection"]


async def test_a_permission_violation_is_logged_and_counted_and_costs_nothing_else() -> None:
    async def forbid(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)
        writer.write(b"-ERR 'Permissions Violation for Publish to \"x\"'\r\n")
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")

    count = Errors()
    with capture_logs() as logs:
        async with scripted(forbid) as url, open_bus(url, name="test", on_error=count) as bus:
            await count.reach("permission")
            await bus._client.flush()
            assert bus.connected
    [entry] = [entry for entry in logs if entry["event"] == "bus.denied"]
    assert (entry["what"], entry["subject"]) == ("publish", "x")


async def test_a_listener_that_raises_is_logged_and_the_loop_lives_on(bus: NatsBus) -> None:
    got: list[bytes] = []
    subject = bus._client.new_inbox()

    def broken(_subject: str, payload: bytes) -> None:
        got.append(payload)
        raise ZeroDivisionError

    await bus.subscribe(subject, broken)
    with capture_logs() as logs:
        bus.publish(subject, b"1")
        bus.publish(subject, b"2")
        await bus.barrier()
    assert got == [b"1", b"2"]
    assert [entry["event"] for entry in logs] == ["bus.receiver_failed", "bus.receiver_failed"]


@pytest.mark.requirement("bus:frozen-server-is-noticed")
async def test_a_frozen_server_is_noticed_and_its_return_as_well(server: OwnServer) -> None:
    count = Errors()
    async with open_bus(server.url, name="test", on_error=count, ping_interval_s=0.05, reconnect_wait_s=0.01) as bus:
        back = reconnected(bus)
        server.freeze()
        await count.reach("connection")
        assert not bus.connected
        server.thaw()
        await hear(back)
        await bus.barrier()


async def test_subscriptions_are_renewed_before_anybody_is_called_back(server: OwnServer, own_bus: NatsBus) -> None:
    got: asyncio.Queue[bytes] = asyncio.Queue()
    await own_bus.subscribe("a.*", lambda _subject, payload: got.put_nowait(payload))
    own_bus.on_reconnect(lambda: own_bus.publish("a.b", b"after"))
    await own_bus.barrier()
    server.kill()
    server.start()
    async with asyncio.timeout(10):
        assert await got.get() == b"after"


async def test_a_callback_that_raises_does_not_keep_the_next_one_from_being_called(own_bus: NatsBus) -> None:
    own_bus.on_reconnect(lambda: 1 // 0)
    back = reconnected(own_bus)
    await own_bus._client.force_reconnect()
    await hear(back)
    await own_bus.barrier()


@pytest.mark.requirement("bus:nothing-is-buffered-while-away")
async def test_nothing_is_buffered_while_disconnected(server: OwnServer, own_bus: NatsBus) -> None:
    got: list[bytes] = []
    await own_bus.subscribe("a", lambda _subject, payload: got.append(payload))
    back = reconnected(own_bus)
    server.kill()
    own_bus.publish("a", b"on its way when the connection went")
    await until_disconnected(own_bus)
    with pytest.raises(Unavailable):
        own_bus.publish("a", b"lost")
    server.start()
    await hear(back)
    await own_bus.barrier()
    assert got == []


async def until_disconnected(bus: NatsBus) -> None:
    lost = asyncio.Event()
    bus._client.on_lost(lost.set)
    if bus.connected:
        await hear(lost)


@pytest.mark.requirement("bus:unsent-is-bounded")
async def test_what_is_unsent_is_bounded(server: OwnServer, own_bus: NatsBus) -> None:
    server.freeze()
    sent = 0

    async def flood() -> None:
        nonlocal sent
        while True:
            own_bus.publish("a", b"x" * 1_000_000)
            sent += 1
            await asyncio.sleep(0)  # to the end of this turn of the loop, where it is written

    with pytest.raises(Unavailable) as caught:
        await flood()
    assert caught.value.code == "bus.down"
    assert 8 <= sent <= 40  # the kernel takes some before anything counts as unsent
    server.thaw()
    await own_bus.barrier(timeout_s=5)


@pytest.mark.requirement("bus:unsent-is-bounded")
async def test_what_is_unsent_within_one_turn_of_the_loop_is_bounded_as_well(bus: NatsBus) -> None:
    block = b"x" * 1_000_000
    for _ in range(8):
        bus.publish("nobody", block)
    with pytest.raises(Unavailable):
        bus.publish("nobody", block)
    await bus.barrier()
    bus.publish("nobody", block)


async def test_a_message_larger_than_the_server_takes_is_refused_before_it_costs_the_connection(bus: NatsBus) -> None:
    with pytest.raises(ContractViolation):
        bus.publish("a", b"x" * (bus.max_payload_bytes + 1))
    with pytest.raises(ContractViolation):
        await bus.send("a", b"x" * (bus.max_payload_bytes + 1), msg_id="1")
    await bus.barrier()
    assert bus._client.stats["reconnects"] == 0


async def test_user_and_password_come_from_the_url_decoded() -> None:
    said: asyncio.Queue[dict[str, object]] = asyncio.Queue()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said.put_nowait(await greet(reader, writer))
        await reader.read()

    async with scripted(listen) as url, open_bus(url, name="test"):
        pass
    options = said.get_nowait()
    assert (options["user"], options["pass"], options["name"]) == ("user", "p@ss", "test")


async def test_a_server_that_is_not_there_is_unavailable_within_the_time(server: OwnServer) -> None:
    server.kill()
    with pytest.raises(Unavailable, match="cannot be reached"):
        async with asyncio.timeout(5), open_bus(server.url, name="test", connect_timeout_s=0.1):
            pass


@pytest.mark.requirement("bus:close-never-hangs")
async def test_closing_sends_what_is_unsent_and_ends_without_waiting_for_a_frozen_server(server: OwnServer) -> None:
    got: asyncio.Queue[bytes] = asyncio.Queue()
    async with open_bus(server.url, name="listener") as listener:
        await listener.subscribe("a", lambda _subject, payload: got.put_nowait(payload))
        await listener.barrier()
        async with open_bus(server.url, name="test") as bus:
            bus.publish("a", b"last words")
        async with asyncio.timeout(5):
            assert await got.get() == b"last words"
    async with asyncio.timeout(5), open_bus(server.url, name="test") as bus:
        server.freeze()
        bus.publish("a", b"x" * 900_000)
    server.thaw()


async def test_the_library_s_own_subscriptions_still_work(bus: NatsBus) -> None:
    client = bus._client
    subject = client.new_inbox()
    subscription = await client.subscribe(subject)
    client.offer(pub(subject, b"x"))
    message = await subscription.next_msg(timeout=5)
    assert message.data == b"x"
    await client.force_reconnect()
    await bus.wait_connected(5)
    client.offer(pub(subject, b"y"))
    message = await subscription.next_msg(timeout=5)
    assert message.data == b"y"
