"""Acknowledged publications, requests and the barrier against the real server."""

import asyncio

import pytest

from integration.bus.rig import OwnServer, jetstream, make_stream
from kitemesh_contracts.errors import Busy, ContractViolation, ErrorCode, Unavailable
from kitemesh_runtime.bus import Receipt
from kitemesh_runtime.bus_nats import NatsBus, open_bus


@pytest.mark.requirement("bus:duplicate-is-stored-once")
async def test_a_repeated_id_is_stored_once_and_said_to_be_a_duplicate(bus: NatsBus) -> None:
    stream = await make_stream(bus)
    assert await bus.send(stream.subject(), b"a", msg_id="1") == Receipt(1, duplicate=False)
    assert await bus.send(stream.subject(), b"a", msg_id="1") == Receipt(1, duplicate=True)
    assert await bus.send(stream.subject(), b"a", msg_id="2") == Receipt(2, duplicate=False)
    assert (await stream.state())["messages"] == 2


async def test_concurrent_sends_each_get_their_own_receipt(bus: NatsBus) -> None:
    stream = await make_stream(bus)
    receipts = await asyncio.gather(*(bus.send(stream.subject(n), b"", msg_id=str(n)) for n in range(200)))
    assert [receipt.sequence for receipt in receipts] == list(range(1, 201))
    assert bus._calls.under_way == 0


@pytest.mark.requirement("fault:queue-full")
@pytest.mark.parametrize("limit", [{"max_msgs": 2}, {"max_bytes": 200}])
async def test_a_full_stream_is_busy_at_once_and_takes_messages_again_when_there_is_room(
    bus: NatsBus, limit: dict[str, int]
) -> None:
    stream = await make_stream(bus, **limit)

    async def fill() -> None:
        for n in range(10):
            await bus.send(stream.subject(), b"x" * 20, msg_id=str(n), timeout_s=60)

    with pytest.raises(Busy) as caught:
        await fill()
    assert (caught.value.code, caught.value.status) == (ErrorCode.QUEUE_FULL, 429)
    await jetstream(bus, f"STREAM.PURGE.{stream.name}")
    assert not (await bus.send(stream.subject(), b"", msg_id="again")).duplicate


async def test_another_refusal_is_unavailable_at_once_and_says_nothing_of_the_message(bus: NatsBus) -> None:
    stream = await make_stream(bus, max_msg_size=100)
    with pytest.raises(Unavailable) as caught:
        await bus.send(stream.subject(), b"secret" * 100, msg_id="1", timeout_s=60)
    assert caught.value.code == ErrorCode.BUS_DOWN
    assert "10054" in caught.value.message
    assert "secret" not in caught.value.message


async def test_no_such_stream_is_unavailable_when_the_time_is_up(bus: NatsBus) -> None:
    with pytest.raises(Unavailable, match="no stream takes the message"):
        await bus.send("nobody.listens", b"", msg_id="1", timeout_s=0.3)
    assert bus._calls.under_way == 0


async def test_a_stream_that_comes_up_in_time_gets_the_message(bus: NatsBus) -> None:
    stream = await make_stream(bus)
    await jetstream(bus, f"STREAM.DELETE.{stream.name}")
    sending = asyncio.create_task(bus.send(stream.subject(), b"", msg_id="1", timeout_s=10))
    await bus.barrier()
    await jetstream(bus, f"STREAM.CREATE.{stream.name}", {"name": stream.name, "subjects": [f"{stream.name}.>"]})
    assert await sending == Receipt(1, duplicate=False)


@pytest.mark.requirement("bus:acknowledgements-that-never-come")
async def test_acknowledgements_that_never_come_leak_no_slot(bus: NatsBus) -> None:
    subject = bus._client.new_inbox()
    await bus.subscribe(subject, lambda _subject, _payload: None)  # somebody listens, nobody acknowledges
    outcomes = await asyncio.gather(
        *(bus.send(subject, b"", msg_id=str(n), timeout_s=0.2) for n in range(50)), return_exceptions=True
    )
    assert {type(outcome) for outcome in outcomes} == {Unavailable}
    assert bus._calls.under_way == 0


