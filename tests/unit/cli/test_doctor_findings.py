"""What `kitemesh doctor` says of facts: nothing of those that are well, and one check of each that is not."""

from typing import Any

import pytest
from msgspec.structs import replace

from kitemesh_cli.doctor import public, told
from kitemesh_cli.doctor_facts import (
    AccessFacts,
    BusFacts,
    CatalogFacts,
    ConsumerFact,
    Facts,
    FleetFacts,
    GatewayFacts,
    Heard,
    StoreFacts,
    StreamFact,
)
from kitemesh_cli.doctor_findings import CHECKS, Verdict, is_well, judge
from kitemesh_contracts.beats import Beat, Queue
from kitemesh_contracts.permissions import SERVICES
from kitemesh_contracts.topology import MODEL, TOOL, TURN, topology
from kitemesh_runtime.topology_plan import consumer_config, stream_config

WANTED = topology()
QUEUES = {"model-runner": MODEL, "tool-executor": TOOL, "orchestrator": TURN}


def heard(service: str, *, silent_s: float = 0.5, skew_ms: float = 3.0, **said: Any) -> Heard:
    stream = QUEUES.get(service)
    pool = "default" if service in {"model-runner", "tool-executor"} else ""
    queues = () if stream is None else (Queue(stream=stream, pool=pool),)
    said = {"service": service, "replica": f"{service}-1", "version": "1.0", "load": 0, "queues": queues, **said}
    return Heard(Beat(**said), silent_s, skew_ms)


STREAMS = {
    spec.name: StreamFact(
        config=stream_config(spec, 3),
        consumers={each.name: ConsumerFact(config=consumer_config(each)) for each in spec.consumers},
    )
    for spec in WANTED
}
FLEET = FleetFacts(listened_s=4.5, heard=tuple(map(heard, SERVICES)), waits={(TURN, ""): 0.0})
WELL = Facts(
    release="1.0",
    wanted=WANTED,
    replicas=None,
    turn_queue_max=None,
    out_max_bytes=None,
    bus=BusFacts(address="nats://n", streams=STREAMS, skew_ms=2),
    store=StoreFacts(address="mongodb://m", replica_set="rs0", usage_lag_s=40.0, skew_ms=-4),
    fleet=FLEET,
    gateway=GatewayFacts(url="http://g", status=200),
    catalog=CatalogFacts(path="catalog.yaml", model_pools=("default",), tool_pools=("default",)),
    pepper_characters=64,
    access=tuple(AccessFacts(service=service) for service in SERVICES),
    disk_free_ratio=0.5,
)


def bus(**changed: Any) -> Facts:
    return replace(WELL, bus=replace(WELL.bus, **changed))


def store(**changed: Any) -> Facts:
    return replace(WELL, store=replace(WELL.store, **changed))


def fleet(*replicas: Heard, **changed: Any) -> Facts:
    return replace(WELL, fleet=replace(FLEET, heard=replicas or FLEET.heard, **changed))


def others(service: str) -> list[Heard]:
    return [each for each in FLEET.heard if each.beat.service != service]


def stream(name: str, **changed: Any) -> dict[str, StreamFact]:
    return {**STREAMS, name: replace(STREAMS[name], **changed)}


def consumers(name: str, **changed: ConsumerFact | None) -> dict[str, StreamFact]:
    kept = {**STREAMS[name].consumers, **{key.replace("_", "-"): value for key, value in changed.items()}}
    return stream(name, consumers={key: value for key, value in kept.items() if value is not None})


def waiting(name: str, consumer: str, pending: int) -> dict[str, StreamFact]:
    fact = STREAMS[name].consumers[consumer]
    return consumers(name, **{consumer.replace("-", "_"): replace(fact, pending=pending)})


def access(**changed: Any) -> Facts:
    return replace(WELL, access=(AccessFacts(service="orchestrator", **changed),))


