"""A turn that is given up in a whole cluster, and goes on once an operator requeues it."""

import asyncio
import concurrent.futures
import os
from typing import Any

import msgspec
import pytest

from cluster import Cluster
from contract.messages import START
from kitemesh_contracts import subjects
from kitemesh_contracts.codec import encode
from kitemesh_contracts.events import CallsReturned
from kitemesh_orchestrator import carried
from kitemesh_orchestrator.states import Generating
from kitemesh_runtime.bus_nats import open_bus
from tool_cluster import Gateway, ToolCluster, calling, make_keys, question, until

FOREIGN = carried.save(Generating(start=msgspec.structs.replace(START, turn="another"), ordinal=0, step=1, attempt=1))
"""What no event of a turn may carry."""


def poison(cluster: Cluster, turn: str, tenant: str) -> None:
    """Tell the orchestrators something of a turn that none of them can handle."""
    event = CallsReturned(turn=turn, tenant=tenant, step=1, attempt=1, results=(), carry=FOREIGN)

    async def send() -> None:
        async with open_bus(cluster.environment()["KITEMESH_NATS_URL"], name="poison") as bus:
            await bus.send(subjects.event("call.returned", turn), encode(event), msg_id=f"poison-{turn}")

    asyncio.run(send())


def letters(gateway: Cluster, key: str, turn: str) -> list[dict[str, Any]]:
    page = gateway.call("/v1/dead?limit=100", key=key)
    assert page.status == 200, page.body
    return [letter for letter in page.json()["data"] if letter["turn"] == turn]


@pytest.mark.requirement("dead:requeue")
@pytest.mark.requirement("dead:routes")
def test_a_turn_that_was_given_up_is_requeued_once_and_its_effects_happen_once(
    desk: ToolCluster, one: Cluster, two: Gateway
) -> None:
    tag = f"requeued-{os.getpid()}"
    operator, admin = make_keys(one, ("ops", ("operator",)), ("ops", ("admin",)))
    # The first effect is over and the second one is under way when its turn is given up.
    second = calling(("charge", {"id": f"{tag}-slow", "mode": "slow", "delay_ms": "1500"}))
    text = calling(("note", {"id": tag}), then=second)
    body = question(text, conversation_id=None) | {"mode": "durable"}
    accepted = one.call("/v1/executions", body)
    assert accepted.status == 202, accepted.body
    turn = accepted.json()["id"]
    until(lambda: len(one.call(f"/v1/executions/{turn}").json()["steps"]) == 2)
    with desk.store() as database:
        tenant = database["turns"].find_one({"_id": turn}, {"tenant": 1})["tenant"]
    poison(one, turn, tenant)
    failed = until(lambda: (shown := one.call(f"/v1/executions/{turn}").json())["status"] == "failed" and shown)
    assert failed["error"]["code"] == "turn.exhausted"
    assert "given_up" not in failed

    (letter,) = until(lambda: letters(two, operator, turn))
    assert (letter["stream"], letter["kind"], letter["requeueable"], letter["why"]) == (
        "KM_EVENT",
        "event.call.returned",
        True,
        "",
    )
    shown = two.call(f"/v1/dead/{letter['id']}", key=operator).json()
    assert (shown["tenant"], shown["status"], shown["steps"]) == (tenant, "failed", 1)
    assert shown["effects"][0]["state"] == "finished"
    refused = two.call(f"/v1/dead/{letter['id']}/requeue", {}, key=admin)
    assert (refused.status, refused.json()["code"]) == (403, "permission.denied")

    with concurrent.futures.ThreadPoolExecutor() as pool:
        asked = [
            pool.submit(gateway.call, f"/v1/dead/{letter['id']}/requeue", {}, key=operator)
            for gateway in (one, two, one, two)
        ]
        replies = [each.result() for each in asked]
    assert [reply.status for reply in replies].count(200) == 1
    assert {reply.json()["code"] for reply in replies if reply.status != 200} <= {"dead.refused", "dead.unknown"}
    assert one.call(f"/v1/executions/{turn}").json()["status"] in {"running", "completed"}
    # Its stream can be followed again, from any gateway, to its true end.
    streamed = two.call(f"/v1/executions/{turn}/stream")
    assert f"{tag}-slow".encode() in streamed.body
    done = until(lambda: (shown := one.call(f"/v1/executions/{turn}").json())["status"] == "completed" and shown)
    assert f"{tag}-slow" in done["steps"][-1]["text"]
    effects = [line["path"] for line in desk.stub.effects() if tag in line["path"]]
    assert sorted(path.partition("?")[0].rpartition("/")[2] for path in effects) == [tag, f"{tag}-slow"]
    assert letters(one, operator, turn) == []
    deeds = one.call(f"/v1/audit?tenant={tenant}&subject={turn}", key=operator).json()["data"]
    assert "dead.requeued" in {deed["what"] for deed in deeds}
    gone = one.call(f"/v1/dead/{letter['id']}", key=operator)
    assert (gone.status, gone.json()["code"]) == (404, "dead.unknown")
