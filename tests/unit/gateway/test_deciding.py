"""Every outcome of a decision, on the stores' twins."""

import asyncio
from typing import Any, NamedTuple

import pytest

from kitemesh_contracts import canonical, subjects
from kitemesh_contracts.commands import ApplyHold
from kitemesh_contracts.errors import Conflict, ErrorCode, KitemeshError, NotFound
from kitemesh_contracts.headers import hold_msg_id
from kitemesh_gateway.auth import Principal
from kitemesh_gateway.deciding import Answer, Audience, Deciding
from kitemesh_gateway.dialects.base import Mistakes
from kitemesh_runtime.catalog import Catalog
from kitemesh_runtime.holds import Hold
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.stores_memory import memory_stores
from unit.gateway.holding import (
    CALL,
    CATALOG,
    CATALOG_DATA,
    HOLD,
    OTHER_CALL,
    TENANT,
    TURN,
    Outbox,
    handle,
    held_call,
    hold,
    person,
)
from unit.gateway.rig import ManualClock

YES, NO = Answer(approved=True), Answer(approved=False, reason="too much")
BOTH = {CALL: YES, OTHER_CALL: NO}


class Desk(NamedTuple):
    """Where decisions are made."""

    clock: ManualClock
    stores: Stores
    bus: Outbox
    deciding: Deciding

    async def open(self, held: Hold, *, for_s: float = 600) -> Hold:
        return await self.stores.holds.open(held.tenant, held, expires_after_s=for_s)

    async def decide(self, answers: dict[str, Answer], by: Principal | None = None, **options: Any) -> Hold:
        who = by or person()
        return await self.deciding.decide(who, options.pop("hold_id", HOLD), answers, origin="10.0.0.9", **options)

    async def stored(self) -> Hold:
        found = await self.stores.holds.get(TENANT, HOLD)
        assert found is not None
        return found


def make(catalog: Catalog = CATALOG) -> Desk:
    clock = ManualClock()
    stores, bus = memory_stores(clock), Outbox()
    return Desk(clock, stores, bus, Deciding(stores.holds, stores.audit, bus.as_bus(), handle(catalog)))


@pytest.fixture
async def desk() -> Desk:
    made = make()
    await made.open(hold())
    return made


async def refused(desk: Desk, answers: dict[str, Answer], **options: Any) -> KitemeshError:
    """Return the refusal, having seen that it changed and sent nothing."""
    before, sent = await desk.stores.holds.get(TENANT, HOLD), len(desk.bus.sent)
    with pytest.raises(KitemeshError) as caught:
        await desk.decide(answers, **options)
    assert await desk.stores.holds.get(TENANT, HOLD) == before
    assert len(desk.bus.sent) == sent
    return caught.value


async def test_a_decision_is_stored_noted_and_sent_to_be_applied(desk: Desk) -> None:
    decided = await desk.decide(BOTH, texts=("Thanks",))
    assert (decided.status, decided.version, decided.texts) == ("decided", 2, ("Thanks",))
    first, second = (call.verdict for call in decided.calls)
    assert first is not None
    assert second is not None
    assert (first.approved, first.by, first.origin, first.at_s) == (True, "key-1", "10.0.0.9", desk.clock.now_s)
    assert (second.approved, second.reason) == (False, "too much")
    assert desk.bus.sent == [
        (subjects.control_decide(TURN), hold_msg_id(HOLD, 2), ApplyHold(turn=TURN, tenant=TENANT, hold=HOLD))
    ]
    (row,) = await desk.stores.audit.about(TENANT, HOLD)
    assert (row.what, row.by, row.origin, row.reason) == ("approval.decided", "key-1", "10.0.0.9", "too much")
    assert row.calls == {CALL: "approved", OTHER_CALL: "denied"}


async def test_some_calls_may_be_decided_now_and_the_others_later(desk: Desk) -> None:
    assert (await desk.decide({CALL: YES})).status == "open"
    desk.clock.now_s += 1
    assert (await desk.decide({OTHER_CALL: NO}, by=person(key="key-2"))).status == "decided"
    assert desk.bus.msg_ids == [hold_msg_id(HOLD, 2), hold_msg_id(HOLD, 3)]
    assert [row.by for row in await desk.stores.audit.about(TENANT, HOLD)] == ["key-1", "key-2"]


