"""kill -9 at the named places of a classic turn: every client is answered, nothing stays queued, locked or unstored."""

import asyncio
import concurrent.futures
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from pymongo import MongoClient

from cluster import Cluster, Reply, running_cluster, streamed_text
from kitemesh_contracts import topology
from kitemesh_runtime.bus_nats import open_bus

PATIENCE_S = 60.0
QUEUES = (topology.TURN, topology.CONTROL, topology.EVENT, topology.MODEL)
ORCHESTRATOR = ("orch.after_fetch", "orch.after_decide", "orch.after_save", "orch.after_publish")
RUNNER = ("run.before_upstream", "run.mid_stream", "run.before_result", "run.before_ack")
POINTS = (*ORCHESTRATOR, *RUNNER)


class Armed(NamedTuple):
    """A cluster in which every failpoint kills as often as its file has bytes."""

    cluster: Cluster
    folder: Path

    def arm(self, point: str, times: int = 1) -> None:
        (self.folder / point).write_bytes(b"x" * times)

    def left(self, point: str) -> int:
        return (self.folder / point).stat().st_size


@pytest.fixture(scope="module")
def armed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Armed]:
    folder = tmp_path_factory.mktemp("armed")
    points = ",".join(f"{point}:kill@{folder / point}" for point in POINTS)
    with running_cluster(folder, KITEMESH_FAILPOINT=points) as cluster:
        yield Armed(cluster, folder)


class Told(NamedTuple):
    """What a client was told, and how long that took."""

    reply: Reply
    took_s: float


def ask(cluster: Cluster, text: str, **more: Any) -> Told:
    began_s = time.monotonic()
    return Told(cluster.chat(text, **more), time.monotonic() - began_s)


def shown(reply: Reply) -> str:
    """Return the text of a complete answer."""
    assert reply.status == 200, reply.body
    if not reply.headers["Content-Type"].startswith("text/event-stream"):
        return str(reply.json()["choices"][0]["message"]["content"])
    assert reply.body.rstrip().endswith(b"data: [DONE]"), reply.body
    return streamed_text(reply.body)


def until(cluster: Cluster, condition: Callable[[], Awaitable[object]], wanted: object) -> None:
    """Ask again until the answer is the wanted one."""

    async def wait() -> None:
        end_s = time.monotonic() + PATIENCE_S / 2
        while (found := await condition()) != wanted:
            assert time.monotonic() < end_s, f"{found}\n{cluster.printed()[-2000:]}"
            await asyncio.sleep(0.1)

    asyncio.run(wait())


def at_rest(cluster: Cluster) -> None:
    """Return once no queue holds a message."""
    url = cluster.environment()["KITEMESH_NATS_URL"]

    async def queued() -> dict[str, int]:
        async with open_bus(url, name="test") as bus:
            infos = [await bus.request(f"$JS.API.STREAM.INFO.{name}", b"", timeout_s=5) for name in QUEUES]
        counts = (msgspec.json.decode(info)["state"]["messages"] for info in infos)
        return {name: count for name, count in zip(QUEUES, counts, strict=True) if count}

    until(cluster, queued, {})


def begin(cluster: Cluster) -> str:
    """Make a conversation with one turn, of which nothing is left to be done."""
    conversation = str(cluster.chat("@echo begun").json()["kitemesh"]["conversation_id"])
    at_rest(cluster)
    return conversation


@pytest.mark.requirement("fault:cut-before-the-first-delta", "store:first-write-stays")
@pytest.mark.parametrize("points", list(zip(ORCHESTRATOR, RUNNER, strict=True)))
def test_a_turn_cut_anywhere_is_answered_and_stored_as_shown(
    armed: Armed,
    points: tuple[str, str],
) -> None:
    cluster = armed.cluster
    begun = begin(cluster)
    for point in points:
        armed.arm(point)
    requests: list[dict[str, Any]] = [
        {"stream": stream, "metadata": metadata}
        for stream in (False, True)
        for metadata in ({}, {"conversation_id": begun})
    ]
    texts = [f"{points[1]} says word after word {n}" for n in range(len(requests))]
    with concurrent.futures.ThreadPoolExecutor(len(requests)) as clients:
        asked = [
            clients.submit(ask, cluster, f"@delay_ms 20\n@echo {text}", **request)
            for text, request in zip(texts, requests, strict=True)
        ]
        told = [future.result() for future in asked]
    assert max(each.took_s for each in told) < PATIENCE_S / 2
    assert [shown(each.reply) for each in told] == texts
    assert [armed.left(point) for point in points] == [0, 0]
    at_rest(cluster)
    with MongoClient[dict[str, Any]](cluster.environment()["KITEMESH_MONGO_URL"]) as client:
        store = client["kitemesh"]
        for text, each in zip(texts, told, strict=True):
            turn = store["turns"].find_one({"_id": each.reply.headers["x-execution-id"]})
            assert turn is not None
            assert (turn["status"], turn["answer"]["text"]) == ("completed", text)
            assert b'"stored":false' not in each.reply.body

        async def locked() -> int:
            return store["conversations"].count_documents({"active": {"$ne": None}})

        until(cluster, locked, 0)


@pytest.mark.requirement("conversation:one-turn-at-a-time")
def test_a_start_that_is_delivered_again_after_its_answer_keeps_no_lock(armed: Armed) -> None:
    cluster = armed.cluster
    more = {"metadata": {"conversation_id": begin(cluster)}}
    armed.arm("orch.after_publish")
    assert shown(ask(cluster, "@first_ms 2500\n@echo second", **more).reply) == "second"  # before the start comes again
    at_rest(cluster)
    third = ask(cluster, "@echo third", **more)
    assert shown(third.reply) == "third"
    assert third.took_s < 5
