"""What happens when a client, the bus, the store or the gateway itself goes away."""

import asyncio
import itertools
import select
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from integration.bus.rig import OwnServer, jetstream, until
from integration.gateway.rig import ASK, TENANT, Rig, get, open_rig, post
from kitemesh_contracts.content import AssistantMessage
from kitemesh_contracts.errors import ErrorCode
from kitemesh_contracts.topology import TURN, topology
from kitemesh_gateway.app import drain
from kitemesh_runtime import failpoints
from kitemesh_runtime.bus_nats import open_bus
from kitemesh_runtime.topology_nats import apply
from kitemesh_runtime.turns import TurnRecord

STREAM = {**ASK, "stream": True}
_numbers = itertools.count(1)

Open = Callable[..., AbstractAsyncContextManager[Rig]]


@pytest.fixture
def open_changed(gateway_server: OwnServer, tmp_path: Path) -> Open:
    """Opens gateways with other settings on the shared server."""
    return lambda **changes: open_rig(gateway_server.url, tmp_path, replica=f"gw-c{next(_numbers)}", **changes)


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[OwnServer]:
    """A nats-server that the test may kill, with streams of one message."""
    folder = tmp_path / "own-nats"
    folder.mkdir()
    server = OwnServer(folder)
    try:
        async with open_bus(server.url, name="bootstrap") as bus:
            await apply(bus, topology(turn_queue_max=1), replicas=1)
        yield server
    finally:
        server.kill()


async def test_a_client_that_goes_away_stops_its_turn(rig: Rig) -> None:
    for body in (ASK, STREAM):
        client = rig.client()
        await client.send(post(body))
        start = await rig.cluster.start()
        began = time.monotonic()
        client.close()
        cancel = await rig.cluster.cancel()
        assert (cancel.turn, cancel.tenant, cancel.conversation) == (start.turn, TENANT, None)
        assert cancel.reason == "the client is gone"
        assert time.monotonic() - began < 1
        assert (await rig.cluster.cancel()).turn == start.turn
        rig.cluster.end(start, "", outcome="cancelled")
        while not rig.cluster.cancels.empty():
            rig.cluster.cancels.get_nowait()


@pytest.mark.requirement("promise:P16")
async def test_a_client_that_goes_away_in_mid_stream_stops_its_turn(rig: Rig) -> None:
    client = rig.client()
    await client.send(post({**STREAM, "metadata": {"conversation_id": "conv-1"}}))
    start = await rig.cluster.start()
    rig.cluster.frame(start, 1, "a")
    await client.head()
    client.close()
    cancel = await rig.cluster.cancel()
    assert (cancel.turn, cancel.conversation) == (start.turn, "conv-1")


@pytest.mark.requirement("promise:P15")
async def test_a_client_that_does_not_read_is_cut_and_its_turn_stopped(open_changed: Open) -> None:
    async with open_changed(max_unsent_bytes=4096, slow_client_s=2) as rig:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", rig.gateway.port))
        with sock:
            sock.sendall(post(STREAM))
            start = await rig.cluster.start()
            for n in range(1, 100):
                rig.cluster.frame(start, n, "x" * 50_000)
            assert (await rig.cluster.cancel()).turn == start.turn
        assert len(rig.gateway.relay) == 0


@pytest.mark.requirement("promise:P15")
async def test_one_client_that_does_not_read_costs_the_others_nothing(open_changed: Open) -> None:
    async with open_changed(slow_client_s=2) as rig:
        with socket.create_connection(("127.0.0.1", rig.gateway.port)) as lazy:
            lazy.sendall(post(STREAM))
            stuck = await rig.cluster.start()
            client = rig.client()
            await client.send(post(STREAM))
            served = await rig.cluster.start()
            for n in range(1, 100):
                rig.cluster.frame(stuck, n, "x" * 50_000)
                rig.cluster.frame(served, n, "y")
            rig.cluster.end(served, "y" * 99, last=99)
            assert (await client.answer()).text == "y" * 99


@pytest.mark.requirement("promise:P15")
async def test_a_whole_answer_that_nobody_takes_is_cut(open_changed: Open) -> None:
    async with open_changed(slow_client_s=1) as rig:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", rig.gateway.port))
        with sock:
            sock.sendall(post(ASK))
            # More than the kernel keeps for a client that does not read.
            await rig.cluster.end_large(await rig.cluster.start(), "y" * 12_000_000)
            poller = select.poll()
            poller.register(sock, select.POLLERR | select.POLLHUP)
            events = await asyncio.get_running_loop().run_in_executor(None, poller.poll, 10_000)
            assert events