@pytest.mark.parametrize(
    ("hold_id", "tenant"), [("99999999-1111-5111-8111-111111111111", TENANT), (HOLD, "other"), ("a*\n", TENANT)]
)
async def test_a_foreign_approval_is_as_unknown_as_one_that_does_not_exist(
    desk: Desk, hold_id: str, tenant: str
) -> None:
    error = await refused(desk, BOTH, hold_id=hold_id, by=person("chat", tenant=tenant))
    assert isinstance(error, NotFound)
    assert (error.code, error.message) == (ErrorCode.APPROVAL_UNKNOWN, "There is no such approval")


@pytest.mark.parametrize(("needed", "given"), [("approve", "chat"), ("admin", "approve"), ("chat", "approve")])
async def test_the_scope_that_the_hold_names_is_needed(needed: str, given: str) -> None:
    desk = make()
    await desk.open(hold(scope=needed))
    assert (await refused(desk, BOTH, by=person(given))).code is ErrorCode.PERMISSION_DENIED
    assert (await desk.decide(BOTH, by=person(needed))).status == "decided"


async def test_everything_that_is_wrong_is_told_at_once(desk: Desk) -> None:
    answers = {
        "nonsense\n": YES,
        CALL: Answer(approved=True, arguments="[1]"),
        OTHER_CALL: Answer(approved=False, arguments="{}"),
    }
    error = await refused(desk, answers, model="m")
    assert isinstance(error, Mistakes)
    assert error.message == (
        "model: is not the one that the approval belongs to; 'nonsense\\n' is not a call of this approval; "
        f"{CALL}: The arguments are not a JSON object; {OTHER_CALL} is denied and cannot be given arguments"
    )
    assert error.status == 400


async def test_nothing_decided_is_refused(desk: Desk) -> None:
    assert (await refused(desk, {})).message == "No call is decided"


async def test_calls_held_together_are_decided_together() -> None:
    desk = make()
    await desk.open(hold(together=True))
    assert OTHER_CALL in (await refused(desk, {CALL: YES})).message
    assert (await desk.decide(BOTH)).status == "decided"


# Edited arguments


@pytest.mark.requirement("approvals:edited-arguments")
async def test_edited_arguments_are_stored_beside_the_originals(desk: Desk) -> None:
    decided = await desk.decide({CALL: Answer(approved=True, arguments='{ "pin": "9", "amount": 3 }')})
    verdict = decided.calls[0].verdict
    assert verdict is not None
    assert verdict.arguments == '{"amount":3,"pin":"9"}'
    assert verdict.sha256 == canonical.sha256(verdict.arguments)
    assert decided.calls[0].arguments == held_call().arguments
    assert (await desk.stores.audit.about(TENANT, HOLD))[0].calls == {CALL: "edited"}


async def test_an_edit_that_changes_nothing_is_none(desk: Desk) -> None:
    decided = await desk.decide({CALL: Answer(approved=True, arguments='{"pin":"1234","amount":5}')})
    assert decided.calls[0].verdict is not None
    assert decided.calls[0].verdict.arguments is None


async def test_a_secret_that_is_left_as_it_was_shown_stays_what_it_is(desk: Desk) -> None:
    decided = await desk.decide({CALL: Answer(approved=True, arguments='{"amount":3,"pin":"***"}')})
    assert decided.calls[0].verdict is not None
    assert decided.calls[0].verdict.arguments == '{"amount":3,"pin":"1234"}'


async def test_a_mask_never_runs_as_an_argument(desk: Desk) -> None:
    answer = Answer(approved=True, arguments='{"amount":3,"pin":"1","note":["***"]}')
    assert "write out what is shown as ***" in (await refused(desk, {CALL: answer})).message


