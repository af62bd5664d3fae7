"""What can happen to MongoDB: of a replica set of three, the primary is killed or frozen."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from chaos.mongo_nodes import MongoSet, running_mongo_set
from chaos.nodes import Node
from chaos.stage import Inject, Stage, cluster_on
from chaos.waiting import await_true

LEFT_S: Final = (0.0, 2.0)
"""A member stays away for so long after the set has recovered without it."""
WHOLE_S: Final = 60.0


@contextlib.contextmanager
def mongo3_stage(folder: Path, seed: int) -> Iterator[Stage]:
    """Stand on a replica set."""
    with running_mongo_set(folder) as mongo:
        faults = three_member_faults(mongo)
        with cluster_on(folder, lambda _: faults, KITEMESH_MONGO_URL=mongo.url) as stage:
            yield stage


def three_member_faults(mongo: MongoSet) -> dict[str, Inject]:
    """Name what can happen to the primary; recovery is counted from the moment that it happens."""
    return {
        "primary killed": partial(_lose, mongo, Node.kill, Node.start),
        "primary frozen": partial(_lose, mongo, Node.freeze, Node.thaw),
    }


@contextlib.asynccontextmanager
async def _lose(
    mongo: MongoSet, lose: Callable[[Node], None], restore: Callable[[Node], None], rng: random.Random
) -> AsyncIterator[None]:
    primary = mongo.nodes[await asyncio.to_thread(mongo.primary)]
    lose(primary)
    try:
        yield
        await asyncio.sleep(rng.uniform(*LEFT_S))
    finally:
        restore(primary)
    await asyncio.to_thread(await_true, mongo.is_whole, "the replica set is whole", timeout_s=WHOLE_S)