@pytest.mark.requirement("bus:publication-is-retried-under-its-id")
async def test_an_unacknowledged_message_is_sent_again_under_the_same_id(bus: NatsBus) -> None:
    subject = bus._client.new_inbox()
    blocks: list[bytes | None] = []
    second = asyncio.Event()

    def receive(_subject: bytes, reply: bytes, block: bytes | None, _payload: bytes) -> None:
        blocks.append(block)
        if len(blocks) == 2:
            second.set()
            bus.publish(reply.decode(), b'{"stream":"S","seq":7,"duplicate":true}')

    bus._client.listen(subject, receive)
    assert await bus.send(subject, b"", msg_id="id-1", timeout_s=10) == Receipt(7, duplicate=True)
    assert blocks == [b"NATS/1.0\r\nNats-Msg-Id: id-1\r\n\r\n"] * 2


@pytest.mark.requirement("bus:acknowledgements-that-never-come")
async def test_a_cancelled_send_leaves_nothing_behind(bus: NatsBus) -> None:
    subject = bus._client.new_inbox()
    await bus.subscribe(subject, lambda _subject, _payload: None)
    sending = asyncio.create_task(bus.send(subject, b"", msg_id="1"))
    await bus.barrier()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert bus._calls.under_way == 0


async def test_a_server_that_is_gone_is_unavailable_within_the_time_and_works_again_after_it_is_back(
    server: OwnServer, own_bus: NatsBus
) -> None:
    stream = await make_stream(own_bus)
    server.kill()
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(Unavailable):
        await own_bus.send(stream.subject(), b"", msg_id="1", timeout_s=0.5)
    assert 0.4 < loop.time() - began < 1.5
    with pytest.raises(Unavailable):
        await own_bus.request("a", b"", timeout_s=5)
    with pytest.raises(Unavailable):
        await own_bus.barrier(timeout_s=5)
    with pytest.raises(Unavailable):
        await own_bus.wait_connected(0.1)
    server.start()
    await own_bus.wait_connected(10)
    assert not (await own_bus.send(stream.subject(), b"", msg_id="2", timeout_s=10)).duplicate


@pytest.mark.requirement("bus:publication-is-retried-under-its-id")
async def test_a_send_outlives_a_kill_of_the_server(server: OwnServer, own_bus: NatsBus) -> None:
    stream = await make_stream(own_bus)
    server.freeze()
    sends = [asyncio.create_task(own_bus.send(stream.subject(), b"", msg_id=str(n), timeout_s=20)) for n in range(20)]
    await asyncio.sleep(0)  # they are on their way, unanswered
    server.kill()
    server.start()
    receipts = await asyncio.gather(*sends)
    assert sorted(receipt.sequence for receipt in receipts) == list(range(1, 21))
    assert (await stream.state())["messages"] == 20


async def test_a_request_under_way_fails_at_once_when_the_connection_is_lost(
    server: OwnServer, own_bus: NatsBus
) -> None:
    await own_bus.subscribe("silent", lambda _subject, _payload: None)
    asking = asyncio.create_task(own_bus.request("silent", b"", timeout_s=60))
    await own_bus.barrier()
    server.kill()
    with pytest.raises(Unavailable, match="connection was lost"):
        async with asyncio.timeout(5):
            await asking


async def test_a_request_gets_the_first_answer(nats_url: str, bus: NatsBus) -> None:
    async with open_bus(nats_url, name="responder") as responder:
        subject = bus._client.new_inbox()
        responder._client.listen(
            subject, lambda _subject, reply, _headers, payload: responder.publish(reply.decode(), b"re:" + payload)
        )
        await responder.barrier()
        assert await bus.request(subject, b"hi", timeout_s=5) == b"re:hi"


async def test_of_those_who_hear_a_question_only_who_has_an_answer_gives_one(nats_url: str, bus: NatsBus) -> None:
    async with open_bus(nats_url, name="silent") as silent, open_bus(nats_url, name="responder") as responder:
        subject = bus._client.new_inbox()
        heard: list[tuple[str, bytes]] = []

        def hear(on: str, question: bytes) -> bytes | None:
            heard.append((on, question))
            return None

        await silent.answer(subject + ".*", hear)
        answering = await responder.answer(subject + ".*", lambda _, question: b"re:" + question)
        await silent.barrier()
        await responder.barrier()
        assert await bus.request(subject + ".a", b"hi", timeout_s=5) == b"re:hi"
        await answering.stop()
        await responder.barrier()
        with pytest.raises(Unavailable, match="no answer in time"):
            await bus.request(subject + ".b", b"you", timeout_s=0.2)
        await silent.barrier()
        assert heard == [(subject + ".a", b"hi"), (subject + ".b", b"you")]


