"""`GET /v1/cluster` over HTTP, on two gateways that hear the same signs of life."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from integration.bus.rig import OwnServer
from integration.gateway.rig import TENANT, Rig, get, key_record, open_rig
from kitemesh_contracts import subjects
from kitemesh_contracts.beats import Beat, Queue
from kitemesh_contracts.codec import encode
from kitemesh_contracts.errors import ErrorCode, Unavailable
from kitemesh_contracts.topology import MODEL
from kitemesh_runtime import keyring
from kitemesh_runtime.holds import HeldCall, Hold

PATH = "/v1/cluster"
ADMIN = keyring.make(bytes(range(2, 42)))
OPERATOR = keyring.make(bytes(range(4, 44)))
CHAT = keyring.make(bytes(range(6, 46)))


class Pair(NamedTuple):
    """Two gateways on the same stores and bus."""

    here: Rig
    there: Rig

    def say(self, service: str, replica: str, *queues: Queue, **fields: Any) -> None:
        values: dict[str, Any] = {"version": "1.0.0", "load": 1, "slots": 4, "up_s": 7.5, **fields}
        said = Beat(service=service, replica=replica, queues=queues, **values)
        self.here.cluster.bus.publish(subjects.beat(service, replica), encode(said))

    async def shown(self, rig: Rig, when: Callable[[dict[str, Any]], bool], key: str = ADMIN.text) -> dict[str, Any]:
        """Return what a gateway says once it is so; it hears asynchronously, and reckons twice a second."""
        async with asyncio.timeout(5):
            while True:
                answer = await rig.ask(get(PATH, key=key))
                assert answer.status == 200, answer.body
                found: dict[str, Any] = answer.json()
                if when(found):
                    return found


@pytest.fixture
async def pair(gateway_server: OwnServer, tmp_path: Path) -> AsyncIterator[Pair]:
    folders = [tmp_path / name for name in ("here", "there")]
    for folder in folders:
        folder.mkdir()
    async with open_rig(gateway_server.url, folders[0], replica="cl-here", is_worked=False) as here:
        keys = here.stores.keys
        await keys.put(TENANT, key_record(ADMIN, scopes=("admin",)))
        await keys.put("ops", key_record(OPERATOR, scopes=("operator",), tenant="ops"))
        await keys.put(TENANT, key_record(CHAT))
        async with open_rig(
            gateway_server.url, folders[1], replica="cl-there", is_worked=False, shared=here.stores
        ) as there:
            yield Pair(here, there)


def service(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in found["services"] if each["service"] == name)


def queue(found: dict[str, Any], stream: str, pool: str = "", priority: str = "") -> dict[str, Any]:
    return next(
        each for each in found["queues"] if (each["stream"], each["pool"], each["priority"]) == (stream, pool, priority)
    )


@pytest.mark.requirement("cluster:view")
async def test_two_gateways_tell_the_same_of_replicas_queues_upstreams_and_holds(pair: Pair) -> None:
    waits = Queue(stream=MODEL, pool="default", priority="interactive", waiting=12, done=5)
    idle = Queue(stream=MODEL, pool="default", priority="batch")
    pair.say("model-runner", "run-1", waits, idle, load=4, health={"scripted": "degraded"})
    pair.say("model-runner", "run-2", waits, idle, load=4, version="0.9.0")
    call = HeldCall(id="c", name="t", version="1", effect="once", arguments="{}", sha256="", sentence="", shown="{}")
    hold = Hold(id="h", tenant="other", turn="t", step=1, model="m", calls=(call,))
    await pair.here.stores.holds.open("other", hold, expires_after_s=60)

    def is_heard(found: dict[str, Any]) -> bool:
        return queue(found, MODEL, "default", "interactive")["workers"] == 2

    here, there = [await pair.shown(rig, is_heard) for rig in (pair.here, pair.there)]
    assert (here["gateway"], there["gateway"]) == ("cl-here", "cl-there")
    runners = service(here, "model-runner")
    assert runners["versions"] == ["0.9.0", "1.0.0"]
    assert [(each["replica"], each["state"], each["up_s"], each["slots"]) for each in runners["replicas"]] == [
        ("run-1", "alive", 7.5, 4),
        ("run-2", "alive", 7.5, 4),
    ]
    shown = queue(here, MODEL, "default", "interactive")
    assert (shown["waiting"], shown["slots"], shown["drain_rate"]) == (12, 8, 0.0)
    assert {each["model"]: each["health"] for each in here["upstreams"]} == {
        "scripted": "degraded",
        "org/name:tag": "ok",
    }
    assert here["holds"]["open"] == 1
    assert here["holds"]["oldest_s"] >= 0
    assert here["dead_letters"] == 0
    assert here["dependencies"]["mongodb"]["up"] is True
    assert [each["service"] for each in here["services"]] == [
        "gateway",
        "orchestrator",
        "model-runner",
        "tool-executor",
    ]
    agreed = ("queues", "upstreams", "dead_letters")
    assert {name: here[name] for name in agreed} == {name: there[name] for name in agreed}
    assert [each["replica"] for each in service(there, "model-runner")["replicas"]] == ["run-1", "run-2"]


async def test_a_queue_that_nobody_takes_from_is_shown_with_what_waits_in_it(pair: Pair) -> None:
    turn = "cluster-unattended"
    found = await pair.shown(pair.there, lambda found: queue(found, "KM_CONTROL")["waiting"] is not None)
    # The server is shared: what a turn of another test left may wait as well.
    before = queue(found, "KM_CONTROL")["waiting"]
    await pair.here.cluster.bus.send(subjects.control_cancel(turn), b"{}", msg_id=turn)
    found = await pair.shown(pair.there, lambda found: queue(found, "KM_CONTROL")["waiting"] == before + 1)
    assert queue(found, "KM_CONTROL")["workers"] == 0
    assert queue(found, "KM_TOOL", "default", "batch")["waiting"] == 0
    assert {each["health"] for each in found["upstreams"]} == {"unknown"}


async def test_a_clock_that_is_ahead_is_told_and_one_that_says_nothing_is_not(pair: Pair) -> None:
    pair.say("tool-executor", "ahead", now_ms=int(asyncio.get_running_loop().time()) + 4_000_000_000_000)
    pair.say("tool-executor", "silent-of-it")
    found = await pair.shown(pair.here, lambda found: len(service(found, "tool-executor")["replicas"]) == 2)
    ahead, silent = service(found, "tool-executor")["replicas"]
    assert ahead["clock_skew_ms"] > 1_000_000_000_000
    assert silent["clock_skew_ms"] is None


async def test_it_needs_the_scope_of_an_administrator_or_an_operator(pair: Pair) -> None:
    refused = await pair.here.ask(get(PATH, key=CHAT.text))
    assert (refused.status, refused.json()["code"]) == (403, "permission.denied")
    assert (await pair.here.ask(get(PATH, key=OPERATOR.text))).status == 200
    assert (await pair.here.ask(get(PATH, key=None))).status == 401


async def test_what_the_store_does_not_tell_is_null_and_the_rest_is_told(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost() -> int:
        raise Unavailable(ErrorCode.STORE_DOWN, "the store is away")

    await pair.shown(pair.here, lambda _: True)
    monkeypatch.setattr(pair.here.stores.holds, "count_open", lost)
    pair.here.store_state.mark_down("the store is away")
    found = await pair.shown(pair.here, lambda found: not found["dependencies"]["mongodb"]["up"])
    assert found["holds"]["open"] is None
    assert found["dependencies"]["mongodb"]["reason"] == "the store is away"
    assert found["dead_letters"] == 0
