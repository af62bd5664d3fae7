"""A tenant's news over HTTP: live, resumed, and for those who may know, on a real nats-server."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace

from integration.bus.rig import OwnServer, jetstream
from integration.gateway.rig import Client, Rig, get, key_record, open_rig
from integration.gateway.test_approvals import APPROVER, BOTH, CHATTER, CONFINED, STRANGER, assert_problem
from kitemesh_contracts import subjects
from kitemesh_contracts.news import MARK, NewsItem
from kitemesh_contracts.topology import FEED, topology
from kitemesh_gateway import events, feeds
from kitemesh_runtime import keyring
from kitemesh_runtime.bus import Stored
from kitemesh_runtime.bus_nats import NatsBus, open_bus
from kitemesh_runtime.metrics import FEED_READERS, STREAMS_CUT
from kitemesh_runtime.news import News, about_hold, ended, held
from kitemesh_runtime.topology_nats import apply
from kitemesh_runtime.turns import TurnRecord
from unit.gateway.holding import hold

_numbers = itertools.count(1)


class Event(NamedTuple):
    """A server-sent event; `data` is `None` for one that only moves the position."""

    id: str
    data: dict[str, Any] | None
    retry_ms: int | None = None


class Reader:
    """A client of the feed."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._left = b""
        self.last_id = ""

    async def event(self) -> Event:
        """Read the next event, whatever it says."""
        while b"\n\n" not in self._left:
            piece = await self.client.piece()
            if not piece:
                raise EOFError
            self._left += piece
        block, self._left = self._left.split(b"\n\n", 1)
        fields = dict(line.split(": ", 1) for line in block.decode().split("\n") if not line.startswith(":"))
        data = json.loads(fields["data"]) if "data" in fields else None
        self.last_id = fields.get("id", self.last_id)
        return Event(fields.get("id", ""), data, int(fields["retry"]) if "retry" in fields else None)

    async def told(self) -> dict[str, Any]:
        """Read the next event that says something."""
        while True:
            event = await self.event()
            if event.data is not None:
                return event.data

    async def ids(self, count: int) -> list[str]:
        """Return the ids of so many news."""
        return [(await self.told())["id"] for _ in range(count)]


class Desk(NamedTuple):
    """A gateway and a tenant of one's own: the stream outlives a test."""

    rig: Rig
    tenant: str

    @property
    def bus(self) -> NatsBus:
        return self.rig.cluster.bus

    async def read(
        self, query: str = "", *, key: keyring.NewKey = BOTH, after: str = "", version: bytes = b"1.1"
    ) -> Reader:
        """Connect a reader, and wait until it has its place."""
        reader = Reader(self.rig.client())
        request = get(f"/v1/events{query}", key=key.text).replace(b"HTTP/1.1", b"HTTP/" + version)
        if after:
            request = request.replace(b"Host:", f"Last-Event-ID: {after}\r\nHost:".encode())
        await reader.client.send(request)
        status, headers = await reader.client.head()
        assert status == 200
        assert headers["content-type"] == "text/event-stream"
        if version == b"1.1":
            assert (await reader.event()).data is None
        return reader

    def tell(self, *names: str, model: str = "a", tenant: str = "") -> None:
        """Have turns of these names end."""
        for name in names:
            News(self.bus).tell(tenant or self.tenant, turn(name, model))

    async def forget(self) -> None:
        """Take everything of the tenant out of the stream, as its age does."""
        await self.bus.posted(timeout_s=5)
        await jetstream(self.bus, f"STREAM.PURGE.{FEED}", {"filter": subjects.feed_of(self.tenant)})


def turn(name: str, model: str = "a") -> NewsItem:
    return ended(TurnRecord(id=name, tenant="x", status="completed", mode="classic", model=model, ended_at_ms=1))


def told(*names: str) -> list[str]:
    return [f"turn.ended:{name}" for name in names]


def made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


async def open_desk(stack: AsyncExitStack, url: str, folder: Path, tenant: str, **changes: Any) -> Desk:
    rig = await stack.enter_async_context(
        open_rig(url, made(folder), replica=f"events-{next(_numbers)}", is_worked=False, **changes)
    )
    for key, scopes in ((CHATTER, ("chat",)), (APPROVER, ("approve",)), (BOTH, ("chat", "approve"))):
        await rig.stores.keys.put(tenant, key_record(key, tenant=tenant, scopes=scopes))
    await rig.stores.keys.put(tenant, key_record(CONFINED, tenant=tenant, scopes=("chat",), models=("a",)))
    await rig.stores.keys.put(f"not-{tenant}", key_record(STRANGER, tenant=f"not-{tenant}"))
    return Desk(rig, tenant)


