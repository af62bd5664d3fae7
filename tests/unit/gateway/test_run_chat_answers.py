"""Which calls the answers in a chat's messages mean, and when a hold that was answered in part is held again."""

from typing import Any

import pytest
from msgspec.structs import replace

from kitemesh_contracts.content import CallResult, Step, ToolCall
from kitemesh_contracts.deltas import HoldRef, TurnEnded
from kitemesh_contracts.errors import ErrorCode, KitemeshError
from kitemesh_gateway.dialects.run_chat_messages import Reply
from kitemesh_gateway.finding import Finding
from kitemesh_gateway.ui_answers import Answered, UiAnswers
from kitemesh_gateway.watches import Watch
from kitemesh_runtime.holds import Verdict
from kitemesh_runtime.live_turns import LiveTurn
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.stores_memory import memory_stores
from kitemesh_runtime.turns import TurnRecord
from unit.gateway.holding import CALL, HOLD, OTHER_CALL, TENANT, TURN, hold, person
from unit.gateway.rig import Screen, ended, watched

CALLS = tuple(ToolCall(id=call, name="refund", arguments="{}") for call in (CALL, OTHER_CALL))
STEP = Step(step=1, attempt=1, last=2, calls=CALLS)
LIVE = LiveTurn(
    id=TURN,
    tenant=TENANT,
    version=1,
    status="held",
    mode="durable",
    model="agent:clerk",
    state=b"",
    conversation="conv",
    hold=HOLD,
    steps=(STEP,),
)


async def stores_with(turn: LiveTurn | None = LIVE, *, active: bool = True, **verdicts: Verdict) -> Stores:
    stores = memory_stores()
    await stores.conversations.create(TENANT, "conv", TURN if active else "another", agent=None)
    if turn is not None:
        await stores.live_turns.insert(TENANT, turn)
    await stores.holds.open(TENANT, hold(), expires_after_s=60)
    decided = {{"one": CALL, "two": OTHER_CALL}[name]: verdict for name, verdict in verdicts.items()}
    if decided:
        await stores.holds.decide(TENANT, HOLD, decided)
    return stores


async def found(stores: Stores, *replies: Reply, conversation: str = "conv", **principal: Any) -> Answered:
    answers = UiAnswers(stores.conversations, stores.live_turns, stores.holds)
    return await answers.find(person("chat", "approve", **principal), conversation, replies)


def reply(call: str = CALL, message: str = TURN, *, approved: bool = True) -> Reply:
    return Reply(message, call, approved=approved, reason="why")


async def refused(stores: Stores, *replies: Reply, **more: Any) -> ErrorCode:
    with pytest.raises(KitemeshError) as caught:
        await found(stores, *replies, **more)
    return caught.value.code


@pytest.mark.requirement("run-chat:approval-answers")
@pytest.mark.parametrize(("active", "message"), [(True, ""), (True, "unknown"), (False, TURN)])
async def test_calls_are_those_of_the_active_turn_or_of_the_message(active: bool, message: str) -> None:
    answered = await found(await stores_with(active=active), reply(message=message))
    assert (answered.turn.id, answered.step, answered.calls) == (TURN, 1, {CALL})
    assert answered.hold is not None
    assert {call: (answer.approved, answer.reason) for call, answer in answered.answers.items()} == {
        CALL: (True, "why")
    }


@pytest.mark.requirement("run-chat:answered-again")
async def test_what_was_decided_is_not_decided_again() -> None:
    stores = await stores_with(one=Verdict(approved=False))
    assert (await found(stores, reply())).hold is None
    both = await found(stores, reply(), reply(OTHER_CALL))
    assert set(both.answers) == {OTHER_CALL}
    assert both.calls == {CALL, OTHER_CALL}


async def test_calls_of_a_turn_that_has_ended_are_only_followed() -> None:
    stores = await stores_with(None, active=False)
    await stores.turns.put(
        TENANT,
        TurnRecord(
            id=TURN,
            tenant=TENANT,
            status="completed",
            mode="durable",
            model="agent:clerk",
            conversation="conv",
            steps=(STEP,),
        ),
    )
    answered = await found(stores, reply())
    assert (answered.step, answered.hold, dict(answered.answers)) == (1, None, {})


@pytest.mark.requirement("run-chat:unknown-conversation")
async def test_what_is_not_there_is_refused_alike_for_everybody() -> None:
    stores = await stores_with()
    assert await refused(stores, reply(), conversation="other") == ErrorCode.CONVERSATION_UNKNOWN
    assert await refused(stores, reply(), tenant="stranger") == ErrorCode.CONVERSATION_UNKNOWN
    assert await refused(stores, reply("unknown")) == ErrorCode.APPROVAL_UNKNOWN
    moved = await stores_with(replace(LIVE, conversation="elsewhere"))
    assert await refused(moved, reply()) == ErrorCode.APPROVAL_UNKNOWN


async def test_a_hold_that_was_cancelled_is_gone_and_one_that_ran_out_was_decided_by_that() -> None:
    stores = await stores_with()
    await stores.holds.cancel(TENANT, HOLD, "a new message took its place")
    assert await refused(stores, reply()) == ErrorCode.APPROVAL_GONE
    late = memory_stores()
    await late.conversations.create(TENANT, "conv", TURN, agent=None)
    await late.live_turns.insert(TENANT, LIVE)
    await late.holds.open(TENANT, hold(), expires_after_s=0)
    await late.holds.expire(TENANT, HOLD)
    assert (await found(late, reply())).hold is None


def held(*calls: str) -> TurnEnded:
    open_calls = tuple(ToolCall(id=call, name="refund", arguments="{}") for call in calls)
    return ended("", outcome="held", calls=open_calls, hold=HoldRef(id=HOLD, expires_at_ms=0))


@pytest.mark.requirement("run-chat:partial-answer")
def test_only_a_hold_without_the_calls_that_were_answered_ends_their_stream() -> None:
    turn = watched(durable=True, after_step=1, decided=frozenset({CALL}))
    watch = Watch(turn, Screen(), 0.0)
    assert watch.on_ended(held(CALL, OTHER_CALL), 1.0) is None
    assert watch.on_ended(held(OTHER_CALL), 1.0) == "settle"
    nobodys = Watch(watched(durable=True, after_step=1), Screen(), 0.0)
    assert nobodys.on_ended(held(OTHER_CALL), 1.0) is None


@pytest.mark.requirement("run-chat:partial-answer")
async def test_a_stored_turn_holds_again_once_what_was_answered_has_come_to_something() -> None:
    stores = await stores_with(one=Verdict(approved=True))
    finding = Finding(stores.live_turns, stores.holds)

    async def ending(*decided: str) -> TurnEnded | None:
        known = await finding.find(TENANT, TURN, after_step=1, decided=frozenset(decided))
        assert known is not None
        return known.ended

    assert await ending(CALL) is None
    assert await ending() is None
    returned = replace(LIVE, version=2, steps=(replace(STEP, results=(CallResult(call=CALL, text="paid"),)),))
    await stores.live_turns.save(TENANT, returned)
    for decided in ((CALL,), ()):
        again = await ending(*decided)
        assert again is not None
        assert [call.id for call in again.calls] == [OTHER_CALL]
    assert await ending(CALL, OTHER_CALL) is None
