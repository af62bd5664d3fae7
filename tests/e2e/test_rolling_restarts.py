"""Every process is restarted under load, one after the other, gently and not: no client of a durable turn loses a word.

Durable clients do what any client does: they come back with their last id. Classic ones cannot.
"""

import asyncio
import http.client
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import NamedTuple

import aiohttp
import pytest

from chaos.replicas import replicas_of
from cluster import Cluster, running_cluster
from kitemesh_cli.processes import spawn
from kitemesh_cli.servers import LOOPBACK, free_port
from stream_client import DRAINING, Shown, ask, open_session, read_to_the_end, streaming
from tool_cluster import until

DURABLE = 30
CLASSIC = 10
DRAIN_S = 4.0
SPREAD_S = DRAIN_S / 2
DELAY_MS = 100
START_S = 30.0
AT_ONCE_S = 1.0
STILL_S = 10.0
"""No stream is silent for longer, whatever is restarted."""


class Front(Cluster):
    """A gateway that is stopped and started again on the same port."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._log = cluster.data / "logs" / f"{name}.log"
        self._health = free_port()
        self.port = free_port()
        self.key = cluster.key
        self.origin = f"http://{LOOPBACK}:{self.port}"
        self._environ = {
            **cluster.environment(),
            "KITEMESH_PORT": str(self.port),
            "KITEMESH_HEALTH_PORT": str(self._health),
            "KITEMESH_DRAIN_S": str(DRAIN_S),
        }
        self.start()

    def start(self) -> None:
        """Start it, for the first time or again."""
        self.process = spawn([sys.executable, "-m", "kitemesh_gateway"], self._log, self._environ)

    async def ready(self) -> None:
        """Return once it serves."""
        end_s = time.monotonic() + START_S
        while await asyncio.to_thread(self.readiness) != 200:
            assert time.monotonic() < end_s
            assert self.process.poll() is None, self._log.read_text()[-2000:]
            await asyncio.sleep(0.05)

    async def is_not_ready(self) -> bool:
        """Tell whether it says so at once."""
        await asyncio.to_thread(until, lambda: self.readiness() != 200, timeout_s=AT_ONCE_S)
        return await asyncio.to_thread(self.readiness) == 503

    async def gone(self) -> float:
        """Return when it has ended, and how long that took."""
        began_s = time.monotonic()
        code = await asyncio.to_thread(self.process.wait, START_S)
        assert code in {0, -signal.SIGKILL}
        return time.monotonic() - began_s

    def readiness(self) -> int:
        """Return the status of its readiness; 0 when nobody answers."""
        connection = http.client.HTTPConnection(LOOPBACK, self._health, timeout=1)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()


class Fleet(NamedTuple):
    """A cluster with two gateways of ours."""

    cluster: Cluster
    fronts: tuple[Front, Front]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_cluster(tmp_path_factory.mktemp("rolling"), KITEMESH_DRAIN_S=str(DRAIN_S)) as cluster:
        fronts = Front(cluster, "gateway-a"), Front(cluster, "gateway-b")
        try:
            for front in fronts:
                asyncio.run(front.ready())
            yield Fleet(cluster, fronts)
        finally:
            for front in fronts:
                front.process.kill()
                front.process.wait()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as opened:
        yield opened


def paced(words: int, *more: str) -> str:
    return "\n".join([*more, f"@delay_ms {DELAY_MS}", f"@count {words}"])


def counted(words: int) -> str:
    return "".join(f"{n} " for n in range(1, words + 1))


class Load:
    """Clients of durable turns, half of them at either gateway, and what each was shown."""

    def __init__(self, session: aiohttp.ClientSession, fronts: Sequence[Cluster], tasks: asyncio.TaskGroup) -> None:
        self.shown: list[Shown] = []
        self._session = session
        self._fronts = fronts
        self._tasks = tasks
        self._reading: list[asyncio.Task[Shown]] = []

    def begin(self, text: str, *, count: int = DURABLE) -> None:
        """Have clients ask."""
        for n in range(count):
            shown = Shown()
            order = self._fronts if n % 2 == 0 else self._fronts[::-1]
            self.shown.append(shown)
            self._reading.append(
                self._tasks.create_task(
                    read_to_the_end(self._session, order, ask(text), shown, idempotency=f"{time.monotonic_ns()} {n}")
                )
            )

    async def shows(self, words: int) -> None:
        """Return once every client was shown so many words more."""
        wanted = [len(shown.events) + words for shown in self.shown]
        end_s = time.monotonic() + START_S
        while not all(shown.is_done or len(shown.events) >= n for shown, n in zip(self.shown, wanted, strict=True)):
            assert time.monotonic() < end_s
            await asyncio.sleep(0.02)

    async def end(self) -> None:
        """Return when every turn has ended."""
        await asyncio.gather(*self._reading)

    def stillness_s(self) -> float:
        """Return the longest silence of any stream."""
        return max(
            later.at_s - event.at_s
            for shown in self.shown
            for event, later in zip(shown.events, shown.events[1:], strict=False)
        )


async def classic(session: aiohttp.ClientSession, front: Cluster, words: int) -> Shown:
    """Be a client of a classic turn: it asks once."""
    shown = Shown()
    async with streaming(session, front, ask(paced(words), mode="classic")) as stream:
        async for event in stream.events():
            shown.note(event)
    return shown


async def assert_replayed(session: aiohttp.ClientSession, gateway: Cluster, shown: Shown) -> None:
    """Hold what a client put together against the stream as somebody reads it who was never cut."""
    async with streaming(session, gateway, {}, last=shown.events[0].id) as stream:
        assert [event.block for event in await stream.rest()] == [event.block for event in shown.events[1:]]


@pytest.mark.requirement("promise:P6", "drain:durable-streams-move", "http:draining-is-told")
async def test_gateways_that_drain_one_after_the_other_break_no_stream(
    session: aiohttp.ClientSession, fleet: Fleet
) -> None:
    words = 150
    short, long = int(DRAIN_S / 2 * 1000 / DELAY_MS), int(DRAIN_S * 3 * 1000 / DELAY_MS)
    took = []
    async with asyncio.TaskGroup() as tasks:
        load = Load(session, fleet.fronts, tasks)
        load.begin(paced(words))
        await load.shows(3)
        for front in fleet.fronts:
            finishing = [tasks.create_task(classic(session, front, short)) for _ in range(CLASSIC // 2 - 1)]
            cut = tasks.create_task(classic(session, front, long))
            before = {id(event) for shown in load.shown for event in shown.sent_away}
            await load.shows(4)
            front.process.send_signal(signal.SIGTERM)
            assert await front.is_not_ready()
            async with streaming(session, front, ask("@echo refused")) as refused:
                assert (refused.status, (await refused.json())["error"]["code"]) == (503, DRAINING)
                assert int(refused.headers["Retry-After"]) >= 1
            took.append(await front.gone())
            front.start()
            for shown in [task.result() for task in finishing]:
                assert (shown.text, shown.is_complete) == (counted(short), True)
            ended = await cut
            assert counted(long).startswith(ended.text)
            assert (ended.is_done, ended.finishes, ended.problem["code"]) == (False, [], DRAINING)
            away = [event for shown in load.shown for event in shown.sent_away if id(event) not in before]
            assert len(away) >= DURABLE / 2
            assert all(event.id == "" and 0 < int(event.retry) <= 4000 for event in away)
            spread_s = max(event.at_s for event in away) - min(event.at_s for event in away)
            assert SPREAD_S / 2 < spread_s < SPREAD_S + 1
            await front.ready()
        await load.end()
    for shown in load.shown:
        assert (shown.text, shown.is_complete, shown.is_contiguous()) == (counted(words), True, True)
        assert len(shown.sent_away) == shown.requests - 1
        await assert_replayed(session, fleet.fronts[0], shown)
    assert load.stillness_s() < STILL_S
    assert all(DRAIN_S - 1 < each < DRAIN_S + 3 for each in took)


@pytest.mark.requirement("promise:P6", "reattach:same-bytes")
async def test_gateways_that_are_killed_one_after_the_other_break_no_stream(
    session: aiohttp.ClientSession, fleet: Fleet
) -> None:
    words = 100
    async with asyncio.TaskGroup() as tasks:
        load = Load(session, fleet.fronts, tasks)
        load.begin(paced(words))
        cut: list[Shown] = []
        for front in fleet.fronts:
            reading = [tasks.create_task(classic(session, front, words)) for _ in range(CLASSIC // 2)]
            await load.shows(4)
            front.process.send_signal(signal.SIGKILL)
            await front.gone()
            cut += await asyncio.gather(*reading)
            front.start()
            await front.ready()
        await load.end()
    for shown in load.shown:
        assert (shown.text, shown.is_complete, shown.is_contiguous()) == (counted(words), True, True)
        await assert_replayed(session, fleet.fronts[0], shown)
    for shown in cut:
        assert counted(words).startswith(shown.text)
        assert (shown.is_done, shown.finishes) == (False, [])
    assert load.stillness_s() < STILL_S


@pytest.mark.requirement("promise:P6", "drain:workers-hand-over")
async def test_workers_that_are_stopped_one_after_the_other_lose_nothing(
    session: aiohttp.ClientSession, fleet: Fleet
) -> None:
    words = 90
    services = ("orchestrator", "model-runner", "tool-executor")
    with replicas_of(fleet.cluster, {}) as replicas:
        for service in services:
            replicas.start(f"{service}-b", service)
        await asyncio.to_thread(replicas.ready)
        async with asyncio.TaskGroup() as tasks:
            load = Load(session, fleet.fronts, tasks)
            load.begin(paced(words), count=DURABLE // 2)
            load.begin(paced(words // 2, '@call get_weather {"city": "Oslo"}', "@then"), count=DURABLE // 2)
            await load.shows(3)
            for service in services:
                old = fleet.cluster.kill(service, signal.SIGTERM)
                load.begin(paced(5, '@call get_weather {"city": "Rome"}', "@then"), count=4)
                await asyncio.to_thread(fleet.cluster.restarted, service, old)
            await load.end()
    wanted = [words] * (DURABLE // 2) + [words // 2] * (DURABLE // 2) + [5] * 4 * len(services)
    for shown, count in zip(load.shown, wanted, strict=True):
        assert (shown.text, shown.is_complete, shown.requests) == (counted(count), True, 1)
    assert any(shown.attempts() == [1, 2] for shown in load.shown)
    assert load.stillness_s() < STILL_S
