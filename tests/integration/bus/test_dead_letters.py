"""Messages that nobody could handle, from the real server's advisories to a failed turn."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from integration.bus.rig import OwnServer, jetstream, until
from kitemesh_contracts import subjects, topology
from kitemesh_contracts.errors import ContractViolation, ErrorCode, Unavailable
from kitemesh_contracts.topology import StreamSpec
from kitemesh_runtime import worker
from kitemesh_runtime.bus import Delivery
from kitemesh_runtime.bus_nats import NatsBus, open_bus
from kitemesh_runtime.dead_nats import FAIL_TRIES, dead_letter_workers
from kitemesh_runtime.topology_nats import apply
from kitemesh_runtime.worker import Done, Outcome, Reject, Worker

POOL = "default-interactive-0"


class Failed(NamedTuple):
    stream: str
    subject: str
    data: bytes
    reason: str


class Turns:
    """Stands for the orchestrator: records which turns it was told to fail."""

    def __init__(self) -> None:
        self.failed: list[Failed] = []
        self.raises: list[Exception] = []
        self._changed = asyncio.Event()

    async def fail(self, stream: str, subject: str, data: bytes, reason: str) -> None:
        self.failed.append(Failed(stream, subject, data, reason))
        self._changed.set()
        if self.raises:
            raise self.raises.pop()

    async def reach(self, count: int) -> None:
        async with asyncio.timeout(15):
            while len(self.failed) < count:
                self._changed.clear()
                await self._changed.wait()


def impatient(spec: StreamSpec) -> StreamSpec:
    wait_s = 0.2 if spec.name != topology.DEAD else 5
    return spec._replace(consumers=tuple(consumer._replace(ack_wait_s=wait_s) for consumer in spec.consumers))


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[NatsBus]:
    """A connection to a server with the whole topology and short ack waits."""
    server = OwnServer(tmp_path)
    try:
        async with open_bus(server.url, name="test") as bus:
            await apply(bus, [impatient(spec) for spec in topology.topology()], replicas=1)
            yield bus
    finally:
        server.kill()


@pytest.fixture
async def turns(cluster: NatsBus) -> AsyncIterator[Turns]:
    """The mover at work."""
    recorder = Turns()
    [mover] = dead_letter_workers(cluster, recorder.fail)
    running = asyncio.create_task(mover.run())
    yield recorder
    await mover.drain(1)
    await running


async def letters(bus: NatsBus, turn: str) -> list[dict[str, Any]]:
    subject = subjects.dead(topology.MODEL, turn)
    info = await jetstream(bus, f"STREAM.INFO.{topology.DEAD}", {"subjects_filter": subject})
    count = info["state"].get("subjects", {}).get(subject, 0)
    if not count:
        return []
    last = await jetstream(bus, f"STREAM.MSG.GET.{topology.DEAD}", {"last_by_subj": subject})
    return [json.loads(base64.b64decode(last["message"]["data"]))] * count


async def waiting(bus: NatsBus, stream: str) -> int:
    return int((await jetstream(bus, f"STREAM.INFO.{stream}"))["state"]["messages"])


async def until_empty(bus: NatsBus, stream: str) -> None:
    async def empty() -> bool:
        return await waiting(bus, stream) == 0

    await until(empty)


@pytest.mark.requirement("promise:P24")
async def test_a_message_that_kills_its_worker_ends_as_one_letter_and_one_failed_turn(
    cluster: NatsBus, turns: Turns
) -> None:
    deliveries: list[int] = []
    pull = await cluster.pull(topology.MODEL, POOL, lambda delivery: deliveries.append(delivery.deliveries))
    pull.add_credit(100)  # nobody answers: as if each worker died of it
    subject = subjects.model_job("default", "interactive", 0, "turn-1")
    await cluster.send(subject, b'{"secret":1}', msg_id="turn-1:0:model:0:1")
    await turns.reach(1)
    await until_empty(cluster, topology.MODEL)
    assert deliveries == [1, 2, 3, 4]
    assert turns.failed == [
        Failed(topology.MODEL, subject, b'{"secret":1}', "delivered 4 times without an answer"),
    ]
    [letter] = await letters(cluster, "turn-1")
    at = letter.pop("at")
    assert at.startswith("20")
    assert letter == {
        "type": "dead.letter",
        "stream": topology.MODEL,
        "consumer": POOL,
        "sequence": 1,
        "subject": subject,
        "msg_id": "turn-1:0:model:0:1",
        "deliveries": 4,
        "reason": "delivered 4 times without an answer",
    }
    await pull.stop()


@pytest.mark.requirement("dead-letter:one-reference")
async def test_a_rejected_message_ends_as_a_letter_with_its_reason(cluster: NatsBus, turns: Turns) -> None:
    async def handler(_delivery: Delivery) -> Outcome:
        return Reject("no known kind")

    working = Worker(cluster, topology.MODEL, [POOL], 1, handler, name="w")
    running = asyncio.create_task(working.run())
    subject = subjects.model_job("default", "interactive", 0, "turn-2")
    await cluster.send(subject, b"garbage", msg_id="2")
    await turns.reach(1)
    # The server deleted the message when it was terminated.
    assert turns.failed == [Failed(topology.MODEL, subject, b"", "no known kind")]

    async def written() -> bool:
        return bool(await letters(cluster, "turn-2"))

    await until(written)
    [letter] = await letters(cluster, "turn-2")
    assert (letter["subject"], letter["reason"], letter["deliveries"]) == (subject, "no known kind", 1)
    await working.drain(1)
    await running


async def exhausted(bus: NatsBus, sequence: int) -> None:
    """Send the advisory that the server would send."""
    advisory = {
        "type": "io.nats.jetstream.advisory.v1.max_deliver",
        "stream": topology.MODEL,
        "consumer": POOL,
        "stream_seq": sequence,
        "deliveries": 4,
        "timestamp": "2026-01-01T00:00:00Z",
    }
    bus.publish(f"{topology.ADVISORY_MAX_DELIVERIES}.{topology.MODEL}.{POOL}", json.dumps(advisory).encode())


@pytest.mark.requirement("dead-letter:one-reference")
async def test_a_mover_that_died_half_way_is_repeated_and_leaves_one_letter(cluster: NatsBus, turns: Turns) -> None:
    turns.raises.append(Unavailable(ErrorCode.STORE_DOWN, "gone"))
    receipt = await cluster.send(subjects.model_job("default", "interactive", 0, "turn-3"), b"x", msg_id="3")
    await exhausted(cluster, receipt.sequence)
    await turns.reach(2)
    await until_empty(cluster, topology.MODEL)
    assert len(turns.failed) == 2
    assert len(await letters(cluster, "turn-3")) == 1


async def test_a_second_advisory_for_a_message_that_was_moved_does_nothing(cluster: NatsBus, turns: Turns) -> None:
    receipt = await cluster.send(subjects.model_job("default", "interactive", 0, "turn-4"), b"x", msg_id="4")
    await exhausted(cluster, receipt.sequence)
    await until_empty(cluster, topology.MODEL)
    await exhausted(cluster, receipt.sequence)

    async def answered() -> bool:
        info = await jetstream(cluster, f"CONSUMER.INFO.{topology.DEAD}.dead-exhausted")
        return bool(info["ack_floor"]["consumer_seq"] == 2)

    await until(answered)
    assert len(turns.failed) == 1
    assert len(await letters(cluster, "turn-4")) == 1


async def test_a_message_whose_turn_nobody_can_tell_is_deleted_all_the_same(cluster: NatsBus, turns: Turns) -> None:
    turns.raises.append(ContractViolation("not readable"))
    receipt = await cluster.send(subjects.model_job("default", "interactive", 0, "turn-5"), b"\xff", msg_id="5")
    await exhausted(cluster, receipt.sequence)
    await until_empty(cluster, topology.MODEL)
    assert len(turns.failed) == 1
    assert len(await letters(cluster, "turn-5")) == 1


async def test_a_turn_that_cannot_be_failed_does_not_keep_the_mover_for_ever(
    cluster: NatsBus, turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "REDELIVER_S", 0.05)
    turns.raises += [ZeroDivisionError() for _ in range(100)]
    receipt = await cluster.send(subjects.model_job("default", "interactive", 0, "turn-7"), b"x", msg_id="7")
    await exhausted(cluster, receipt.sequence)
    await until_empty(cluster, topology.MODEL)
    assert len(turns.failed) == (FAIL_TRIES - 1) * (worker.CRASHES_MAX + 1) + 1
    assert len(await letters(cluster, "turn-7")) == 1


async def test_unreadable_and_foreign_advisories_are_dropped(cluster: NatsBus, turns: Turns) -> None:
    cluster.publish(f"{topology.ADVISORY_MAX_DELIVERIES}.X.c", b"{")
    foreign = {"stream": "X", "consumer": "c", "stream_seq": 1, "deliveries": 1, "timestamp": ""}
    cluster.publish(f"{topology.ADVISORY_TERMINATED}.X.c", json.dumps(foreign).encode())

    async def answered() -> bool:
        infos = [
            await jetstream(cluster, f"CONSUMER.INFO.{topology.DEAD}.{name}")
            for name in ("dead-exhausted", "dead-terminated")
        ]
        return all(info["ack_floor"]["consumer_seq"] == 1 and info["num_ack_pending"] == 0 for info in infos)

    await until(answered)
    assert turns.failed == []


async def test_work_that_is_done_in_time_leaves_no_letter(cluster: NatsBus, turns: Turns) -> None:
    done = asyncio.Event()

    async def handler(_delivery: Delivery) -> Outcome:
        done.set()
        return Done()

    working = Worker(cluster, topology.MODEL, [POOL], 1, handler, name="w")
    running = asyncio.create_task(working.run())
    await cluster.send(subjects.model_job("default", "interactive", 0, "turn-6"), b"x", msg_id="6")
    await done.wait()
    await until_empty(cluster, topology.MODEL)
    await working.drain(1)
    await running
    assert turns.failed == []
    assert await letters(cluster, "turn-6") == []
