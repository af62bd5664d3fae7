"""Executions shown and cancelled over HTTP: stored ones on the twins, classic ones across two real gateways."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from integration.bus.rig import OwnServer
from integration.gateway.rig import ASK, KEY, TENANT, Answer, Rig, get, key_record, open_rig, post
from integration.gateway.test_approvals import APPROVER, STRANGER, assert_problem
from kitemesh_contracts import codec, subjects
from kitemesh_contracts.commands import CancelTurn
from kitemesh_contracts.content import AssistantMessage, CallResult, Step, ToolCall, Usage
from kitemesh_contracts.deltas import HoldRef
from kitemesh_contracts.errors import ErrorCode, ErrorInfo
from kitemesh_gateway.cancelling import REASON
from kitemesh_gateway.instants import iso
from kitemesh_runtime import keyring
from kitemesh_runtime.ledger import LedgerRow
from kitemesh_runtime.live_turns import Job, LiveTurn
from kitemesh_runtime.turns import TurnRecord
from unit.gateway.holding import CALL, CATALOG, HOLD, OTHER_CALL, TURN, hold

MISSING = "01990000-0000-7000-8000-000000000999"
DETAIL = "There is no such execution"
CONFINED, WIDER = (keyring.make(bytes(range(n, n + 40))) for n in (120, 130))
_numbers = itertools.count(1)


@pytest.fixture
async def near(gateway_server: OwnServer, tmp_path: Path) -> AsyncIterator[Rig]:
    """Open the gateway that is asked."""
    replica = f"near-{next(_numbers)}"
    async with open_rig(gateway_server.url, tmp_path, replica=replica, is_worked=False, catalog=CATALOG) as rig:
        await rig.stores.keys.put(TENANT, key_record(APPROVER, scopes=("approve",)))
        await rig.stores.keys.put("other", key_record(STRANGER, tenant="other", scopes=("chat",)))
        yield rig


@pytest.fixture
async def far(gateway_server: OwnServer, tmp_path: Path) -> AsyncIterator[Rig]:
    """Open the gateway that has the client."""
    folder = tmp_path / "far"
    folder.mkdir()
    async with open_rig(gateway_server.url, folder, replica=f"far-{next(_numbers)}") as rig:
        yield rig


def call(call_id: str, name: str = "refund") -> ToolCall:
    return ToolCall(id=call_id, name=name, arguments="{}")


def live(**fields: Any) -> LiveTurn:
    values: dict[str, Any] = {
        "id": TURN,
        "tenant": TENANT,
        "version": 1,
        "status": "running",
        "mode": "durable",
        "model": "agent:clerk",
        "state": b"secret state",
        "conversation": "conv",
        "accepted_at_ms": 1_700_000_000_000,
        "usage": Usage(input_tokens=3, output_tokens=2),
        "steps": (Step(step=1, text="Let me see", calls=(call(CALL), call(OTHER_CALL))),),
        **fields,
    }
    return LiveTurn(**values)


def ended(**fields: Any) -> TurnRecord:
    values: dict[str, Any] = {
        "id": TURN,
        "tenant": TENANT,
        "status": "completed",
        "mode": "classic",
        "model": "m",
        "accepted_at_ms": 1_700_000_000_000,
        "ended_at_ms": 1_700_000_001_500,
        "answer": AssistantMessage(text="Done"),
        "finish": "stop",
        **fields,
    }
    return TurnRecord(**values)


async def show(rig: Rig, turn: str = TURN, *, key: str = KEY.text) -> Answer:
    return await rig.ask(get(f"/v1/executions/{turn}", key=key))


async def cancel(rig: Rig, turn: str = TURN, *, key: str = KEY.text) -> Answer:
    return await rig.ask(post({}, path=f"/v1/executions/{turn}/cancel", key=key))


async def test_an_execution_that_is_held_names_its_approval_and_the_calls_that_wait(near: Rig) -> None:
    held = await near.stores.holds.open(TENANT, hold(), expires_after_s=600)
    results = (CallResult(call=CALL, text="42"),)
    steps = (Step(step=1, text="Let me see", calls=(call(CALL), call(OTHER_CALL)), results=results),)
    await near.stores.live_turns.insert(TENANT, live(status="held", hold=HOLD, steps=steps))
    answer = await show(near)
    assert answer.status == 200
    body = answer.json()
    assert body.pop("updated_at").endswith("Z")
    assert body == {
        "id": TURN,
        "status": "held",
        "mode": "durable",
        "conversation_id": "conv",
        "model": "agent:clerk",
        "created_at": "2023-11-14T22:13:20.000Z",
        "usage": {"input_tokens": 3, "output_tokens": 2, "cached_tokens": 0, "reasoning_tokens": 0},
        "steps": [
            {
                "step": 1,
                "text": "Let me see",
                "tool_calls": [
                    {"id": CALL, "name": "refund", "status": "completed", "result": "42"},
                    {"id": OTHER_CALL, "name": "refund", "status": "held"},
                ],
            },
        ],
        "approval": {"id": HOLD, "expires_at": iso(held.expires_at_s)},
    }
    assert b"secret" not in answer.body


async def test_an_execution_that_has_ended_shows_every_call_and_its_answer(near: Rig) -> None:
    errors = {
        "a": ErrorCode.TOOL_DENIED,
        "b": ErrorCode.TOOL_CANCELLED,
        "c": ErrorCode.TOOL_UNCERTAIN,
        "d": ErrorCode.TOOL_TIMEOUT,
        "e": ErrorCode.INTERNAL,
    }
    results = (
        *(CallResult(call=name, error=ErrorInfo(code=code, message=f"why {name}")) for name, code in errors.items()),
        CallResult(call="f", blob="blob-1"),
        CallResult(call="g", text=""),
    )
    step = Step(step=1, calls=tuple(call(name) for name in "abcdefgh"), results=results)
    await near.stores.turns.put(TENANT, ended(steps=(step,)))
    body = (await show(near)).json()
    assert (body["status"], body["conversation_id"], body["updated_at"]) == (
        "completed",
        None,
        "2023-11-14T22:13:21.500Z",
    )
    calls = {each["id"]: each for each in body["steps"][0]["tool_calls"]}
    assert {name: each["status"] for name, each in calls.items()} == {
        "a": "denied",
        "b": "cancelled",
        "c": "outcome_unknown",
        "d": "failed",
        "e": "failed",
        "f": "completed",
        "g": "completed",
        "h": "unfinished",
    }
    assert calls["a"]["error"] == {"code": "tool.denied", "message": "why a"}
    assert calls["e"]["error"] == {"code": "internal", "message": "It failed for an internal reason"}
    assert (calls["f"]["result"], calls["g"]["result"]) == ({"blob": True}, "")
    assert body["steps"][1] == {"step": 2, "text": "Done", "tool_calls": []}


async def test_the_callers_own_calls_end_an_execution(near: Rig) -> None:
    mine = call("x", "theirs")
    step = Step(step=1, text="Now you", calls=(mine,))
    record = ended(steps=(step,), answer=AssistantMessage(text="Now you", calls=(mine,)), finish="tool_calls")
    await near.stores.turns.put(TENANT, record)
    (only,) = (await show(near)).json()["steps"]
    assert only["tool_calls"] == [{"id": "x", "name": "theirs", "status": "client"}]


@pytest.mark.parametrize(
    ("status", "code", "shown"),
    [
        ("failed", ErrorCode.TURN_TIMEOUT, "expired"),
        ("failed", ErrorCode.UPSTREAM_FAILED, "failed"),
        ("cancelled", ErrorCode.TURN_CANCELLED, "cancelled"),
    ],
)
async def test_an_execution_that_failed_says_why(near: Rig, status: str, code: ErrorCode, shown: str) -> None:
    await near.stores.turns.put(TENANT, ended(status=status, error=ErrorInfo(code=code, message="why"), answer=None))
    body = (await show(near)).json()
    assert (body["status"], body["error"], body["steps"]) == (shown, {"code": code.value, "message": "why"}, [])


@pytest.mark.requirement("executions:foreign-is-missing")
async def test_another_tenants_execution_cannot_be_told_from_one_that_does_not_exist(near: Rig) -> None:
    await near.stores.live_turns.insert(TENANT, live())
    for turn, key in ((TURN, STRANGER.text), (MISSING, STRANGER.text), (MISSING, KEY.text)):
        place = f"/v1/executions/{turn}"
        assert_problem(await show(near, turn, key=key), 404, "execution.unknown", DETAIL, place)
        assert_problem(await cancel(near, turn, key=key), 404, "execution.unknown", DETAIL, f"{place}/cancel")
    assert (await show(near)).json()["status"] == "running"


async def test_the_scope_chat_is_needed(near: Rig) -> None:
    await near.stores.live_turns.insert(TENANT, live())
    assert (await show(near, key=APPROVER.text)).status == 403
    assert (await cancel(near, key=APPROVER.text)).status == 403
    assert (await show(near)).json()["status"] == "running"


# Cancelling


async def listen(rig: Rig, *wanted: str) -> asyncio.Queue[tuple[str, CancelTurn]]:
    heard: asyncio.Queue[tuple[str, CancelTurn]] = asyncio.Queue()
    for subject in wanted:
        await rig.cluster.bus.subscribe(
            subject, lambda on, payload: heard.put_nowait((on, codec.decode(codec.CANCEL, payload)))
        )
    await rig.cluster.bus.barrier()
    return heard


@pytest.mark.requirement("cancel:no-call-begins-after-it")
async def test_a_cancel_wins_the_calls_that_have_not_begun_and_names_those_that_have(near: Rig) -> None:
    heard = await listen(near, subjects.cancel(TURN), subjects.control_cancel(TURN))
    jobs = (
        Job(kind="tool", step=1, pool="default", calls=(CALL, OTHER_CALL)),
        Job(kind="model", step=2, pool="default"),
    )
    await near.stores.live_turns.insert(TENANT, live(jobs=jobs))
    begun = LedgerRow(
        id=CALL, tenant=TENANT, turn=TURN, tool="refund", effect="once", state="dispatched", by="w", args_sha256="s"
    )
    await near.stores.ledger.dispatch(TENANT, begun)
    expected = {
        "id": TURN,
        "status": "cancelled",
        "calls": [{"tool_execution_id": CALL, "name": "refund", "state": "dispatched"}],
    }
    first = await cancel(near)
    assert (first.status, first.json()) == (200, expected)
    turn = await near.stores.live_turns.get(TENANT, TURN)
    assert isinstance(turn, LiveTurn)
    assert (turn.status, turn.cancelled) == ("cancelling", REASON)
    late = await near.stores.ledger.dispatch(TENANT, replace(begun, id=OTHER_CALL, by="late"))
    assert (late.state, late.tool, late.effect) == ("cancelled", "refund", "once")
    order = CancelTurn(turn=TURN, tenant=TENANT, reason=REASON, conversation="conv")
    async with asyncio.timeout(5):
        messages = {await heard.get(), await heard.get()}
    assert messages == {(subjects.cancel(TURN), order), (subjects.control_cancel(TURN), order)}
    assert (await show(near)).json()["status"] == "running"
    again = await cancel(near)
    assert (again.status, again.json()) == (200, expected)


async def test_a_cancel_ends_what_is_held(near: Rig) -> None:
    await near.stores.holds.open(TENANT, hold(), expires_after_s=600)
    await near.stores.live_turns.insert(TENANT, live(status="held", hold=HOLD))
    assert (await cancel(near)).json() == {"id": TURN, "status": "cancelled"}
    ended_hold = await near.stores.holds.get(TENANT, HOLD)
    assert ended_hold is not None
    assert (ended_hold.status, ended_hold.reason) == ("cancelled", REASON)
    body = {"decisions": [{"tool_execution_id": CALL, "approved": True}]}
    gone = await near.ask(post(body, path=f"/v1/approvals/{HOLD}/decide", key=APPROVER.text))
    assert (gone.status, gone.json()["detail"]) == (410, f"This approval was cancelled: {REASON}")
    (row,) = await near.stores.audit.about(TENANT, HOLD)
    assert (row.what, row.by, row.origin, row.reason) == ("approval.cancelled", KEY.id, "127.0.0.1", REASON)


async def test_an_approval_that_was_decided_and_not_applied_loses_to_a_cancel(near: Rig) -> None:
    await near.stores.holds.open(TENANT, hold(), expires_after_s=600)
    await near.stores.live_turns.insert(TENANT, live(status="held", hold=HOLD))
    body = {"decisions": [{"tool_execution_id": each, "approved": True} for each in (CALL, OTHER_CALL)]}
    decided = await near.ask(post(body, path=f"/v1/approvals/{HOLD}/decide", key=APPROVER.text))
    assert decided.json()["status"] == "decided"
    assert (await cancel(near)).status == 200
    ended_hold = await near.stores.holds.get(TENANT, HOLD)
    assert ended_hold is not None
    assert ended_hold.status == "cancelled"


@pytest.mark.parametrize("status", ["completed", "cancelled"])
async def test_what_has_ended_stays_as_it_is(near: Rig, status: str) -> None:
    await near.stores.turns.put(TENANT, ended(status=status))
    answer = await cancel(near)
    assert (answer.status, answer.json()) == (200, {"id": TURN, "status": status})


@pytest.mark.requirement("cancel:classic-from-any-gateway")
async def test_a_classic_turn_is_cancelled_through_a_gateway_that_does_not_know_it(near: Rig, far: Rig) -> None:
    client = far.client()
    await client.send(post(ASK))
    start = await far.cluster.start()
    for key in (STRANGER.text, STRANGER.text):
        assert (await cancel(near, start.turn, key=key)).status == 404
    answer = await cancel(near, start.turn)
    assert (answer.status, answer.json()) == (200, {"id": start.turn, "status": "cancelled"})
    heard = await far.cluster.cancel()
    assert (heard.turn, heard.tenant, heard.reason, heard.disconnect) == (start.turn, TENANT, REASON, False)
    far.cluster.fail(start, ErrorCode.TURN_CANCELLED, REASON)
    told = await client.answer()
    assert (told.status, told.error["code"]) == (409, "turn.cancelled")


@pytest.mark.requirement("cancel:no-call-begins-after-it")
async def test_a_turn_that_holds_after_another_gateway_answered_its_cancel_is_cancelled_in_the_store(
    near: Rig, far: Rig
) -> None:
    client = far.client()
    await client.send(post(ASK))
    start = await far.cluster.start()
    assert (await cancel(near, start.turn)).status == 200
    control = await listen(far, subjects.control_cancel(start.turn))
    await far.stores.holds.open(TENANT, hold(turn=start.turn), expires_after_s=600)
    await far.stores.live_turns.insert(TENANT, live(id=start.turn, status="held", hold=HOLD))
    reference = HoldRef(id=HOLD, expires_at_ms=1_767_323_045_600)
    far.cluster.end(start, "", outcome="held", finish=None, calls=(call(CALL),), hold=reference)
    assert (await client.answer()).status == 200
    async with asyncio.timeout(5):
        _, order = await control.get()
    assert (order.turn, order.reason) == (start.turn, REASON)
    held = await far.stores.holds.get(TENANT, HOLD)
    assert held is not None
    assert (held.status, held.reason) == ("cancelled", REASON)


async def test_a_classic_turn_is_cancelled_at_its_own_gateway(far: Rig) -> None:
    client = far.client()
    await client.send(post(ASK))
    start = await far.cluster.start()
    assert (await cancel(far, start.turn)).json() == {"id": start.turn, "status": "cancelled"}
    assert (await far.cluster.cancel()).turn == start.turn


async def test_a_turn_that_became_durable_while_it_was_asked_for_is_found(near: Rig) -> None:
    async def store_late(subject: str, payload: bytes) -> None:
        await near.stores.live_turns.insert(TENANT, live())

    tasks: list[asyncio.Task[None]] = []
    await near.cluster.bus.subscribe(
        subjects.ask_cancel(TURN), lambda *asked: tasks.append(asyncio.create_task(store_late(*asked)))
    )
    await near.cluster.bus.barrier()
    assert (await cancel(near)).status == 200
    turn = await near.stores.live_turns.get(TENANT, TURN)
    assert isinstance(turn, LiveTurn)
    assert turn.status == "cancelling"
    assert len(tasks) == 1


async def test_a_turn_is_cancelled_again_after_it_has_ended(near: Rig) -> None:
    await near.stores.live_turns.insert(TENANT, live())
    assert (await cancel(near)).status == 200
    turn = await near.stores.live_turns.get(TENANT, TURN)
    assert isinstance(turn, LiveTurn)
    error = ErrorInfo(code=ErrorCode.TURN_CANCELLED, message=REASON)
    await near.stores.live_turns.finish(TENANT, ended(status="cancelled", error=error), version=turn.version)
    again = await cancel(near)
    assert (again.status, again.json()) == (200, {"id": TURN, "status": "cancelled"})


@pytest.mark.requirement("executions:foreign-is-missing")
async def test_an_execution_of_a_model_that_is_not_the_keys_cannot_be_told_from_one_that_does_not_exist(
    near: Rig, far: Rig
) -> None:
    await near.stores.keys.put(TENANT, key_record(CONFINED, models=("agent:other",)))
    await far.stores.keys.put(TENANT, key_record(CONFINED, models=("agent:other",)))
    await near.stores.live_turns.insert(TENANT, live())
    await near.stores.turns.put(TENANT, ended(id=MISSING, model="agent:clerk"))
    own = TURN.replace("0001", "0002")
    await near.stores.live_turns.insert(TENANT, live(id=own, model="agent:other"))
    client = far.client()
    await client.send(post(ASK))
    classic = (await far.cluster.start()).turn
    for turn_id in (TURN, MISSING):
        place = f"/v1/executions/{turn_id}"
        assert_problem(await show(near, turn_id, key=CONFINED.text), 404, "execution.unknown", DETAIL, place)
    for rig, turn_id in ((near, TURN), (near, MISSING), (near, classic), (far, classic)):
        place = f"/v1/executions/{turn_id}/cancel"
        assert_problem(await cancel(rig, turn_id, key=CONFINED.text), 404, "execution.unknown", DETAIL, place)
    turn = await near.stores.live_turns.get(TENANT, TURN)
    assert isinstance(turn, LiveTurn)
    assert (turn.status, turn.cancelled) == ("running", None)
    assert far.cluster.cancels.empty()
    assert (await show(near, own, key=CONFINED.text)).status == 200
    assert (await cancel(near, own, key=CONFINED.text)).status == 200
    await near.stores.keys.put(TENANT, key_record(WIDER, models=("scripted",)))
    assert (await cancel(near, classic, key=WIDER.text)).status == 200
    assert (await far.cluster.cancel()).models is None


async def test_a_question_that_is_none_is_not_answered(near: Rig) -> None:
    near.cluster.bus.publish(subjects.ask_cancel(TURN), b"{}")
    assert (await cancel(near)).status == 404


async def test_an_unknown_turn_is_no_longer_unknown_but_unavailable_when_the_bus_does_not_answer(
    tmp_path: Path, own_nats: OwnServer
) -> None:
    async with open_rig(own_nats.url, tmp_path, replica="alone", is_worked=False) as rig:
        own_nats.kill()
        answer = await cancel(rig)
        assert (answer.status, answer.json()["code"]) == (503, "bus.down")
        assert "retry-after" in answer.headers
        # A stored turn is cancelled all the same: whoever sweeps sees it.
        await rig.stores.live_turns.insert(TENANT, live())
        assert (await cancel(rig)).status == 200


@pytest.fixture
def own_nats(tmp_path_factory: pytest.TempPathFactory) -> Any:
    server = OwnServer(tmp_path_factory.mktemp("own-nats"))
    yield server
    server.kill()