@pytest.mark.parametrize("arguments", ['{"amount":0}', '{"amount":"5"}', "{}", '{"amount":5000}'])
async def test_edited_arguments_satisfy_the_schema_and_the_rules(desk: Desk, arguments: str) -> None:
    error = await refused(desk, {CALL: Answer(approved=True, arguments=arguments)})
    assert isinstance(error, Mistakes)
    assert error.message.startswith(f"{CALL}: ")


@pytest.mark.requirement("approvals:changed-tool-is-refused")
@pytest.mark.parametrize("change", ["gone", "changed"])
async def test_arguments_of_a_tool_that_has_changed_cannot_be_edited(change: str) -> None:
    changed = {**CATALOG.model_dump(mode="json")["tools"]["refund"], "url": "https://elsewhere.example/refunds"}
    tools = {"refund": changed} if change == "changed" else {}
    data = {**CATALOG_DATA, "tools": tools, "agents": {}, "policies": []}
    desk = make(Catalog.model_validate(data))
    await desk.open(hold())
    error = await refused(desk, {CALL: Answer(approved=True, arguments='{"amount":3}')})
    assert isinstance(error, Conflict)
    assert (error.code, error.status) == (ErrorCode.TOOL_CHANGED, 409)
    assert (await desk.decide({CALL: YES})).calls[0].verdict is not None


# Decided already, expired, cancelled


async def test_the_same_decision_again_succeeds_and_is_sent_again_until_it_is_applied(desk: Desk) -> None:
    first = await desk.decide(BOTH)
    again = await desk.decide(BOTH, by=person(key="key-2"), texts=("late",))
    assert again == first
    assert desk.bus.msg_ids == [hold_msg_id(HOLD, 2)] * 2
    await desk.stores.holds.applied(TENANT, HOLD, version=2)
    await desk.decide(BOTH)
    assert len(desk.bus.sent) == 2
    assert len(await desk.stores.audit.about(TENANT, HOLD)) == 1


async def test_who_repeats_a_decision_and_waits_is_told_of_under_an_id_that_is_not_swallowed(desk: Desk) -> None:
    await desk.decide(BOTH)
    await desk.decide(BOTH, audience=Audience("gw-2", stream=True))
    assert len(set(desk.bus.msg_ids)) == 2
    assert (desk.bus.orders[1].gateway, desk.bus.orders[1].stream) == ("gw-2", True)


@pytest.mark.requirement("approvals:one-winner")
async def test_another_decision_is_told_the_winning_one(desk: Desk) -> None:
    await desk.decide({CALL: YES})
    error = await refused(desk, {CALL: NO, OTHER_CALL: NO}, by=person(key="key-2"))
    assert isinstance(error, Conflict)
    assert error.code is ErrorCode.APPROVAL_DECIDED
    assert error.message == (
        f"This approval was decided already: {CALL} was approved by key key-1 at 1970-01-01T00:16:40.000Z"
    )
    edited = Answer(approved=True, arguments='{"amount":3}')
    assert (await refused(desk, {CALL: edited})).code is ErrorCode.APPROVAL_DECIDED


async def test_calls_decided_the_same_way_before_do_not_stand_in_the_way_of_the_others(desk: Desk) -> None:
    await desk.decide({CALL: YES})
    decided = await desk.decide(BOTH, texts=("and",))
    assert (decided.status, decided.texts) == ("decided", ("and",))


async def test_the_same_edit_again_succeeds_though_the_tool_has_changed_since(desk: Desk) -> None:
    edit = {CALL: Answer(approved=True, arguments='{"amount":3}')}
    await desk.decide(edit)
    data = {**CATALOG_DATA, "tools": {}, "agents": {}, "policies": []}
    later = Deciding(desk.stores.holds, desk.stores.audit, desk.bus.as_bus(), handle(Catalog.model_validate(data)))
    assert (await later.decide(person(), HOLD, edit, origin="")).version == 2


@pytest.mark.parametrize("noted", [True, False])
async def test_what_has_expired_is_gone_whether_or_not_it_was_noted(desk: Desk, noted: bool) -> None:
    desk.clock.now_s += 600
    if noted:
        await desk.stores.holds.expire(TENANT, HOLD)
    error = await refused(desk, BOTH)
    assert (error.code, error.status) == (ErrorCode.APPROVAL_GONE, 410)
    assert error.message == "This approval expired at 1970-01-01T00:26:40.000Z"


