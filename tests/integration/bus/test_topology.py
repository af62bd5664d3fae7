"""Bootstrap against the real server: idempotent, careful, exact about what it refuses."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from integration.bus.rig import OwnServer, jetstream
from kitemesh_contracts.errors import Conflict, Unavailable
from kitemesh_contracts.topology import Pool, topology
from kitemesh_runtime.bus_nats import NatsBus, open_bus
from kitemesh_runtime.jetstream_nats import Refused
from kitemesh_runtime.topology_nats import apply, check


@pytest.fixture
async def fresh(tmp_path: Path) -> AsyncIterator[NatsBus]:
    """A connection to a server without any stream."""
    server = OwnServer(tmp_path)
    try:
        async with open_bus(server.url, name="bootstrap") as bus:
            yield bus
    finally:
        server.kill()


async def stream_config(bus: NatsBus, name: str) -> dict[str, object]:
    config: dict[str, object] = (await jetstream(bus, f"STREAM.INFO.{name}"))["config"]
    return config


@pytest.mark.requirement("bootstrap:idempotent")
async def test_the_whole_topology_is_made_once_and_a_second_run_changes_nothing(fresh: NatsBus) -> None:
    done = await apply(fresh, topology(), replicas=1)
    consumers = sum(len(spec.consumers) for spec in topology())
    assert len(done) == len(topology()) + consumers
    assert done[0] == "created stream KM_TURN"
    assert await apply(fresh, topology(), replicas=1) == []
    await check(fresh, topology())


async def test_the_server_has_what_the_topology_says(fresh: NatsBus) -> None:
    await apply(fresh, topology(), replicas=1)
    turn, out, timer = [await stream_config(fresh, name) for name in ("KM_TURN", "KM_OUT", "KM_TIMER")]
    assert (turn["retention"], turn["discard"], turn["max_msgs"]) == ("workqueue", "new", 10_000)
    assert (turn["max_age"], turn["duplicate_window"]) == (3600 * 10**9, 600 * 10**9)
    assert (out["storage"], out["allow_direct"], out["max_bytes"]) == ("memory", True, 256 * 1024 * 1024)
    assert timer["allow_msg_schedules"] is True
    consumer = (await jetstream(fresh, "CONSUMER.INFO.KM_MODEL.default-interactive-0"))["config"]
    assert (consumer["ack_wait"], consumer["max_deliver"], consumer["max_ack_pending"]) == (6 * 10**9, 4, 10_000)


async def test_safe_differences_are_updated_and_foreign_settings_kept(fresh: NatsBus) -> None:
    await apply(fresh, topology(), replicas=1)
    config = await stream_config(fresh, "KM_TURN")
    await jetstream(fresh, "STREAM.UPDATE.KM_TURN", {**config, "description": "the operator's", "max_msgs": 5})
    assert await apply(fresh, topology(), replicas=1) == ["changed max_msgs of stream KM_TURN from 5 to 10000"]
    config = await stream_config(fresh, "KM_TURN")
    assert (config["description"], config["max_msgs"]) == ("the operator's", 10_000)


async def test_a_new_pool_is_added_and_a_removed_one_is_mentioned_not_deleted(fresh: NatsBus) -> None:
    await apply(fresh, topology([Pool("default")]), replicas=1)
    assert await apply(fresh, topology([Pool("gpu", lanes=2)]), replicas=1) == [
        "created consumer gpu-interactive-0 of stream KM_MODEL",
        "created consumer gpu-interactive-1 of stream KM_MODEL",
        "created consumer gpu-batch-0 of stream KM_MODEL",
        "created consumer gpu-batch-1 of stream KM_MODEL",
        "left consumer default-batch-0 of stream KM_MODEL alone: the topology does not name it",
        "left consumer default-interactive-0 of stream KM_MODEL alone: the topology does not name it",
    ]
    await jetstream(fresh, "CONSUMER.INFO.KM_MODEL.default-interactive-0")


async def test_a_priority_that_is_new_is_added_beside_the_queues_that_hold_work(fresh: NatsBus) -> None:
    before = [
        spec._replace(consumers=tuple(each for each in spec.consumers if "-batch-" not in each.name))
        for spec in topology()
    ]
    await apply(fresh, before, replicas=1)
    await fresh.send("km.v1.model.default.interactive.0.t", b"x", msg_id="1")
    assert await apply(fresh, topology(), replicas=1) == [
        "created consumer default-batch-0 of stream KM_MODEL",
        "created consumer default-batch-0 of stream KM_TOOL",
    ]
    assert await fresh.waiting("KM_MODEL", "default-interactive-0") == 1


@pytest.mark.requirement("bootstrap:drift-is-refused")
async def test_every_incompatible_difference_is_listed_and_nothing_is_changed(fresh: NatsBus) -> None:
    await jetstream(
        fresh,
        "STREAM.CREATE.KM_TURN",
        {"name": "KM_TURN", "subjects": ["km.v1.turn.start.*", "mine.>"], "storage": "memory"},
    )
    await jetstream(fresh, "STREAM.CREATE.OTHER", {"name": "OTHER", "subjects": ["km.v1.event.>"]})
    with pytest.raises(Conflict) as caught:
        await apply(fresh, topology(), replicas=1)
    assert caught.value.message.splitlines() == [
        "The server's streams do not fit the topology; nothing was changed.",
        "- stream KM_TURN: retention is limits, the topology says workqueue",
        "- stream KM_TURN: storage is memory, the topology says file",
        "- stream KM_TURN: subject mine.> is not in the topology",
        "- stream KM_EVENT: subject km.v1.event.*.*.* overlaps km.v1.event.> of stream OTHER",
    ]
    names = await jetstream(fresh, "STREAM.NAMES")
    assert sorted(names["streams"]) == ["KM_TURN", "OTHER"]


async def test_what_the_server_refuses_is_said_in_its_words(fresh: NatsBus) -> None:
    with pytest.raises(Refused, match="replicas > 1 not supported in non-clustered mode"):
        await apply(fresh, topology(), replicas=3)


async def test_a_check_names_what_is_missing_and_the_command_that_makes_it(fresh: NatsBus) -> None:
    await apply(fresh, topology(), replicas=1)
    await jetstream(fresh, "STREAM.DELETE.KM_OUT")
    await jetstream(fresh, "CONSUMER.DELETE.KM_TURN.orchestrator-turn")
    with pytest.raises(Unavailable) as caught:
        await check(fresh, topology())
    assert caught.value.message == (
        "Missing on the message bus: stream KM_OUT, consumer orchestrator-turn of stream KM_TURN; "
        "run `kitemesh bootstrap`."
    )


async def test_more_consumers_than_one_page_are_all_seen(fresh: NatsBus) -> None:
    pools = [Pool("default", lanes=300)]
    await apply(fresh, topology(pools), replicas=1)
    assert await apply(fresh, topology(pools), replicas=1) == []
