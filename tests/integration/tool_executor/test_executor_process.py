"""The service as a process: killed at each of its failpoints or told to stop; the tool's ledger says what it did."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
import yaml

from integration.bus.rig import OwnServer
from integration.tool_executor.http_rig import LOOPBACK
from kitemesh_cli import processes
from kitemesh_contracts import canonical, codec, subjects, topology
from kitemesh_contracts.commands import CallOrder, RunCalls
from kitemesh_contracts.errors import ErrorCode
from kitemesh_contracts.events import CallsReturned
from kitemesh_contracts.headers import job_msg_id
from kitemesh_runtime import topology_nats
from kitemesh_runtime.bus_nats import NatsBus, open_bus
from kitemesh_runtime.catalog import Catalog
from kitemesh_runtime.clock import SystemClock
from kitemesh_runtime.driver_mongo import open_database
from kitemesh_runtime.live_turns import LiveTurn, LiveTurns
from kitemesh_runtime.stores_mongo import open_stores
from tool_stub import ToolStub, start_tool_stub

POINTS = ("tool.after_fetch", "tool.after_dispatched", "tool.after_send", "tool.after_response", "tool.before_ack")
UNCERTAIN = ErrorCode.TOOL_UNCERTAIN
ONCE = {
    # What is told of a call that may run once, and how often it may have had its effect.
    "tool.after_fetch": (None, {1}),
    "tool.after_dispatched": (UNCERTAIN, {0}),
    "tool.after_send": (UNCERTAIN, {0, 1}),
    "tool.after_response": (UNCERTAIN, {1}),
    "tool.before_ack": (None, {1}),
}
ACK_WAIT_S = 2.0
DATABASE = "executor-kills"


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToolStub]:
    with start_tool_stub(tmp_path_factory.mktemp("tool-stub")) as stub:
        yield stub


class Site(NamedTuple):
    """One pool with its process."""

    bus: NatsBus
    live_turns: LiveTurns
    catalog: Catalog
    pool: str
    folder: Path
    environ: dict[str, str]
    results: "dict[str, asyncio.Queue[CallsReturned]]"

    def start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "kitemesh_tool_executor"]
        return processes.spawn(command, self.folder / self.pool / "log", self.environ)

    def said(self) -> str:
        return (self.folder / self.pool / "log").read_text()

    def arm(self) -> None:
        (self.folder / self.pool / "armed").write_bytes(b"x")

    def order(self, name: str) -> CallOrder:
        arguments = '{"secret":"argument"}'
        return CallOrder(
            id=f"{self.pool}-{name}",
            name=name,
            arguments=arguments,
            sha256=canonical.sha256(arguments),
            version=self.catalog.tools[name].version(),
        )

    async def send(self, *names: str) -> None:
        turn = f"{self.pool}-{names[0]}"
        self.results[turn] = asyncio.Queue()
        calls = tuple(self.order(name) for name in names)
        job = RunCalls(
            turn=turn,
            tenant="acme",
            gateway="g",
            mode="durable",
            step=1,
            attempt=1,
            calls=calls,
            budget_s=60.0,
            stored=True,
        )
        live = LiveTurn(id=turn, tenant="acme", version=1, status="running", mode="durable", model="m", state=b"{}")
        assert await self.live_turns.insert("acme", live)
        subject = subjects.tool_job(self.pool, "interactive", 0, turn)
        await self.bus.send(subject, codec.encode(job), msg_id=job_msg_id(turn, 1, "tool", 0, 1))

    async def result(self, name: str) -> CallsReturned:
        return await self.results[f"{self.pool}-{name}"].get()

    async def emptied(self) -> None:
        """Return once the pool's consumer has nothing that is not acknowledged."""
        question = f"$JS.API.CONSUMER.INFO.KM_TOOL.{self.pool}-interactive-0"
        while True:
            info = msgspec.json.decode(await self.bus.request(question, b"", timeout_s=5))
            if info["num_pending"] == info["num_ack_pending"] == 0:
                return


