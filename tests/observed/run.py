"""One run: warm up, a healthy minute, then fault after fault until each has made its alerts fire."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from kitemesh_observability.panels import fill_in, queries
from kitemesh_observability.recording import RECORDINGS
from observed import faults_edge, faults_servers, faults_work
from observed.fault import Fault, until
from observed.load import Client, running_load
from observed.stage import Stage

WARM_UP_S: Final = 12.0
HEALTHY_S: Final = 60.0
FIRES_S: Final = 50.0
"""A fault whose alerts have not fired by then ends without them."""
SCALE: Final = 1 / 60
"""Of the rules' windows: a minute of production is a second here."""
RATE_INTERVAL: Final = "6s"

Say = Callable[[str], None]


class Fired(NamedTuple):
    """What became of one alert.

    Attributes:
        after_s: From the fault to the alert; `None` if it did not fire.

    """

    alert: str
    fault: str
    after_s: float | None


class Shown(NamedTuple):
    """How many series with data a query had at some time of the run."""

    dashboard: str
    panel: str
    expr: str
    series: int


class Found(NamedTuple):
    """What a run found.

    Attributes:
        early: Alerts that fired in the healthy minute.
        recorded: Series by recording rule.
        broken_rules: Those that could not be evaluated, and why.

    """

    fired: list[Fired]
    early: list[str]
    shown: list[Shown]
    recorded: dict[str, int]
    broken_rules: list[str]
    took_s: float


def scenes() -> list[list[Fault]]:
    """List what is wrong at the same time: faults that do not hide each other's alerts."""
    named = {fault.name: fault for fault in (*faults_edge.FAULTS, *faults_work.FAULTS, *faults_servers.FAULTS)}

    def take(*names: str) -> list[Fault]:
        return [named.pop(name) for name in names]

    edge = take(*(fault.name for fault in faults_edge.FAULTS))
    found = [
        edge,
        take(
            "a pool has no worker",
            "too much work",
            "a loop is held up",
            "frames find no room",
            "a subject is denied",
            "a collection is denied",
        ),
        take(
            "jobs are lost",
            "a runner dies again and again",
            "a message cannot be read",
            "executors die in mid-call",
        ),
        take("no executor answers", "a gateway does not read"),
        take("MongoDB is slow"),
        take("MongoDB stands still"),
        take("NATS stands still"),
        take("NATS dies again and again"),
    ]
    assert not named, f"never played: {sorted(named)}"
    return found


async def run(stage: Stage, *, say: Say) -> Found:
    """Do a whole run."""
    begun_s = time.time()
    prometheus = stage.prometheus
    async with running_load(stage.origins, stage.cluster.key) as load:
        await asyncio.sleep(WARM_UP_S)
        healthy_s = time.time()
        say(f"healthy for {HEALTHY_S:.0f} s: {dict(load.client.statuses)}")
        await asyncio.sleep(HEALTHY_S)
        early = sorted(
            {
                each.labels["alertname"]
                for each in prometheus.over('ALERTS{alertstate="firing"}', healthy_s, time.time())
            }
        )
        say(f"fired meanwhile: {', '.join(early) or 'nothing'}; broken: {load.reasons}")
        fired: list[Fired] = []
        async with stage.replicas.kept():
            for scene in scenes():
                fired += await _play(stage, load.client, scene, say)
    ended_s = time.time()
    return Found(
        fired,
        early,
        [
            Shown(
                each.dashboard, each.panel, each.expr, _data(stage, fill_in(each.expr, RATE_INTERVAL), begun_s, ended_s)
            )
            for each in queries()
        ],
        {each.name: _data(stage, each.name, begun_s, ended_s) for each in RECORDINGS},
        prometheus.unhealthy(),
        ended_s - begun_s,
    )


async def _play(stage: Stage, client: Client, scene: Sequence[Fault], say: Say) -> list[Fired]:
    found = await asyncio.gather(*(_inject(stage, client, fault, say) for fault in scene))
    return [each for fired in found for each in fired]


async def _inject(stage: Stage, client: Client, fault: Fault, say: Say) -> list[Fired]:
    """Have a fault until all its alerts fire, or it is in vain."""
    waiting, after_s = set(fault.alerts), dict[str, float]()

    async def silent() -> bool:
        return not waiting & await _firing(stage)

    async def all_fired() -> bool:
        fired = waiting & await _firing(stage)
        after_s.update(dict.fromkeys(fired, time.monotonic() - began_s))
        waiting.difference_update(fired)
        return not waiting

    before = "" if await until(silent) else "fires already; "
    began_s = time.monotonic()
    async with fault.inject(stage, client):
        await until(all_fired, timeout_s=FIRES_S)
    told = ", ".join(f"{alert} after {seconds:.0f} s" for alert, seconds in after_s.items())
    say(f"{fault.name}: {before}{told or 'nothing'}{'; not ' + ', '.join(sorted(waiting)) if waiting else ''}")
    return [Fired(alert, fault.name, after_s.get(alert)) for alert in fault.alerts]


async def _firing(stage: Stage) -> set[str]:
    return await asyncio.to_thread(stage.prometheus.firing)


def _data(stage: Stage, expr: str, begun_s: float, ended_s: float) -> int:
    return len(stage.prometheus.over(expr, begun_s, ended_s))