@pytest.fixture
async def desk(gateway_server: OwnServer, tmp_path: Path) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        yield await open_desk(stack, gateway_server.url, tmp_path, f"news-{next(_numbers)}")


@pytest.mark.requirement("events:tell-without-content")
async def test_a_reader_is_told_what_happens_as_it_happens(desk: Desk) -> None:
    desk.tell("before")
    await desk.bus.posted(timeout_s=5)
    reader = await desk.read()
    desk.tell("t1")
    assert await reader.told() == {
        "type": "turn.ended",
        "id": "turn.ended:t1",
        "execution_id": "t1",
        "status": "completed",
        "mode": "classic",
        "model": "a",
        "at_ms": 1,
    }
    desk.tell("t2", "t3")
    assert await reader.ids(2) == told("t2", "t3")


@pytest.mark.requirement("events:no-gap-and-no-repeat")
async def test_a_reader_that_comes_back_goes_on_where_it_was_at_any_gateway(
    desk: Desk, gateway_server: OwnServer, tmp_path: Path
) -> None:
    reader = await desk.read()
    desk.tell("t1", "t2")
    assert await reader.ids(1) == told("t1")
    first, _ = reader.last_id, await reader.ids(1)
    reader.client.close()
    desk.tell("t3")
    await desk.bus.posted(timeout_s=5)
    async with AsyncExitStack() as stack:
        far = await open_desk(stack, gateway_server.url, tmp_path / "far", desk.tenant)
        for each in (desk, far):
            again = await each.read(after=first)
            assert await again.ids(2) == told("t2", "t3")
            again.client.close()
        late, live = await far.read(after=reader.last_id), await desk.read()
        desk.tell("t4")
        assert await late.ids(2) == told("t3", "t4")
        assert await live.ids(1) == told("t4")


@pytest.mark.requirement("events:no-gap-and-no-repeat")
async def test_news_told_while_a_reader_catches_up_come_once_and_in_order(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "PAGE", 7)
    monkeypatch.setattr(feeds, "RECENT", 5)
    reader = await desk.read()
    names = [f"t{n}" for n in range(120)]
    desk.tell(*names[:60])
    start = reader.last_id
    assert await reader.ids(60) == told(*names[:60])
    late = await desk.read(after=start)
    desk.tell(*names[60:])
    assert await late.ids(120) == told(*names)
    assert await reader.ids(60) == told(*names[60:])


async def test_a_position_without_news_is_one_to_go_on_from(desk: Desk) -> None:
    reader = await desk.read()
    reader.client.close()
    desk.tell("t1")
    await desk.bus.posted(timeout_s=5)
    assert await (await desk.read(after=reader.last_id)).ids(1) == told("t1")


@pytest.mark.requirement("events:gap-is-told")
async def test_a_reader_that_was_away_too_long_is_told_so_and_then_what_is_kept(desk: Desk) -> None:
    reader = await desk.read()
    desk.tell("t1")
    await reader.ids(1)
    reader.client.close()
    await desk.forget()
    desk.tell("t2")
    await desk.bus.posted(timeout_s=5)
    late = await desk.read(after=reader.last_id)
    assert await late.told() == {"type": "events.gap"}
    desk.tell("t3")
    assert await late.ids(2) == told("t2", "t3")


@pytest.mark.requirement("events:gap-is-told")
async def test_a_position_of_another_life_of_the_stream_is_a_gap(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "EXPECT_S", 0.1)
    reader = await desk.read()
    number, crc = reader.last_id.split("-")
    strange = f"{int(crc, 16) ^ 1:08x}"
    for place in (f"{number}-{strange}", f"{10**12}-{crc}"):
        late = await desk.read(after=place)
        assert await late.told() == {"type": "events.gap"}
        desk.tell("t1")
        assert (await late.told())["id"] == "turn.ended:t1"


async def test_readers_go_on_when_the_stream_has_lost_everything(desk: Desk) -> None:
    reader = await desk.read()
    desk.tell("t1")
    assert await reader.ids(1) == told("t1")
    await desk.forget()
    desk.tell("t2")
    assert await reader.told() == {"type": "events.gap"}
    assert await reader.ids(1) == told("t2")