async def test_what_asks_for_no_answer_gets_none(bus: NatsBus) -> None:
    subject = bus._client.new_inbox()
    heard: list[bytes] = []

    def hear(_: str, question: bytes) -> bytes:
        heard.append(question)
        return b"answer"

    await bus.answer(subject, hear)
    bus.publish(subject, b"told")
    await bus.barrier()
    assert heard == [b"told"]


async def test_a_responder_answers_again_after_the_server_came_back(server: OwnServer, own_bus: NatsBus) -> None:
    back = asyncio.Event()
    own_bus.on_reconnect(back.set)
    await own_bus.answer("question", lambda _, question: question)
    server.kill()
    server.start()
    async with asyncio.timeout(10):
        await back.wait()
    assert await own_bus.request("question", b"still there?", timeout_s=5) == b"still there?"


async def test_a_request_that_nobody_listens_to_is_unavailable_at_once(bus: NatsBus) -> None:
    async with asyncio.timeout(5):
        with pytest.raises(Unavailable, match="nobody listens"):
            await bus.request("nobody.listens", b"", timeout_s=60)


async def test_a_request_that_is_not_answered_is_unavailable_when_the_time_is_up(bus: NatsBus) -> None:
    subject = bus._client.new_inbox()
    await bus.subscribe(subject, lambda _subject, _payload: None)
    with pytest.raises(Unavailable, match="no answer in time"):
        await bus.request(subject, b"", timeout_s=0.1)


async def test_a_queue_group_shares_messages_and_a_stopped_subscription_hears_none(bus: NatsBus) -> None:
    got: list[bytes] = []
    subject = bus._client.new_inbox()
    members = [await bus.subscribe(subject, lambda _subject, payload: got.append(payload), queue="q") for _ in range(3)]
    for n in range(30):
        bus.publish(subject, b"%d" % n)
    await bus.barrier()
    assert sorted(got) == sorted(b"%d" % n for n in range(30))
    for member in members:
        await member.stop()
    bus.publish(subject, b"late")
    await bus.barrier()
    assert b"late" not in got


async def test_closing_fails_whoever_still_waits(nats_url: str) -> None:
    async with open_bus(nats_url, name="test") as bus:
        subject = bus._client.new_inbox()
        await bus.subscribe(subject, lambda _subject, _payload: None)
        waiting = [
            asyncio.create_task(bus.send(subject, b"", msg_id="1", timeout_s=60)),
            asyncio.create_task(bus.request(subject, b"", timeout_s=60)),
        ]
        await bus.barrier()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {Unavailable}


@pytest.mark.requirement("bus:subjects-cannot-be-injected")
@pytest.mark.parametrize("text", ["a b", "a\r\nPUB x 0\r\n\r\n", ""])
async def test_what_may_not_travel_is_refused_everywhere(bus: NatsBus, text: str) -> None:
    with pytest.raises(ContractViolation):
        bus.publish(text, b"")
    with pytest.raises(ContractViolation):
        await bus.send(text, b"", msg_id="1")
    with pytest.raises(ContractViolation):
        await bus.send("a", b"", msg_id=text)
    with pytest.raises(ContractViolation):
        await bus.request(text, b"", timeout_s=1)
    with pytest.raises(ContractViolation):
        await bus.subscribe(text, lambda _subject, _payload: None)
    await bus.barrier()


async def test_an_inbox_prefix_of_one_s_own_is_used_for_every_answer(nats_url: str, bus: NatsBus) -> None:
    stream = await make_stream(bus)
    async with open_bus(nats_url, name="test", inbox_prefix="_INBOX_gateway") as private:
        await private.barrier()
        await private.send(stream.subject(), b"", msg_id="1")
        got: asyncio.Queue[object] = asyncio.Queue()
        pull = await private.pull(stream.name, stream.consumer, got.put_nowait)
        pull.add_credit(1)
        async with asyncio.timeout(5):
            await got.get()
        subjects = [command.split()[1] for command in private._client._interests.values()]
        assert all(subject.startswith(b"_INBOX_gateway.") for subject in subjects)
        assert pull._inbox.startswith("_INBOX_gateway.")
        await pull.stop()
