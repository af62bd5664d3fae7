"""What a network can do between the services and NATS or MongoDB: delay, hold, reset, swallow; to all, or to one."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from chaos.mongo_nodes import mongo_url, running_mongo
from chaos.nats_nodes import nats_url, running_nats
from chaos.stage import Inject, Stage, cluster_on
from chaos.tcp_proxy import Behaviour, TcpProxy, running_proxies

LASTS_S: Final = (1.0, 12.0)
"""Shorter and longer than what the services wait before they give a connection up."""
SLOW: Final = Behaviour(delay_ms=40, jitter_ms=40)
HELD: Final = Behaviour(held=True)
NO_UP: Final = Behaviour(swallowed="up")
NO_DOWN: Final = Behaviour(swallowed="down")


@contextlib.contextmanager
def proxy_stage(folder: Path, seed: int) -> Iterator[Stage]:
    """Stand on two servers behind proxies."""
    with (
        running_proxies(seed) as proxies,
        running_nats(folder) as nats,
        running_mongo(folder) as mongo,
    ):
        doors = {"NATS": proxies.to(nats.port), "MongoDB": proxies.to(mongo.port)}
        with cluster_on(
            folder,
            lambda _: network_faults(doors),
            KITEMESH_NATS_URL=nats_url(doors["NATS"].port),
            KITEMESH_MONGO_URL=mongo_url(doors["MongoDB"].port),
        ) as stage:
            yield stage


def network_faults(doors: Mapping[str, TcpProxy]) -> dict[str, Inject]:
    """Name what can happen on the way to each server."""
    return {f"{name} {kind}": partial(make, door) for kind, make in _KINDS.items() for name, door in doors.items()}


@contextlib.asynccontextmanager
async def _behave(behaviour: Behaviour, proxy: TcpProxy, rng: random.Random) -> AsyncIterator[None]:
    """Misbehave for a while; recovery is counted from the end of it."""
    proxy.behave(behaviour)
    try:
        await asyncio.sleep(rng.uniform(*LASTS_S))
    finally:
        proxy.heal()
    yield


@contextlib.asynccontextmanager
async def _behave_to_one(behaviour: Behaviour, proxy: TcpProxy, rng: random.Random) -> AsyncIterator[None]:
    """Misbehave to one connection; recovery is counted from the beginning, for the others go on."""
    link = rng.choice(proxy.links())
    proxy.behave(behaviour, link)
    try:
        yield
        await asyncio.sleep(rng.uniform(*LASTS_S))
    finally:
        proxy.heal()


@contextlib.asynccontextmanager
async def _reset(proxy: TcpProxy, rng: random.Random) -> AsyncIterator[None]:
    proxy.reset()
    yield


_KINDS: Final[dict[str, Callable[..., contextlib.AbstractAsyncContextManager[None]]]] = {
    "held": partial(_behave, HELD),
    "slow": partial(_behave, SLOW),
    "reset": _reset,
    "hears nothing": partial(_behave, NO_UP),
    "says nothing": partial(_behave, NO_DOWN),
    "holds one": partial(_behave_to_one, HELD),
    "hears one no more": partial(_behave_to_one, NO_UP),
    "tells one nothing": partial(_behave_to_one, NO_DOWN),
}
