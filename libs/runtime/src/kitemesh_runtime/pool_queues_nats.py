"""Which pools of a catalog have no queues: their jobs would be stored where nobody ever takes them.

The queues are made by `kitemesh bootstrap` alone; here they are only looked for, with one question for each stream.
"""

from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import Struct

from kitemesh_contracts.topology import MODEL, PRIORITIES, TOOL, Pool, lane_consumer
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.catalog import Catalog
from kitemesh_runtime.jetstream_nats import NOT_FOUND, Refused, ask
from kitemesh_runtime.topology_nats import BOOTSTRAP


class _Names(Struct, frozen=True, kw_only=True):
    total: int = 0
    consumers: list[str] | None = None


_NAMES: Final = msgspec.json.Decoder(_Names)


async def find_missing(bus: Bus, catalog: Catalog) -> list[str]:
    """Return a sentence for each pool that lacks a queue, beginning with its place in the catalog.

    Raises:
        Unavailable: JetStream does not answer.

    """
    model = await _list(bus, MODEL)
    tool = await _list(bus, TOOL)
    return [*_missing("model", catalog.model_pools(), model), *_missing("tool", catalog.tool_pools(), tool)]


def _missing(kind: str, pools: Iterable[Pool], there: set[str]) -> Iterable[str]:
    for pool in pools:
        wanted = [lane_consumer(pool.name, priority, lane) for priority in PRIORITIES for lane in range(pool.lanes)]
        missing = [name for name in wanted if name not in there]
        if missing:
            what = "it has no queues" if len(missing) == len(wanted) else f"queues are missing: {', '.join(missing)}"
            yield f"pools.{kind}.{pool.name}: {what}; {BOOTSTRAP} with this catalog"


async def _list(bus: Bus, stream: str) -> set[str]:
    names: set[str] = set()
    while True:
        try:
            page = await ask(bus, f"CONSUMER.NAMES.{stream}", {"offset": len(names)}, _NAMES)
        except Refused as exc:
            if exc.error.code == NOT_FOUND:
                return set()
            raise
        names |= set(page.consumers or ())
        if not page.consumers or len(names) >= page.total:
            return names
