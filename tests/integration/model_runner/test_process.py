"""The service as a process: it starts, works, and hands back on SIGTERM what does not finish in time."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import aiohttp
import msgspec
import pytest
import yaml

from integration.bus.rig import OwnServer
from integration.model_runner.rig import job_of
from kitemesh_cli import processes, servers
from kitemesh_contracts import codec, subjects, topology
from kitemesh_contracts.beats import Beat
from kitemesh_contracts.events import Event, StepGenerated, StepReleased
from kitemesh_model_runner.breaker import IN_A_ROW
from kitemesh_runtime import topology_nats
from kitemesh_runtime.bus_nats import open_bus
from upstream import Upstream

BEAT = msgspec.json.Decoder(Beat)


def said(log: Path) -> str:
    return log.read_text()


async def ready(port: int, log: Path) -> None:
    """Return once the process says that it is ready."""
    async with asyncio.timeout(30), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"http://{servers.LOOPBACK}:{port}/readyz") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientConnectorError:
                assert "service.died" not in said(log), said(log)


def environment(folder: Path, pool: str, port: int, url: str) -> dict[str, str]:
    """Write a catalog, and return what a service for one of its pools is told, but for where to connect to."""
    nobody = {"kind": "openai", "base_url": f"http://{servers.LOOPBACK}:9/v1", "retries": 0}
    catalog = {
        "providers": {"script": {"kind": "scripted"}, "stub": {"kind": "openai", "base_url": url}, "nobody": nobody},
        "models": {
            "scripted": {"provider": "script"},
            "stalled": {"provider": "stub"},
            "away": {"provider": "nobody"},
        },
        "pools": {"model": {pool: {"lanes": 2}, "default": {}}},
    }
    (folder / "catalog.yaml").write_text(yaml.safe_dump(catalog))
    return {
        **os.environ,
        "KITEMESH_MONGO_DATABASE": f"runner-{pool}",
        "KITEMESH_CATALOG": str(folder / "catalog.yaml"),
        "KITEMESH_HEALTH_PORT": str(port),
        "KITEMESH_POOL": pool,
        "KITEMESH_LOG_FORMAT": "json",
    }


@pytest.mark.requirement("classic:hand-back-on-drain", "log:no-content")
@pytest.mark.parametrize("signals", [1, 2], ids=["the drain runs out", "a second signal"])
@pytest.mark.parametrize("mode", ["classic", "durable"])
async def test_the_service_works_until_it_is_told_to_stop(
    nats: OwnServer, mongo_url: str, upstream: Upstream, tmp_path: Path, *, signals: int, mode: str
) -> None:
    pool = f"process-{signals}-{mode}"
    port = servers.free_port()
    log = tmp_path / "log"
    environ = environment(tmp_path, pool, port, upstream.url) | {
        "KITEMESH_NATS_URL": nats.url,
        "KITEMESH_MONGO_URL": mongo_url,
        "KITEMESH_DRAIN_S": "0.3" if signals == 1 else "60",
    }
    events: asyncio.Queue[Event] = asyncio.Queue()
    async with open_bus(nats.url, name="process-test") as bus, asyncio.timeout(60):
        specs = topology.topology(model_pools=[topology.Pool(pool, 2)])
        wanted = {topology.MODEL, topology.EVENT, topology.OUT}
        await topology_nats.apply(bus, [spec for spec in specs if spec.name in wanted], replicas=1)
        await bus.subscribe("km.v1.event.step.*.*", lambda _, data: events.put_nowait(codec.EVENT.decode(data)))  # type: ignore[arg-type]  # nothing here needs a parcel
        process = processes.spawn([sys.executable, "-m", "kitemesh_model_runner"], log, environ)
        try:
            await ready(port, log)
            for lane in (0, 1):
                job = job_of("@echo hello there")
                await bus.send(
                    subjects.model_job(pool, "interactive", lane, job.turn), codec.encode(job), msg_id=job.turn
                )
                event = await events.get()
                assert isinstance(event, StepGenerated)
                assert (event.turn, event.text) == (job.turn, "hello there")
            job = job_of(models=("stalled",), mode=mode, stored=mode == "durable")
            await bus.send(subjects.model_job(pool, "interactive", 1, job.turn), codec.encode(job), msg_id=job.turn)
            await upstream.records(came=1)
            for number in (signal.SIGTERM, signal.SIGINT)[:signals]:
                process.send_signal(number)
            released = await events.get()
            assert isinstance(released, StepReleased)
            assert bytes(released.job) == codec.encode(job)
            kept = await bus.last_of(topology.OUT, subjects.out_block(job.turn, job.step, job.attempt, 0))
            assert bool(kept) is (mode == "durable")
            (record,) = await upstream.records(ended=1)
            assert record["end"] == "disconnected"
            assert await asyncio.to_thread(process.wait, 20) == 0, said(log)
        finally:
            processes.kill_group(process)
            process.wait()
    assert '"event":"step.ended"' in said(log)
    assert "hello there" not in said(log)


@pytest.mark.requirement("routing:health")
async def test_the_service_says_which_models_are_not_well_and_its_metrics_which_provider(
    nats: OwnServer, mongo_url: str, tmp_path: Path
) -> None:
    pool, port, log = "process-health", servers.free_port(), tmp_path / "log"
    environ = environment(tmp_path, pool, port, "http://localhost/v1") | {
        "KITEMESH_NATS_URL": nats.url,
        "KITEMESH_MONGO_URL": mongo_url,
    }
    beats: asyncio.Queue[Beat] = asyncio.Queue()
    async with open_bus(nats.url, name="process-test") as bus, asyncio.timeout(60):
        specs = topology.topology(model_pools=[topology.Pool(pool, 2)])
        wanted = {topology.MODEL, topology.EVENT, topology.OUT}
        await topology_nats.apply(bus, [spec for spec in specs if spec.name in wanted], replicas=1)
        await bus.subscribe(subjects.beats_of("model-runner"), lambda _, data: beats.put_nowait(BEAT.decode(data)))
        process = processes.spawn([sys.executable, "-m", "kitemesh_model_runner"], log, environ)
        try:
            assert (await beats.get()).health == {}
            await ready(port, log)
            for _ in range(IN_A_ROW):
                job = job_of(models=("away",))
                await bus.send(subjects.model_job(pool, "batch", 0, job.turn), codec.encode(job), msg_id=job.turn)
            while not (health := (await beats.get()).health):
                pass
            assert list(health) == ["away"]
            # Down, unless the machine is so slow that it is tried again by now.
            assert health["away"] in {"down", "degraded"}
            states: set[str] = set()
            while not states & {f'kitemesh_upstream_state{{upstream="nobody"}} {state}' for state in ("1.0", "2.0")}:
                async with aiohttp.request("GET", f"http://{servers.LOOPBACK}:{port}/metrics") as response:
                    states = set((await response.text()).splitlines())
            assert 'kitemesh_upstream_state{upstream="stub"} 0.0' in states
        finally:
            processes.kill_group(process)
            process.wait()
