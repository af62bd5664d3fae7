"""Reading what a stream keeps, and the limits of the streams that are read so, against the real server."""

import asyncio
from typing import Any

import pytest

from integration.bus.rig import OwnServer, Stream, jetstream, make_stream
from kitemesh_contracts.errors import Bug, Unavailable
from kitemesh_contracts.subjects import out, out_block, out_frame
from kitemesh_contracts.topology import FEED, OUT, topology
from kitemesh_runtime import direct_nats
from kitemesh_runtime.bus import Stored
from kitemesh_runtime.bus_nats import NatsBus, open_bus
from kitemesh_runtime.direct_nats import DirectReads
from kitemesh_runtime.topology_nats import apply
from kitemesh_runtime.wire_nats import hpub


async def make_out(bus: NatsBus, **options: Any) -> Stream:
    return await make_stream(bus, **{"retention": "limits", "storage": "memory", "allow_direct": True, **options})


async def fill(bus: NatsBus, stream: Stream, *lasts: object, payload: bytes = b"") -> None:
    for last in lasts:
        bus.post(stream.subject(last), payload or str(last).encode())
    assert await bus.posted(timeout_s=10)


def numbers(found: list[Stored]) -> list[int]:
    return [message.sequence for message in found]


async def test_the_last_message_of_each_subject_comes_oldest_first_through_a_wildcard_in_the_middle(
    bus: NatsBus,
) -> None:
    stream = await make_out(bus)
    await fill(bus, stream, "g1.t.1", "g2.t.2", "g1.other.1", "g2.t.3")
    await fill(bus, stream, "g1.t.1", payload=b"again")
    assert await bus.last_of(stream.name, stream.subject("*.t.*")) == [
        Stored(2, stream.subject("g2.t.2"), b"g2.t.2"),
        Stored(4, stream.subject("g2.t.3"), b"g2.t.3"),
        Stored(5, stream.subject("g1.t.1"), b"again"),
    ]
    assert bus._reads.under_way == 0


async def test_no_subject_is_an_empty_answer(bus: NatsBus) -> None:
    stream = await make_out(bus)
    assert await bus.last_of(stream.name, stream.subject("*.t.*")) == []
    assert await bus.since(stream.name, stream.subject("*.t.*"), 0, limit=10) == []


async def test_a_thousand_frames_of_an_attempt_are_read_block_after_block(server: OwnServer, own_bus: NatsBus) -> None:
    await apply(own_bus, topology(), replicas=1)
    for turn in ("other-turn", "turn", "turn-2"):
        prefix = out("gateway", turn, 1, 2)
        for n in range(1, 1_001):
            own_bus.post(out_frame(prefix, n), b"%b %d" % (turn.encode(), n))
    assert await own_bus.posted(timeout_s=10)
    blocks = [await own_bus.last_of(OUT, out_block("turn", 1, 2, block)) for block in range(3)]
    assert [len(block) for block in blocks] == [512, 488, 0]
    assert [message.payload for block in blocks for message in block] == [b"turn %d" % n for n in range(1, 1_001)]


async def test_more_subjects_than_the_server_looks_up_are_a_mistake_of_the_caller(bus: NatsBus) -> None:
    stream = await make_out(bus)
    await fill(bus, stream, *range(1_025))
    with pytest.raises(Bug):
        await bus.last_of(stream.name, stream.subject("*"))
    assert len(await bus.since(stream.name, stream.subject("*"), 0, limit=10_000)) == 1_025
    await jetstream(bus, f"STREAM.PURGE.{stream.name}", {"filter": stream.subject(7)})
    assert len(await bus.last_of(stream.name, stream.subject("*"))) == 1_024


async def test_an_answer_of_several_pages_is_whole_and_tells_no_subject_twice(
    bus: NatsBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_nats, "PAGE_BYTES", 5_000)
    stream = await make_out(bus)
    await fill(bus, stream, *range(40), payload=b"x" * 1_000)
    ask_once, pages = DirectReads._ask_once, 0

    async def ask_and_repeat_a_message(reads: DirectReads, *args: Any) -> Any:
        nonlocal pages
        pages += 1
        page = await ask_once(reads, *args)
        if pages == 1:
            await fill(bus, stream, 0)  # told in this page already
        return page

    monkeypatch.setattr(DirectReads, "_ask_once", ask_and_repeat_a_message)
    assert numbers(await bus.last_of(stream.name, stream.subject("*"))) == list(range(1, 41))
    assert pages > 5
    monkeypatch.setattr(DirectReads, "_ask_once", ask_once)
    assert numbers(await bus.last_of(stream.name, stream.subject("*"))) == list(range(2, 42))