@pytest.mark.requirement("events:gap-is-told")
async def test_a_stream_that_was_made_anew_is_followed_from_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "EXPECT_S", 0.2)
    monkeypatch.setattr(feeds, "DOWN_S", 0.05)
    server = OwnServer(tmp_path)
    try:
        async with open_bus(server.url, name="bootstrap", reconnect_wait_s=0.05) as bus, AsyncExitStack() as stack:
            await apply(bus, topology(), replicas=1)
            desk = await open_desk(stack, server.url, tmp_path / "gateway", "anew")
            reader = await desk.read()
            desk.tell("t1", "t2", "t3")
            assert await reader.ids(3) == told("t1", "t2", "t3")
            server.kill()
            server.start()
            for each in (bus, desk.bus):
                await each.wait_connected(10)
            # It was kept in memory only.
            await apply(bus, topology(), replicas=1)
            desk.tell("t4")
            assert await reader.told() == {"type": "events.gap"}
            assert await reader.ids(1) == told("t4")
            assert int(reader.last_id.split("-")[0]) <= 3
    finally:
        server.kill()


@pytest.mark.requirement("events:no-gap-and-no-repeat")
async def test_what_was_heard_before_it_is_stored_is_told_once_it_is(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = await desk.read()
    since, reads = NatsBus.since, 0

    async def behind(self: NatsBus, *args: Any, **kwargs: Any) -> list[Stored]:
        nonlocal reads
        reads += 1
        found = await since(self, *args, **kwargs)
        return found[:1] if reads < 4 else found

    monkeypatch.setattr(NatsBus, "since", behind)
    desk.tell("t1")
    async with asyncio.timeout(feeds.LOOK_S - 1):
        assert await reader.ids(1) == told("t1")
    assert reads >= 4


@pytest.mark.requirement("events:who-may-know")
async def test_approvals_are_told_to_those_who_may_list_them(desk: Desk) -> None:
    chatter, approver = await desk.read(key=CHATTER), await desk.read(key=APPROVER)
    both, ended_only = await desk.read(), await desk.read("?types=turn.ended,approval.decided")
    news, about = News(desk.bus), replace(hold(), tenant=desk.tenant)
    for item in (
        about_hold("approval.requested", about, 5),
        held(about),
        about_hold("approval.decided", replace(about, status="decided", version=2), 6),
        turn("t1"),
    ):
        news.tell(desk.tenant, item)
    requested, decided = f"approval.requested:{about.id}", f"approval.decided:{about.id}:2"
    assert await chatter.ids(2) == [f"turn.held:{about.id}", "turn.ended:t1"]
    assert await approver.ids(2) == [requested, decided]
    assert await both.ids(4) == [requested, f"turn.held:{about.id}", decided, "turn.ended:t1"]
    assert await ended_only.ids(2) == [decided, "turn.ended:t1"]


@pytest.mark.requirement("events:who-may-know")
async def test_a_key_hears_only_of_the_models_that_it_may_name(desk: Desk) -> None:
    reader = await desk.read("?types=turn.*", key=CONFINED)
    desk.tell("t1", model="b")
    desk.tell("t2")
    assert await reader.ids(1) == told("t2")


@pytest.mark.requirement("events:who-may-know")
async def test_another_tenants_news_are_not_told_and_its_position_is_not_found(desk: Desk) -> None:
    stranger, reader = await desk.read(key=STRANGER), await desk.read()
    desk.tell("t1")
    desk.tell("t2", tenant=f"not-{desk.tenant}")
    assert await stranger.ids(1) == told("t2")
    assert await reader.ids(1) == told("t1")
    late = await desk.read(key=STRANGER, after=reader.last_id)
    assert await late.told() == {"type": "events.gap"}
    assert await late.ids(1) == told("t2")


async def test_marks_and_what_cannot_be_read_are_not_told(desk: Desk) -> None:
    reader = await desk.read()
    await desk.bus.send(subjects.feed(desk.tenant, MARK, "mark"), b"x", msg_id=f"mark-{desk.tenant}")
    desk.bus.post(subjects.feed(desk.tenant, "turn.flown", "t0"), b'{"type":"turn.flown"}')
    desk.tell("t1")
    assert await reader.ids(1) == told("t1")


@pytest.mark.parametrize(
    ("query", "after", "detail"),
    [
        ("?types=turn.ended&types=turn.held", "", "types: must be given once"),
        ("?types=", "", "types: must be some of"),
        ("?types=turn", "", "types: must be some of"),
        ("", "12", "Last-Event-ID: must be the id of an event of this stream"),
        ("", "12-0000000G", "Last-Event-ID: must be the id of an event of this stream"),
    ],
)
async def test_a_question_that_is_none_is_refused(desk: Desk, query: str, after: str, detail: str) -> None:
    request = get(f"/v1/events{query}", key=BOTH.text).replace(b"Host:", f"Last-Event-ID: {after}\r\nHost:".encode())
    answer = await desk.rig.ask(request)
    assert answer.status == 400
    problem = answer.json()
    assert problem["detail"].startswith(detail)
    assert_problem(answer, 400, "request.invalid", problem["detail"], "/v1/events")


async def test_a_key_that_may_not_know_what_it_asks_for_is_refused(desk: Desk) -> None:
    for key, query, scope in ((CHATTER, "approval.*", "approve"), (APPROVER, "turn.ended", "chat")):
        answer = await desk.rig.ask(get(f"/v1/events?types={query}", key=key.text))
        assert answer.status == 403
        assert_problem(answer, 403, "permission.denied", f"This key does not have the scope {scope}", "/v1/events")
    answer = await desk.rig.ask(get("/v1/events", key=None))
    assert answer.status == 401


async def test_a_tenant_with_too_many_readers_is_told_to_come_back(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "READERS_MAX", 1)
    reader = await desk.read()
    answer = await desk.rig.ask(get("/v1/events", key=BOTH.text))
    assert (answer.status, answer.headers["retry-after"]) == (429, "1")
    # Others have readers of their own, and who left leaves a place.
    (await desk.read(key=STRANGER)).client.close()
    reader.client.close()
    async with asyncio.timeout(5):
        await desk.rig.gateway.funnel.wait_idle()
    await desk.read()


@pytest.mark.requirement("events:who-may-know")
async def test_a_revoked_key_is_told_nothing_more(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "CHECK_S", 0.05)
    reader, other = await desk.read(key=CHATTER), await desk.read(key=APPROVER)
    await desk.rig.stores.keys.revoke(desk.tenant, CHATTER.id)
    desk.bus.publish(subjects.key_changed(CHATTER.id), b"")
    with pytest.raises(EOFError):
        await reader.told()
    about = replace(hold(), tenant=desk.tenant)
    News(desk.bus).tell(desk.tenant, about_hold("approval.requested", about, 1))
    assert await other.ids(1) == [f"approval.requested:{about.id}"]


async def test_a_silent_feed_pings_and_a_ping_moves_the_position_on(
    gateway_server: OwnServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "CHECK_S", 0.1)
    monkeypatch.setattr(feeds, "LOOK_S", 0.1)
    monkeypatch.setattr(feeds, "MARK_EVERY_S", 0.3)
    async with AsyncExitStack() as stack:
        desk = await open_desk(stack, gateway_server.url, tmp_path, f"news-{next(_numbers)}", ping_s=1)
        reader = await desk.read()
        first = reader.last_id
        async with asyncio.timeout(5):
            pings = [await reader.event(), await reader.event()]
        assert [ping.data for ping in pings] == [None, None]
        assert len({first, *(ping.id for ping in pings)}) == 3


async def test_a_gateway_that_stops_sends_its_readers_elsewhere(desk: Desk) -> None:
    reader = await desk.read()
    desk.rig.life.signal()
    event = await reader.event()
    assert event.retry_ms is not None
    assert events.RETRY_MS <= event.retry_ms < events.RETRY_MS + events.RETRY_SPREAD_MS
    with pytest.raises(EOFError):
        await reader.event()
    assert await reader.client.ended()
    async with asyncio.timeout(5):
        await desk.rig.gateway.funnel.wait_idle()


@pytest.mark.requirement("events:slow-readers-are-cut")
async def test_a_reader_that_does_not_read_is_cut_and_the_others_are_not(
    gateway_server: OwnServer, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        desk = await open_desk(stack, gateway_server.url, tmp_path, f"news-{next(_numbers)}", slow_client_s=1)
        cut = STREAMS_CUT.labels("slow_client")._value.get()
        lazy, reader = await desk.read(), await desk.read()
        lazy.client.transport.pause_reading()
        names = [f"{'t' * 50}{n}" for n in range(12_000)]
        async with asyncio.timeout(20):
            for at in range(0, len(names), 1000):
                desk.tell(*names[at : at + 1000])
                assert await reader.ids(1000) == told(*names[at : at + 1000])
        lazy.client.transport.resume_reading()
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await lazy.ids(len(names))
        assert STREAMS_CUT.labels("slow_client")._value.get() == cut + 1


async def test_a_reader_of_http_1_0_is_told_without_chunks(desk: Desk) -> None:
    reader = await desk.read(version=b"1.0")
    desk.tell("t1")
    async with asyncio.timeout(5):
        block = await reader.client.reader.readuntil(b"}\n\n")
    assert b'"id":"turn.ended:t1"' in block


async def test_the_last_reader_who_leaves_ends_the_subscription(desk: Desk) -> None:
    readers = [await desk.read() for _ in range(3)]
    for reader in readers:
        reader.client.close()
    async with asyncio.timeout(5):
        await desk.rig.gateway.funnel.wait_idle()
    assert FEED_READERS.collect()[0].samples[0].value == 0
    again = await desk.read()
    desk.tell("t1")
    assert await again.ids(1) == told("t1")