@pytest.mark.requirement("stream:pings")
async def test_a_silent_stream_is_pinged_and_a_late_failure_is_in_it(open_changed: Open) -> None:
    async with open_changed(first_event_s=0.2, ping_s=1) as rig:
        client = rig.client()
        await client.send(post(STREAM))
        start = await rig.cluster.start()
        status, _ = await client.head()
        assert status == 200
        assert await client.piece() == b": ping\n\n"
        rig.cluster.fail(start, ErrorCode.UPSTREAM_TIMEOUT, "Too slow")
        while (piece := await client.piece()) == b": ping\n\n":
            pass
        assert b'"code":"upstream.timeout"' in piece
        assert await client.piece() == b""
        assert await client.ended()


@pytest.mark.requirement("fault:store-down")
async def test_with_the_store_down_new_turns_are_refused_at_once(rig: Rig) -> None:
    await rig.ask(get("/v1/models"))
    rig.store_state.mark_down("gone")
    began = time.monotonic()
    answer = await rig.ask(post(ASK))
    assert (answer.status, answer.error["code"]) == (503, "store.down")
    assert answer.headers["retry-after"] == "1"
    assert time.monotonic() - began < 0.5
    rig.store_state.mark_up()
    client = rig.client()
    await client.send(post(ASK))
    rig.cluster.end(await rig.cluster.start(), "x")
    assert (await client.answer()).status == 200


async def holds(rig: Rig, messages: int) -> bool:
    state = (await jetstream(rig.cluster.bus, f"STREAM.INFO.{TURN}"))["state"]
    return bool(state["messages"] == messages)


@pytest.mark.requirement("fault:queue-full")
async def test_a_full_queue_is_told_as_such(own: OwnServer, tmp_path: Path) -> None:
    async with open_rig(own.url, tmp_path, replica="gw-full", is_worked=False) as rig:
        waiting = rig.client()
        await waiting.send(post(ASK))
        await until(lambda: holds(rig, 1))
        answer = await rig.ask(post(ASK))
        assert (answer.status, answer.error["type"], answer.error["code"]) == (429, "rate_limit_error", "queue_full")
        assert answer.headers["retry-after"] == "1"
        assert len(rig.gateway.relay) == 1


async def test_too_many_open_turns_are_told_as_such(open_changed: Open) -> None:
    async with open_changed(max_streams=1) as rig:
        first = rig.client()
        await first.send(post(STREAM))
        start = await rig.cluster.start()
        answer = await rig.ask(post(STREAM))
        assert (answer.status, answer.error["code"]) == (429, "queue_full")
        rig.cluster.end(start, "x")
        assert (await first.answer()).text == "x"


@pytest.mark.requirement("fault:bus-down")
async def test_with_the_bus_down_turns_are_refused_in_time_and_taken_again_when_it_is_back(
    own: OwnServer, tmp_path: Path
) -> None:
    async with open_rig(own.url, tmp_path, replica="gw-outage") as rig:
        await rig.ask(get("/v1/models"))
        own.kill()
        began = time.monotonic()
        answers = await asyncio.gather(*(rig.ask(post(body)) for body in (ASK, STREAM, ASK)))
        assert time.monotonic() - began < 3
        for answer in answers:
            assert (answer.status, answer.error["code"]) == (503, "bus.down")
            assert answer.headers["retry-after"] == "1"
        own.start()
        client = rig.client()
        await client.send(post(ASK))
        rig.cluster.end(await rig.cluster.start(), "back")
        assert (await client.answer()).json()["choices"][0]["message"]["content"] == "back"


@pytest.mark.requirement("attempt:stored-turn-is-looked-for")
async def test_a_turn_that_ended_during_an_outage_is_answered_from_the_store(own: OwnServer, tmp_path: Path) -> None:
    async with open_rig(own.url, tmp_path, replica="gw-missed") as rig:
        client = rig.client()
        await client.send(post(STREAM))
        start = await rig.cluster.start()
        rig.cluster.frame(start, 1, "Hel")
        await client.head()
        assert b"Hel" in await client.piece()
        own.kill()
        await rig.stores.turns.put(
            TENANT,
            TurnRecord(
                id=start.turn,
                tenant=TENANT,
                status="completed",
                mode="classic",
                model="scripted",
                conversation=start.conversation,
                answer=AssistantMessage(text="Hello"),
                finish="stop",
            ),
        )
        own.start()
        rest = await client.piece()
        assert b'{"content":"lo"}' in rest
        assert rest.endswith(b"data: [DONE]\n\n")