async def test_messages_are_read_from_a_sequence_on_up_to_a_limit(
    bus: NatsBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = await make_out(bus)
    for n in range(10):
        await fill(bus, stream, f"a.{n}", f"b.{n}")
    of_a = stream.subject("a.*")
    assert numbers(await bus.since(stream.name, of_a, 0, limit=100)) == list(range(1, 20, 2))
    assert numbers(await bus.since(stream.name, of_a, 4, limit=3)) == [5, 7, 9]
    assert await bus.since(stream.name, of_a, 20, limit=100) == []
    assert await bus.since(stream.name, of_a, 1, limit=0) == []
    [only] = await bus.since(stream.name, stream.subject("b.*"), 3, limit=1)
    assert only == Stored(4, stream.subject("b.1"), b"b.1")
    monkeypatch.setattr(direct_nats, "PAGE_BYTES", 400)
    assert numbers(await bus.since(stream.name, of_a, 0, limit=100)) == list(range(1, 20, 2))
    assert numbers(await bus.since(stream.name, of_a, 0, limit=9)) == list(range(1, 18, 2))


@pytest.mark.parametrize("allow_direct", [None, False])
async def test_a_stream_that_is_missing_or_not_read_so_is_unavailable_at_once(
    bus: NatsBus, allow_direct: bool | None
) -> None:
    stream = await make_out(bus, allow_direct=bool(allow_direct))
    if allow_direct is None:
        await jetstream(bus, f"STREAM.DELETE.{stream.name}")
    async with asyncio.timeout(5):
        with pytest.raises(Unavailable, match="no such stream"):
            await bus.last_of(stream.name, stream.subject("*"), timeout_s=60)
        with pytest.raises(Unavailable, match="no such stream"):
            await bus.since(stream.name, stream.subject("*"), 0, limit=1, timeout_s=60)
    assert bus._reads.under_way == 0


async def test_a_publisher_s_own_headers_are_not_taken_for_the_server_s(bus: NatsBus) -> None:
    stream = await make_out(bus)
    forged = "Nats-Sequence: 99\r\nNats-Last-Sequence: 77\r\n"
    bus._client.offer(
        hpub(stream.subject("a"), b"frame", reply="nobody", header="Nats-Subject", value="elsewhere", more=forged)
    )
    await fill(bus, stream, "b")
    assert await bus.last_of(stream.name, stream.subject("*")) == [
        Stored(1, stream.subject("a"), b"frame"),
        Stored(2, stream.subject("b"), b"b"),
    ]


@pytest.mark.parametrize("lost", [1, 3, 5])
async def test_an_answer_of_which_a_part_was_lost_is_asked_for_again(
    nats_url: str, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    receive, received = DirectReads._receive, 0

    def lose_one(reads: DirectReads, subject: bytes, reply: bytes, block: bytes | None, payload: bytes) -> None:
        nonlocal received
        received += 1
        if received != lost:
            receive(reads, subject, reply, block, payload)

    monkeypatch.setattr(DirectReads, "_receive", lose_one)
    async with open_bus(nats_url, name="test") as bus:
        stream = await make_out(bus)
        await fill(bus, stream, *range(5))
        assert numbers(await bus.last_of(stream.name, stream.subject("*"), timeout_s=10)) == [1, 2, 3, 4, 5]
    assert received > 6


async def test_a_question_that_nobody_answers_is_asked_again(
    nats_url: str, bus: NatsBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_nats, "SILENCE_S", 0.05)
    async with open_bus(nats_url, name="responder") as responder:
        questions: list[bytes] = []

        def answer(_subject: bytes, reply: bytes, _block: bytes | None, question: bytes) -> None:
            questions.append(question)
            if len(questions) == 2:
                block = b"NATS/1.0 404 No Results\r\n\r\n"
                responder._client.offer(b"HPUB %b %d %d\r\n%b\r\n" % (reply, len(block), len(block), block))

        responder._client.listen("$JS.API.DIRECT.GET.SILENT", answer)
        await responder.barrier()
        assert await bus.last_of("SILENT", "a.*", timeout_s=10) == []
        assert questions == [questions[0]] * 2


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"PUB %b 2\r\nhi\r\n", Unavailable),
        (b"HPUB %b 18 18\r\nNATS/1.0\r\nA: b\r\n\r\n\r\n", Unavailable),
        (b"HPUB %b 20 20\r\nNATS/1.0 408 Bad\r\n\r\n\r\n", Bug),
    ],
)
async def test_an_answer_that_is_none_is_an_error(
    nats_url: str, bus: NatsBus, answer: bytes, error: type[Exception]
) -> None:
    async with open_bus(nats_url, name="responder") as responder:
        responder._client.listen(
            "$JS.API.DIRECT.GET.WRONG", lambda _, reply, _block, _question: responder._client.offer(answer % reply)
        )
        await responder.barrier()
        with pytest.raises(error):
            await bus.last_of("WRONG", "a.*", timeout_s=0.05)