BROKEN = [
    (bus(reach="unreachable", why="refused", streams={}), "nats.reachable", "fail", "nats://n"),
    (bus(reach="refused", streams={}), "nats.user", "fail", "nats://n"),
    (bus(jetstream=False, streams={}), "nats.jetstream", "fail", "nats://n"),
    (bus(leaderless=["KM_TURN"]), "nats.leaders", "fail", "KM_TURN"),
    (bus(streams={k: v for k, v in STREAMS.items() if k != "KM_OUT"}), "nats.streams", "fail", "KM_OUT"),
    (bus(streams=consumers(TURN, orchestrator_turn=None)), "nats.consumers", "fail", "KM_TURN/orchestrator-turn"),
    (
        bus(streams=stream(TURN, config={**STREAMS[TURN].config, "retention": "limits"})),
        "nats.configuration",
        "fail",
        "KM_TURN",
    ),
    (bus(storage_bytes=90, storage_max_bytes=100), "nats.storage", "fail", "JetStream"),
    (bus(streams=stream(TURN, messages=9_000)), "nats.storage", "warn", "KM_TURN"),
    (replace(WELL, disk_free_ratio=0.01), "nats.storage", "fail", "disk"),
    (store(reach="unreachable"), "mongodb.reachable", "fail", "mongodb://m"),
    (store(reach="refused"), "mongodb.user", "fail", "mongodb://m"),
    (store(primary=False), "mongodb.primary", "fail", "rs0"),
    (store(replica_set=""), "mongodb.replica-set", "warn", "mongodb://m"),
    (store(missing=["turns.due"]), "mongodb.indexes", "fail", "turns.due"),
    (store(differing=["turns.due"]), "mongodb.indexes", "fail", "turns.due"),
    (access(bus="refused"), "access.nats", "fail", "orchestrator"),
    (access(bus="unreachable"), "access.nats", "fail", "orchestrator"),
    (access(denied=["hear x"]), "access.nats", "fail", "orchestrator"),
    (access(store="refused"), "access.mongodb", "fail", "orchestrator"),
    (access(lacking=["find in turns"]), "access.mongodb", "fail", "orchestrator"),
    (replace(WELL, pepper_characters=0), "pepper", "warn", "KITEMESH_KEY_PEPPER"),
    (replace(WELL, pepper_characters=15), "pepper", "fail", "KITEMESH_KEY_PEPPER"),
    (replace(WELL, catalog=CatalogFacts(path="c", problems=["models: x"])), "catalog", "fail", "c"),
    (fleet(*others("gateway")), "services.present", "fail", "gateway"),
    (
        replace(WELL, catalog=replace(WELL.catalog, model_pools=("default", "gpu"))),
        "services.present",
        "fail",
        "model-runner/gpu",
    ),
    (
        fleet(*others("gateway"), heard("gateway", silent_s=4.0)),
        "services.silent",
        "warn",
        "gateway/gateway-1",
    ),
    (fleet(*others("gateway"), heard("gateway", version="0.9")), "services.versions", "warn", "gateway/gateway-1"),
    (fleet(*others("gateway"), heard("gateway", skew_ms=1100)), "services.clocks", "warn", "gateway/gateway-1"),
    (store(skew_ms=-90_000), "services.clocks", "warn", "MongoDB"),
    (
        replace(
            fleet(heard("gateway"), heard("orchestrator"), heard("model-runner")),
            bus=bus(streams=waiting(TOOL, "default-batch-0", 3)).bus,
            catalog=replace(WELL.catalog, tool_pools=()),
        ),
        "queues.attended",
        "fail",
        "KM_TOOL/default-batch-0",
    ),
    (fleet(waits={(MODEL, "gpu"): 61.0}), "queues.wait", "warn", "KM_MODEL/gpu"),
    (bus(dead=2), "dead-letters", "warn", "KM_DEAD"),
    (
        fleet(*others("model-runner"), heard("model-runner", health={"m": "down"})),
        "upstreams",
        "warn",
        "m",
    ),
    (replace(WELL, gateway=GatewayFacts(url="http://g", why="refused")), "gateway", "fail", "http://g"),
    (replace(WELL, gateway=GatewayFacts(url="http://g", status=401)), "gateway", "fail", "http://g"),
    (replace(WELL, gateway=GatewayFacts(url="http://g", status=503)), "gateway", "fail", "http://g"),
    (store(usage_lag_s=3600.0), "usage", "warn", "usage"),
]


def unusual(verdicts: list[Verdict]) -> dict[str, Verdict]:
    return {each.check: each for each in verdicts if each.level not in {"ok", "untold"}}


def test_nothing_is_said_of_a_cluster_that_is_well() -> None:
    verdicts = judge(WELL)
    assert [each.level for each in verdicts] == ["ok"] * len(CHECKS)
    assert is_well(verdicts)


@pytest.mark.parametrize(("facts", "check", "level", "about"), BROKEN, ids=[f"{b[1]}-{b[3]}" for b in BROKEN])
def test_one_check_names_each_thing_that_is_wrong(facts: Facts, check: str, level: str, about: str) -> None:
    verdicts = judge(facts)
    found = unusual(verdicts)
    assert list(found) == [check]
    assert found[check].level == level
    assert [each.about for each in found[check].findings] == [about]
    assert all(each.problem and each.advice for each in found[check].findings)
    assert is_well(verdicts) == (level == "warn")


def test_every_check_can_find_something() -> None:
    assert {each.id for each in CHECKS} == {check for _, check, _, _ in BROKEN}


def test_what_follows_from_something_else_is_not_told_twice() -> None:
    verdicts = judge(replace(bus(reach="unreachable", streams={}), fleet=None, access=None))
    assert {each.check for each in verdicts if each.level == "untold"} >= {
        "nats.user",
        "nats.streams",
        "access.nats",
        "services.present",
        "queues.wait",
        "dead-letters",
    }
    assert list(unusual(verdicts)) == ["nats.reachable"]


def test_services_that_cannot_reach_what_nobody_reaches_are_no_news() -> None:
    facts = store(reach="unreachable")
    facts = replace(facts, access=[replace(each, store="unreachable") for each in facts.access or ()])
    assert list(unusual(judge(facts))) == ["mongodb.reachable"]


def test_what_is_told_to_people_and_to_programs_is_the_same() -> None:
    verdicts = judge(store(missing=["turns.due\x1b[2J"]))
    document = public(verdicts)
    assert document["healthy"] is False
    assert [each["id"] for each in document["checks"]] == [each.id for each in CHECKS]
    text = told(verdicts)
    assert "\x1b" not in text
    assert "FAIL  mongodb.indexes" in text
    assert text.endswith(f"{len(CHECKS) - 1} well, 0 doubtful, 1 failed, 0 not told")


def test_a_number_of_copies_that_nobody_named_is_not_judged() -> None:
    assert judge(replace(WELL, replicas=3)) == judge(WELL)
    found = unusual(judge(replace(WELL, replicas=1)))
    assert list(found) == ["nats.configuration"]
    assert len(found["nats.configuration"].findings) == len(WANTED)


def test_without_tools_nobody_misses_tool_executors() -> None:
    facts = replace(fleet(*others("tool-executor")), catalog=replace(WELL.catalog, tool_pools=()))
    assert unusual(judge(facts)) == {}
