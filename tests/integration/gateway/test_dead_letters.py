"""`/v1/dead` over HTTP: who sees what was given up, in which order, and what can be done with it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from integration.bus.rig import OwnServer
from integration.gateway.rig import TENANT, Answer, Rig, get, key_record, open_rig, post
from kitemesh_contracts import subjects, topology
from kitemesh_contracts.codec import encode
from kitemesh_contracts.content import Step, ToolCall
from kitemesh_contracts.errors import ErrorCode, ErrorInfo
from kitemesh_gateway import requeueing
from kitemesh_runtime import keyring
from kitemesh_runtime.dead_nats import DeadLetter
from kitemesh_runtime.ledger import LedgerRow
from kitemesh_runtime.live_turns import Job, LiveTurn
from kitemesh_runtime.turns import TurnRecord

PATH = "/v1/dead"
ADMIN = keyring.make(bytes(range(2, 42)))
OPERATOR = keyring.make(bytes(range(4, 44)))
EXHAUSTED = ErrorInfo(code=ErrorCode.TURN_EXHAUSTED, message="given up")
SECRET = "what nobody else may read"


@pytest.fixture
async def rig(gateway_server: OwnServer, tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_rig(gateway_server.url, tmp_path, replica="gw-dead", is_worked=False) as opened:
        await opened.stores.keys.put(TENANT, key_record(ADMIN, scopes=("admin", "chat", "approve")))
        await opened.stores.keys.put("ops", key_record(OPERATOR, scopes=("operator",), tenant="ops"))
        yield opened
        await opened.cluster.bus.request(f"$JS.API.STREAM.PURGE.{topology.DEAD}", b"", timeout_s=2)


async def ask(rig: Rig, path: str, method: str = "GET", key: str = OPERATOR.text) -> Answer:
    request = post({}, path=path, key=key) if method == "POST" else get(path, key=key)
    return await rig.ask(request.replace(request.split(b" ", 1)[0], method.encode(), 1))


async def bury(rig: Rig, turn: str, stream: str = topology.MODEL) -> str:
    """Keep a letter; return its id."""
    subject = subjects.model_job("default", "batch", 0, turn)
    letter = DeadLetter(
        stream=stream,
        consumer="c",
        sequence=1,
        subject=subject if stream == topology.MODEL else subjects.event("step.generated", turn),
        msg_id="",
        deliveries=4,
        reason="poison",
        at="2026-01-01T00:00:00Z",
    )
    kept = await rig.cluster.bus.send(subjects.dead(stream, turn), encode(letter), msg_id=f"{stream}-{turn}")
    return str(kept.sequence)


async def given_up(rig: Rig, turn: str, tenant: str = TENANT) -> LiveTurn:
    """Store a turn that was given up while a call with an effect ran."""
    calls = tuple(ToolCall(id=f"{turn}-{n}", name="pay", arguments=SECRET) for n in range(2))
    live = LiveTurn(
        id=turn,
        tenant=tenant,
        version=1,
        status="running",
        mode="durable",
        model="scripted",
        state=SECRET.encode(),
        steps=(Step(step=1, text=SECRET, calls=calls),),
        jobs=(Job(kind="tool", step=1, pool="default", calls=tuple(call.id for call in calls)),),
    )
    assert await rig.stores.live_turns.insert(tenant, live)
    record = TurnRecord(
        id=turn, tenant=tenant, status="failed", mode="durable", model="scripted", steps=live.steps, error=EXHAUSTED
    )
    await rig.stores.live_turns.finish(tenant, record, version=1, before=live)
    row = LedgerRow(
        id=calls[0].id, tenant=tenant, turn=turn, tool="pay", effect="once", state="dispatched", by="x", args_sha256=""
    )
    await rig.stores.ledger.dispatch(tenant, row)
    return live


@pytest.mark.requirement("dead:routes")
async def test_letters_of_all_tenants_are_listed_newest_first_and_without_content(rig: Rig) -> None:
    live = await given_up(rig, "dead-other", tenant="other")
    ids = [await bury(rig, "dead-none"), await bury(rig, live.id, topology.EVENT), await bury(rig, "dead-nobody")]
    listed = (await ask(rig, f"{PATH}?limit=2")).json()
    assert [each["id"] for each in listed["data"]] == ids[:0:-1]
    rest = (await ask(rig, f"{PATH}?limit=2&cursor={listed['next_cursor']}")).json()
    assert ([each["id"] for each in rest["data"]], rest["next_cursor"]) == (ids[:1], None)
    first: dict[str, Any] = listed["data"][1]
    assert (first["stream"], first["kind"], first["turn"]) == ("KM_EVENT", "event.step.generated", live.id)
    assert (first["requeueable"], first["why"], first["deliveries"]) == (True, "", 4)
    assert (rest["data"][0]["kind"], rest["data"][0]["why"]) == ("model", requeueing.NOT_STORED)
    events = (await ask(rig, f"{PATH}?stream=KM_EVENT")).json()
    assert [each["id"] for each in events["data"]] == [ids[1]]
    shown = await ask(rig, f"{PATH}/{ids[1]}")
    detail = shown.json()
    assert (detail["tenant"], detail["status"], detail["mode"], detail["steps"]) == ("other", "failed", "durable", 0)
    assert [(each["name"], each["state"]) for each in detail["effects"]] == [("pay", "dispatched"), ("pay", "none")]
    assert SECRET.encode() not in shown.body
    # To the tenant's own clients nothing is shown of what was kept.
    assert b"given_up" not in (await ask(rig, f"/v1/executions/{live.id}", key=ADMIN.text)).body


async def test_a_letter_is_requeued_once_and_then_gone_and_both_are_noted(rig: Rig) -> None:
    live = await given_up(rig, "dead-requeued")
    letter = await bury(rig, live.id)
    done = await ask(rig, f"{PATH}/{letter}/requeue", "POST")
    assert (done.status, done.json()) == (
        200,
        {"id": letter, "turn": live.id, "tenant": TENANT, "status": "running"},
    )
    shown = await ask(rig, f"/v1/executions/{live.id}", key=ADMIN.text)
    assert (shown.json()["status"], "error" in shown.json()) == ("running", False)
    assert (await ask(rig, f"{PATH}/{letter}")).json()["code"] == "dead.unknown"
    # Another letter of the same turn cannot requeue it a second time; it stays: its message may fail the turn yet.
    other = await bury(rig, live.id, topology.EVENT)
    refused = await ask(rig, f"{PATH}/{other}/requeue", "POST")
    assert (refused.status, refused.json()["code"]) == (409, "dead.refused")
    assert refused.json()["detail"] == requeueing.GOES_ON
    assert (await ask(rig, f"{PATH}/{other}")).status == 200
    (deed,) = await rig.stores.audit.about(TENANT, live.id)
    assert (deed.what, deed.by) == ("dead.requeued", OPERATOR.id)


async def test_a_letter_is_dropped_and_its_turn_stays_as_it_is(rig: Rig) -> None:
    live = await given_up(rig, "dead-dropped")
    letter = await bury(rig, live.id)
    dropped = await ask(rig, f"{PATH}/{letter}", "DELETE")
    assert (dropped.status, dropped.json()) == (200, {"id": letter, "deleted": True})
    assert (await ask(rig, f"{PATH}/{letter}", "DELETE")).status == 404
    found = await rig.stores.live_turns.get(TENANT, live.id)
    assert isinstance(found, TurnRecord)
    (deed,) = await rig.stores.audit.about(TENANT, live.id)
    assert deed.what == "dead.dropped"


async def test_an_approval_in_the_way_is_said(rig: Rig) -> None:
    live = replace(await given_up(rig, "dead-held"), id="dead-held-2", hold="h")
    await rig.stores.live_turns.insert(TENANT, live)
    record = TurnRecord(id=live.id, tenant=TENANT, status="failed", mode="durable", model="m", error=EXHAUSTED)
    await rig.stores.live_turns.finish(TENANT, record, version=1, before=live)
    letter = await bury(rig, live.id)
    refused = await ask(rig, f"{PATH}/{letter}/requeue", "POST")
    assert (refused.status, refused.json()["detail"]) == (409, requeueing.WAITED)
    assert (await ask(rig, f"{PATH}/{letter}")).json()["why"] == requeueing.WAITED


@pytest.mark.parametrize("letter", ["0", "999999999", "nothing", "-1", "9" * 30, "1_0"])
async def test_what_is_no_letter_is_unknown(rig: Rig, letter: str) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/requeue")):
        answer = await ask(rig, f"{PATH}/{letter}{path}", method)
        assert (answer.status, answer.json()["code"]) == (404, "dead.unknown")


async def test_only_operators_look_after_letters(rig: Rig) -> None:
    letter = await bury(rig, "dead-forbidden")
    for method, path in (("GET", ""), ("GET", f"/{letter}"), ("DELETE", f"/{letter}"), ("POST", f"/{letter}/requeue")):
        answer = await ask(rig, f"{PATH}{path}", method, ADMIN.text)
        assert (answer.status, answer.json()["code"]) == (403, "permission.denied")
    assert (await ask(rig, f"{PATH}?cursor=abc")).status == 400