async def test_a_read_outlives_a_kill_of_the_server(server: OwnServer, own_bus: NatsBus) -> None:
    stream = await make_out(own_bus, storage="file")
    await fill(own_bus, stream, *range(3))
    server.freeze()
    reading = asyncio.create_task(own_bus.last_of(stream.name, stream.subject("*"), timeout_s=20))
    await asyncio.sleep(0)  # the question is on its way, unanswered
    server.kill()
    server.start()
    assert numbers(await reading) == [1, 2, 3]


async def test_a_server_that_is_gone_is_unavailable_when_the_time_is_up(server: OwnServer, own_bus: NatsBus) -> None:
    server.kill()
    with pytest.raises(Unavailable):
        await own_bus.last_of("S", "s.*", timeout_s=0.3)


async def test_a_cancelled_read_and_one_whose_bus_is_closed_leave_nothing_behind(nats_url: str) -> None:
    async with open_bus(nats_url, name="test") as bus:
        await bus.subscribe("$JS.API.DIRECT.GET.DEAF", lambda _subject, _question: None)
        reads = [asyncio.create_task(bus.last_of("DEAF", "a.*", timeout_s=60)) for _ in range(2)]
        await bus.barrier()
        reads[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await reads[0]
        assert bus._reads.under_way == 1
    with pytest.raises(Unavailable, match="closed"):
        await reads[1]
    assert bus._reads.under_way == 0


async def test_bootstrap_makes_the_streams_that_are_read_so_and_changes_their_limits_in_place(
    server: OwnServer, own_bus: NatsBus
) -> None:
    await apply(own_bus, topology(), replicas=1)
    for name, max_bytes, max_age_s in ((OUT, 256 << 20, 3600), (FEED, 32 << 20, 900)):
        config = (await jetstream(own_bus, f"STREAM.INFO.{name}"))["config"]
        assert (config["storage"], config["retention"], config["discard"]) == ("memory", "limits", "old")
        assert (config["max_bytes"], config["max_age"]) == (max_bytes, max_age_s * 10**9)
        assert config["allow_direct"] is True
        unlimited = ("max_msgs", "max_msgs_per_subject", "max_msg_size", "max_consumers")
        assert [config[limit] for limit in unlimited] == [-1] * 4
    own_bus.post("km.v1.out.g.t.1.1.0.1", b"kept")
    own_bus.post("km.v1.feed.tenant.turn.ended.t", b"kept")
    assert await own_bus.posted(timeout_s=5)
    smaller = topology(out_max_bytes=64 << 20, feed_max_bytes=8 << 20)
    assert await apply(own_bus, smaller, replicas=1) == [
        f"changed max_bytes of stream {OUT} from {256 << 20} to {64 << 20}",
        f"changed max_bytes of stream {FEED} from {32 << 20} to {8 << 20}",
    ]
    for name, subject in ((OUT, "km.v1.out.*.t.1.1.0.*"), (FEED, "km.v1.feed.tenant.>")):
        [kept] = await own_bus.last_of(name, subject)
        assert (kept.sequence, kept.payload) == (1, b"kept")
