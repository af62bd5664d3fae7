"""The route of the cluster: who is there, what waits, what is well. It needs the scope `admin` or `operator`.

It tells nothing of any tenant. What cannot be asked at the moment is `null`: the rest is told all the same.
"""

import asyncio
from collections.abc import Awaitable
from typing import Final, TypeVar

from aiohttp import web

from kitemesh_contracts.codec import encode
from kitemesh_contracts.errors import KitemeshError
from kitemesh_contracts.topology import MODEL, TOOL, lane_consumers, topology
from kitemesh_gateway.administrators import Administrators
from kitemesh_gateway.dialects.base import JSON
from kitemesh_gateway.dialects.cluster_answers import (
    ClusterOut,
    DependenciesOut,
    DependencyOut,
    HoldsOut,
    UpstreamOut,
    queues_out,
    services_out,
)
from kitemesh_gateway.exchange import Exchange
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.catalog_file import CatalogHandle
from kitemesh_runtime.cluster_view import QueueView, queue_names, queue_views
from kitemesh_runtime.dead_letters import DeadLetters
from kitemesh_runtime.dependency import Dependency
from kitemesh_runtime.fleet import SILENCE_S, Fleet
from kitemesh_runtime.holds import Holds

T = TypeVar("T")

ASK_S: Final = 2.0
"""How long any one thing is asked for."""
_CONSUMERS: Final = {spec.name: tuple(each.name for each in spec.consumers) for spec in topology()}


class Cluster:
    """Answers what the cluster looks like.

    Args:
        administrators: Say who asks.
        fleet: Hears everybody's signs of life.
        catalog: Names what there should be.
        holds: Counted over all tenants.
        dead_letters: Counted.
        bus: Asked what waits where nobody works.
        bus_state: Of NATS.
        store_state: Of MongoDB.
        replica: This one.

    """

    def __init__(
        self,
        administrators: Administrators,
        fleet: Fleet,
        catalog: CatalogHandle,
        holds: Holds,
        dead_letters: DeadLetters,
        *,
        bus: Bus,
        bus_state: Dependency,
        store_state: Dependency,
        replica: str,
    ) -> None:
        self._administrators: Final = administrators
        self._fleet: Final = fleet
        self._catalog: Final = catalog
        self._holds: Final = holds
        self._dead_letters: Final = dead_letters
        self._bus: Final = bus
        self._bus_state: Final = bus_state
        self._store_state: Final = store_state
        self._replica: Final = replica

    async def read(self, exchange: Exchange) -> web.Response:
        """Tell what the cluster looks like."""
        await self._administrators.identify(exchange)
        catalog = self._catalog.current
        seen = self._fleet.seen()
        alive = [each for each in seen if each.silent_s <= SILENCE_S]
        names = queue_names(catalog.model_pools(), catalog.tool_pools())
        views = queue_views(names, self._fleet.backlogs(), alive)
        queues, is_open, oldest_s, letters = await asyncio.gather(
            asyncio.gather(*(self._counted(view) for view in views)),
            _asked(self._holds.count_open()),
            _asked(self._holds.oldest_open_s()),
            _asked(self._dead_letters.count()),
        )
        taken = {(view.stream, view.pool) for view in views if not view.is_unattended}
        answer = ClusterOut(
            gateway=self._replica,
            services=services_out(seen),
            queues=queues_out(queues),
            upstreams=tuple(
                UpstreamOut(
                    model=name,
                    pool=model.pool,
                    health=(self._fleet.health(name, pool=model.pool) or "ok")
                    if (MODEL, model.pool) in taken
                    else "unknown",
                )
                for name, model in sorted(catalog.models.items())
            ),
            holds=HoldsOut(open=is_open, oldest_s=None if oldest_s is None else round(oldest_s, 1)),
            dead_letters=letters,
            dependencies=DependenciesOut(nats=_dependency(self._bus_state), mongodb=_dependency(self._store_state)),
        )
        return exchange.respond(encode(answer), JSON)

    async def _counted(self, view: QueueView) -> QueueView:
        """Ask the bus what waits in a queue of which nobody speaks, because nobody works on it."""
        if not view.is_unattended:
            return view
        consumers = self._consumers_of(view)
        waiting = await asyncio.gather(*(_asked(self._bus.waiting(view.stream, each)) for each in consumers))
        known = tuple(each for each in waiting if each is not None)
        if not known or len(known) < len(waiting):
            return view
        return view._replace(waiting=sum(known), lanes=known if len(known) > 1 else ())

    def _consumers_of(self, view: QueueView) -> tuple[str, ...]:
        if view.stream not in {MODEL, TOOL}:
            return _CONSUMERS.get(view.stream, ())
        pools = self._catalog.current.pools
        part = (pools.model if view.stream == MODEL else pools.tool).get(view.pool)
        lanes = 0 if part is None else part.lanes
        return tuple(lane.consumer for lane in lane_consumers(view.pool, lanes) if lane.priority == view.priority)


async def _asked(question: Awaitable[T]) -> T | None:
    try:
        async with asyncio.timeout(ASK_S):
            return await question
    except (KitemeshError, TimeoutError):
        return None


def _dependency(state: Dependency) -> DependencyOut:
    return DependencyOut(up=state.is_up, since_s=round(state.since_s, 1), reason="" if state.is_up else state.reason)
