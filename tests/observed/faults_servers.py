"""What goes wrong with NATS and MongoDB: they stand still, die, are slow or full, or allow a service too little."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

from pymongo import MongoClient

from cluster import GROUP
from kitemesh_contracts.permissions import bus_rights
from kitemesh_contracts.topology import OUT
from kitemesh_runtime import usage_mongo
from kitemesh_runtime.access_mongo import role_of
from kitemesh_runtime.roles_mongo import ROLES
from observed.fault import Fault, beside, frozen, keep, many, process_ids, stutter
from observed.load import CHAT, Client, chat
from observed.stage import Stage
from tool_cluster import DATABASE

NATS_LIVES_S: Final = 3.5
KILLS: Final = 4
STREAMS: Final = 30
"""Of half a million characters each."""
ANSWERED_IN_MS: Final = 3000
"""Classic turns that were begun before MongoDB stood still end behind it."""


@contextlib.asynccontextmanager
async def a_subject_is_denied(stage: Stage, _client: Client) -> AsyncIterator[None]:
    """Take from the tool-executor's user the right to its signs of life, and have nats-server read that."""
    config = stage.cluster.data / "nats" / "nats.conf"
    text = config.read_text()
    (right,) = (each for each in bus_rights("tool-executor").publish if ".beat." in each)
    assert json.dumps(right) in text
    (server,) = process_ids(stage, "nats-server")
    config.write_text(text.replace(json.dumps(right), json.dumps("nothing")))
    os.kill(server, signal.SIGHUP)
    try:
        yield
    finally:
        config.write_text(text)
        os.kill(server, signal.SIGHUP)


@contextlib.asynccontextmanager
async def a_collection_is_denied(stage: Stage, _client: Client) -> AsyncIterator[None]:
    """Take from the orchestrator's role the right to count usage."""
    actions = list(ROLES["orchestrator"][usage_mongo.COLLECTION])
    privilege = {"resource": {"db": DATABASE, "collection": usage_mongo.COLLECTION}, "actions": actions}

    def change(verb: str) -> None:
        with _store(stage) as store:
            store[DATABASE].command(verb, role_of("orchestrator"), privileges=[privilege])

    await asyncio.to_thread(change, "revokePrivilegesFromRole")
    try:
        yield
    finally:
        await asyncio.to_thread(change, "grantPrivilegesToRole")


@contextlib.asynccontextmanager
async def frames_find_no_room(stage: Stage, client: Client) -> AsyncIterator[None]:
    """Give the stream of captured frames no memory, while durable streams run."""
    async with stage.bus() as bus:
        config = (await stage.ask(bus, f"STREAM.INFO.{OUT}"))["config"]
        full = json.dumps({**config, "max_bytes": 1, "discard": "new"}).encode()
        await stage.ask(bus, f"STREAM.UPDATE.{OUT}", full)
        try:
            body = chat("@delay_ms 50\n@count 40", GROUP, stream=True, metadata={"mode": "durable"})
            async with beside(keep(lambda: client.call(CHAT, body), every_s=1.0)):
                yield
        finally:
            await stage.ask(bus, f"STREAM.UPDATE.{OUT}", json.dumps(config).encode())


@contextlib.asynccontextmanager
async def nats_stands_still(stage: Stage, _client: Client) -> AsyncIterator[None]:
    """Freeze nats-server."""
    with frozen(*process_ids(stage, "nats-server")):
        yield


@contextlib.asynccontextmanager
async def nats_dies_again_and_again(stage: Stage, _client: Client) -> AsyncIterator[None]:
    """Kill nats-server as often as it is back."""

    async def kill() -> None:
        for _ in range(KILLS):
            with contextlib.suppress(KeyError):
                await asyncio.to_thread(stage.cluster.kill, "nats-server")
            await asyncio.sleep(NATS_LIVES_S)

    async with beside(kill()):
        yield


@contextlib.asynccontextmanager
async def a_gateway_does_not_read(stage: Stage, client: Client) -> AsyncIterator[None]:
    """Freeze a gateway to which NATS has much to say."""
    body = chat("@first_ms 1500\n@delay_ms 0\n@tokens 100000", GROUP, stream=True)
    async with beside(many(lambda: client.call(CHAT, body, origin=stage.origins[1]), STREAMS)):
        await asyncio.sleep(1)
        with frozen(*process_ids(stage, "gateway-b")):
            yield


@contextlib.asynccontextmanager
async def mongodb_is_slow(stage: Stage, _client: Client) -> AsyncIterator[None]:
    """Have mongod stand still for a second again and again."""
    async with beside(stutter(*process_ids(stage, "mongod"), still_s=0.9, moving_s=0.3)):
        yield


@contextlib.asynccontextmanager
async def mongodb_stands_still(stage: Stage, client: Client) -> AsyncIterator[None]:
    """Freeze mongod while classic turns are under way, and a key with limits is used."""
    made = await client.call("/v1/keys", {"scopes": ["chat"], "limits": {"requests_per_minute": 100_000}})
    limited = {"Authorization": f"Bearer {made['key']}"}
    body = chat(f"@first_ms {ANSWERED_IN_MS}\n@echo late", GROUP)
    async with beside(keep(lambda: client.call(CHAT, body, **limited), every_s=0.2)):
        await asyncio.sleep(2)
        with frozen(*process_ids(stage, "mongod")):
            yield


@contextlib.contextmanager
def _store(stage: Stage) -> Iterator[MongoClient[dict[str, Any]]]:
    with MongoClient[dict[str, Any]](stage.cluster.environment()["KITEMESH_MONGO_URL"]) as client:
        yield client


FAULTS: Final = (
    Fault("a subject is denied", ("KitemeshBusDenied",), a_subject_is_denied),
    Fault("a collection is denied", ("KitemeshStoreDenied", "KitemeshUsageLag"), a_collection_is_denied),
    Fault("frames find no room", ("KitemeshPostsGivenUp",), frames_find_no_room),
    Fault("NATS stands still", ("KitemeshNatsDown",), nats_stands_still),
    Fault("a gateway does not read", ("KitemeshSlowConsumer",), a_gateway_does_not_read),
    Fault("NATS dies again and again", ("KitemeshBusFlaps",), nats_dies_again_and_again),
    Fault("MongoDB is slow", ("KitemeshStoreSlow",), mongodb_is_slow),
    Fault(
        "MongoDB stands still",
        ("KitemeshMongoDown", "KitemeshWritesWaiting", "KitemeshLimitsLocal"),
        mongodb_stands_still,
    ),
)