async def test_an_ambiguous_start_is_refused_and_withdrawn(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failpoints, "_armed", failpoints.parse("gw.after_publish:exec_and_timeout"))
    answer = await rig.ask(post(ASK))
    assert answer.status == 500
    start = await rig.cluster.start()
    assert (await rig.cluster.cancel()).turn == start.turn


async def drained(rig: Rig, drain_s: float, during: Callable[[], Awaitable[None]]) -> None:
    rig.life.signal()
    draining = asyncio.create_task(drain(rig.gateway, rig.life, drain_s))
    await during()
    async with asyncio.timeout(5):
        await draining


@pytest.mark.requirement("http:draining-is-told")
async def test_while_draining_open_turns_finish_and_new_ones_are_refused(rig: Rig) -> None:
    client = rig.client()
    await client.send(post(STREAM))
    start = await rig.cluster.start()
    rig.cluster.frame(start, 1, "a")
    await client.head()
    assert rig.life.is_ready

    async def during() -> None:
        assert not rig.life.is_ready
        answer = await rig.ask(post(ASK))
        assert (answer.status, answer.error["code"]) == (503, "service.draining")
        assert answer.headers["connection"] == "close"
        assert answer.headers["retry-after"] == "1"
        assert b'"a"' in await client.piece()
        rig.cluster.end(start, "ab", last=1, attempt=2)
        assert (await client.piece()).endswith(b"data: [DONE]\n\n")

    await drained(rig, 5, during)


@pytest.mark.requirement("http:draining-is-told")
async def test_a_drain_that_runs_out_of_time_ends_with_explicit_errors(rig: Rig) -> None:
    streaming, whole = rig.client(), rig.client()
    await streaming.send(post(STREAM))
    start = await rig.cluster.start()
    rig.cluster.frame(start, 1, "a")
    await streaming.head()
    await streaming.piece()
    await whole.send(post(ASK))
    await rig.cluster.start()

    async def during() -> None:
        assert b'"code":"service.draining"' in await streaming.piece()
        assert await streaming.piece() == b""
        answer = await whole.answer()
        assert (answer.status, answer.error["code"]) == (503, "service.draining")

    await drained(rig, 0.1, during)
    assert len({(await rig.cluster.cancel()).turn for _ in range(2)}) == 2


async def test_a_second_signal_ends_a_drain(rig: Rig) -> None:
    client = rig.client()
    await client.send(post(ASK))
    await rig.cluster.start()

    async def during() -> None:
        rig.life.signal()
        assert (await client.answer()).status == 503

    await drained(rig, 60, during)


@pytest.mark.requirement("conversation:renewed-by-its-gateway")
async def test_locks_of_open_conversations_are_renewed(open_changed: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kitemesh_gateway.turns.RENEW_EVERY_S", 0.0)
    renewed: asyncio.Queue[tuple[str, ...]] = asyncio.Queue()
    async with open_changed() as rig:

        async def renew(*names: str) -> None:
            renewed.put_nowait(names)

        monkeypatch.setattr(rig.stores.conversations, "renew", renew)
        client = rig.client()
        await client.send(post(ASK))
        start = await rig.cluster.start()
        async with asyncio.timeout(5):
            assert await renewed.get() == (TENANT, start.conversation, start.turn)
        rig.cluster.end(start, "x")
        assert (await client.answer()).status == 200


async def test_nothing_is_left_behind_by_turns_that_ended_in_every_way(rig: Rig) -> None:
    def tasks() -> int:
        return len(asyncio.all_tasks())

    async def one(body: dict[str, Any], *, leave: bool) -> None:
        client = rig.client()
        await client.send(post(body))
        start = await rig.cluster.start()
        if leave:
            client.close()
            await rig.cluster.cancel()
        rig.cluster.end(start, "x")
        if not leave:
            await client.answer()
            client.close()

    await one(ASK, leave=False)
    before = tasks()
    for leave in (False, True):
        for body in (ASK, STREAM):
            await one(body, leave=leave)
    async with asyncio.timeout(5):
        while tasks() > before or len(rig.gateway.relay):
            await rig.cluster.bus.barrier()