@asynccontextmanager
async def sites(
    nats: OwnServer, mongo_url: str, stub: ToolStub, folder: Path, points: tuple[str, ...], **environ: str
) -> AsyncIterator[list[Site]]:
    """Prepare a pool for each point."""
    tool = {"kind": "http", "method": "POST", "allow_networks": LOOPBACK, "parameters": {"type": "object"}}
    pools = [f"kill-{folder.name}-{index}"[-60:] for index in range(len(points))]
    content = {
        "providers": {},
        "models": {},
        "tools": {
            "safe": {**tool, "url": f"{stub.url}/safe", "effect": "safe"},
            "keyed": {**tool, "url": f"{stub.url}/keyed/x", "effect": "keyed"},
            "once": {**tool, "url": f"{stub.url}/once", "effect": "once"},
            "slow": {**tool, "url": f"{stub.url}/once?mode=slow&delay_ms=600", "effect": "once"},
        },
        "pools": {"tool": {"default": {}, "webhooks": {}, **{pool: {} for pool in pools}}},
    }
    path = folder / "catalog.yaml"
    path.write_text(yaml.safe_dump(content))
    results: dict[str, asyncio.Queue[CallsReturned]] = {}

    def on_event(_: str, data: bytes) -> None:
        event = codec.EVENT.decode(data)
        assert isinstance(event, CallsReturned)
        results[event.turn].put_nowait(event)

    async with (
        open_bus(nats.url, name="executor-kills") as bus,
        open_database(mongo_url, name=DATABASE) as database,
        open_stores(database, SystemClock()) as stores,
    ):
        wanted = {topology.TOOL, topology.EVENT}
        specs = topology.topology(tool_pools=[topology.Pool(pool) for pool in pools])
        hasty = [
            spec._replace(consumers=tuple(each._replace(ack_wait_s=ACK_WAIT_S) for each in spec.consumers))
            for spec in specs
            if spec.name in wanted
        ]
        await topology_nats.apply(bus, hasty, replicas=1)
        await bus.subscribe("km.v1.event.call.returned.*", on_event)
        yield [
            Site(
                bus,
                stores.live_turns,
                Catalog.model_validate(content),
                pool,
                folder,
                {
                    **os.environ,
                    "KITEMESH_NATS_URL": nats.url,
                    "KITEMESH_MONGO_URL": mongo_url,
                    "KITEMESH_MONGO_DATABASE": DATABASE,
                    "KITEMESH_CATALOG": str(path),
                    "KITEMESH_HEALTH_PORT": "0",
                    "KITEMESH_POOL": pool,
                    "KITEMESH_LOG_FORMAT": "json",
                    "KITEMESH_FAILPOINT": f"{point}:kill@{folder / pool / 'armed'}",
                    **environ,
                },
                results,
            )
            for point, pool in zip(points, pools, strict=True)
        ]


async def killed(site: Site, process: "subprocess.Popen[bytes]") -> None:
    assert await asyncio.to_thread(process.wait, 30) == -signal.SIGKILL, site.said()


@pytest.mark.requirement("tool:effect-classes", "tool:outcome-unknown")
async def test_a_process_killed_at_any_failpoint_loses_no_call_and_repeats_no_effect(
    nats: OwnServer, mongo_url: str, stub: ToolStub, tmp_path: Path
) -> None:
    async with asyncio.timeout(90), sites(nats, mongo_url, stub, tmp_path, POINTS) as all_sites:
        children = {site.pool: site.start() for site in all_sites}

        async def kill(site: Site, *names: str) -> CallsReturned:
            site.arm()
            await site.send(*names)
            await killed(site, children[site.pool])
            children[site.pool] = site.start()
            event = await site.result(names[0])
            await site.emptied()
            return event

        try:
            # One after the other in a pool, since a death takes every job with it.
            repeatable = await asyncio.gather(*(kill(site, "keyed", "safe") for site in all_sites[1:4]))
            once = await asyncio.gather(*(kill(site, "once") for site in all_sites))
        finally:
            for child in children.values():
                processes.kill_group(child)
                child.wait()
    for site, event in zip(all_sites[1:4], repeatable, strict=True):
        assert [result.error for result in event.results] == [None, None], site.said()
        assert len(stub.effects(f"{site.pool}-keyed")) == 1
    for point, site, event in zip(POINTS, all_sites, once, strict=True):
        (result,) = event.results
        code = result.error.code if result.error else None
        told, effects = ONCE[point]
        assert (point, code) == (point, told)
        assert len(stub.effects(f"{site.pool}-once")) in effects
        # What is told twice is the same, and no log says what it was about.
        while not site.results[event.turn].empty():
            assert site.results[event.turn].get_nowait().results == event.results
        assert "argument" not in site.said()


async def test_on_sigterm_a_call_with_an_effect_ends_and_is_told(
    nats: OwnServer, mongo_url: str, stub: ToolStub, tmp_path: Path
) -> None:
    async with asyncio.timeout(60), sites(nats, mongo_url, stub, tmp_path, ("none",), KITEMESH_DRAIN_S="20") as (site,):
        process = site.start()
        try:
            await site.send("slow")
            while not stub.effects(f"{site.pool}-slow"):
                await site.bus.barrier()
            process.send_signal(signal.SIGTERM)
            (result,) = (await site.result("slow")).results
            assert result.error is None
            assert await asyncio.to_thread(process.wait, 30) == 0, site.said()
            await site.emptied()
        finally:
            processes.kill_group(process)
            process.wait()