async def test_what_was_cancelled_is_gone_though_it_had_been_decided(desk: Desk) -> None:
    await desk.decide(BOTH)
    await desk.stores.holds.cancel(TENANT, HOLD, "superseded")
    error = await refused(desk, BOTH)
    assert (error.code, error.message) == (ErrorCode.APPROVAL_GONE, "This approval was cancelled: superseded")


async def test_what_expires_or_is_cancelled_while_it_is_decided_is_gone(desk: Desk) -> None:
    async def cancel(_: Hold) -> None:
        await desk.stores.holds.cancel(TENANT, HOLD, "superseded")

    with pytest.raises(KitemeshError, match="superseded"):
        await desk.decide(BOTH, attach=cancel)
    assert not desk.bus.sent


async def test_whoever_waits_is_attached_before_anything_is_decided(desk: Desk) -> None:
    seen: list[Hold] = []

    async def attach(held: Hold) -> None:
        seen.append(held)
        assert (await desk.stored()).version == 1

    await desk.decide(BOTH, attach=attach, audience=Audience("gw-1", stream=False))
    assert [held.id for held in seen] == [HOLD]
    assert desk.bus.orders == [ApplyHold(turn=TURN, tenant=TENANT, hold=HOLD, gateway="gw-1")]
    assert desk.bus.msg_ids == [hold_msg_id(HOLD, 2)]


@pytest.mark.requirement("approvals:one-winner")
async def test_of_a_hundred_at_once_at_two_gateways_one_wins(desk: Desk) -> None:
    second = Deciding(desk.stores.holds, desk.stores.audit, desk.bus.as_bus(), handle())

    def one(n: int) -> Any:
        deciding = (desk.deciding, second)[n % 2]
        answer = (YES, NO, Answer(approved=True, arguments='{"amount":3}'))[n % 3]
        return deciding.decide(person(key=f"key-{n}"), HOLD, {CALL: answer, OTHER_CALL: NO}, origin="")

    outcomes = await asyncio.gather(*map(one, range(100)), return_exceptions=True)
    won = await desk.stored()
    assert (won.status, won.version) == ("decided", 2)
    succeeded = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Hold)]
    failed = [outcome for outcome in outcomes if not isinstance(outcome, Hold)]
    winner = won.calls[0].verdict
    assert winner is not None
    # Everybody who said the same as the winner, and nobody else.
    assert succeeded == [n for n in range(100) if n % 3 == int(winner.by.removeprefix("key-")) % 3]
    assert all(isinstance(each, Conflict) and each.code is ErrorCode.APPROVAL_DECIDED for each in failed)
    assert set(desk.bus.msg_ids) == {hold_msg_id(HOLD, 2)}
    assert len(await desk.stores.audit.about(TENANT, HOLD)) == 1


async def test_a_decision_stands_when_the_bus_is_down(desk: Desk) -> None:
    desk.bus.is_down = True
    assert (await desk.decide(BOTH)).status == "decided"
    desk.bus.is_down = False
    assert (await desk.decide(BOTH)).status == "decided"
    assert desk.bus.msg_ids == [hold_msg_id(HOLD, 2)]


async def test_a_decision_whose_client_goes_away_is_sent_all_the_same(desk: Desk) -> None:
    written, go_on = asyncio.Event(), asyncio.Event()
    send = desk.bus.send

    async def slow(*args: Any, **options: Any) -> Any:
        written.set()
        await go_on.wait()
        return await send(*args, **options)

    desk.bus.send = slow  # type: ignore[method-assign]
    deciding = asyncio.create_task(desk.decide(BOTH))
    async with asyncio.timeout(5):
        await written.wait()
        deciding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await deciding
        (under_way,) = desk.deciding._under_way
        go_on.set()
        await under_way
    assert desk.bus.msg_ids == [hold_msg_id(HOLD, 2)]
