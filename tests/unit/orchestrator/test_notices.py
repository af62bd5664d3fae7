"""What webhooks are told: one keyed call for each, the same one again however often it is told."""

from typing import Any, Final

import msgspec
import pytest

from kitemesh_contracts import canonical, codec, subjects
from kitemesh_contracts.commands import RunCalls
from kitemesh_contracts.content import AssistantMessage, CallResult, Usage
from kitemesh_contracts.errors import ErrorCode, ErrorInfo, Unavailable
from kitemesh_contracts.events import CallsReturned
from kitemesh_contracts.headers import job_msg_id
from kitemesh_contracts.ids import is_id
from kitemesh_contracts.news import NewsItem
from kitemesh_orchestrator import notices
from kitemesh_orchestrator.notices import Notices, _order
from kitemesh_runtime.catalog import Catalog
from kitemesh_runtime.catalog_tools import Webhook
from kitemesh_runtime.clock import SystemClock
from kitemesh_runtime.holds import HeldCall, Hold, Verdict
from kitemesh_runtime.metrics import NEWS_LOST
from kitemesh_runtime.turns import TurnRecord
from unit.orchestrator.catalogs import PARTS
from unit.orchestrator.turns import START, spoken

change: Final = msgspec.structs.replace
NOW_MS: Final = 1_790_000_000_000
DESK: Final = Webhook.model_validate(
    {"url": "https://desk.example/hook", "events": ["approval.requested"], "secret": {"env": "DESK_SECRET"}}
)
HELD: Final = HeldCall(
    id="pay1",
    name="pay",
    version="v1",
    effect="once",
    arguments='{"card_token":"4711"}',
    sha256="x",
    sentence="Pay 5",
    shown='{"card_token":"***"}',
)
HOLD: Final = Hold(
    id="hold-2",
    tenant="acme",
    turn=START.turn,
    step=2,
    model="agent:helper",
    calls=(HELD, change(HELD, id="pay2", verdict=Verdict(approved=False, reason="no", by="k"))),
    conversation="c-1",
    agent="helper",
    expires_at_s=1_790_000_600.1239,
)
RECORD: Final = TurnRecord(
    id=START.turn,
    tenant="acme",
    status="failed",
    mode="classic",
    model="agent:helper",
    conversation="c-1",
    agent="helper",
    input=(spoken("a secret question"),),
    answer=AssistantMessage(text="a secret answer"),
    usage=Usage(input_tokens=10, output_tokens=6),
    error=ErrorInfo(code=ErrorCode.UPSTREAM_FAILED, message="The model failed"),
)


def told(what: Any, about: Hold | TurnRecord) -> dict[str, Any]:
    """Return the body that a webhook gets."""
    (order,) = _order("desk", DESK, what, about).calls
    body: dict[str, Any] = msgspec.json.decode(order.arguments)
    return body


def test_a_notice_is_one_call_that_belongs_to_no_turn() -> None:
    job = _order("desk", DESK, "approval.requested", HOLD)
    (order,) = job.calls
    assert (job.turn, job.tenant, job.step, job.attempt, job.job) == (order.id, "acme", 0, 1, 0)
    assert (job.stored, job.budget_s) == (True, 10.0)
    assert order.name == "webhook_desk"
    assert order.arguments == canonical.canonical(order.arguments)
    assert order.sha256 == canonical.sha256(order.arguments)
    assert is_id(order.id)


def test_the_same_thing_told_again_is_the_same_call() -> None:
    assert _order("desk", DESK, "approval.requested", HOLD) == _order("desk", DESK, "approval.requested", HOLD)
    # What has no version of its own in the document changes nothing.
    applied = change(HOLD, applied=2)
    assert _order("desk", DESK, "approval.decided", applied) == _order("desk", DESK, "approval.decided", HOLD)


def test_another_webhook_event_or_decision_is_another_call() -> None:
    orders = [
        _order("desk", DESK, "approval.requested", HOLD),
        _order("other", DESK, "approval.requested", HOLD),
        _order("desk", DESK, "approval.decided", HOLD),
        _order("desk", DESK, "approval.decided", change(HOLD, version=2)),
        _order("desk", DESK, "approval.decided", change(HOLD, id="hold-3")),
        _order("desk", DESK, "turn.failed", RECORD),
    ]
    assert len({order.calls[0].id for order in orders}) == len(orders)


def test_a_hold_is_told_without_arguments_and_without_who_decided() -> None:
    body = told("approval.requested", HOLD)
    assert body == {
        "id": body["id"],
        "type": "approval.requested",
        "data": {
            "approval_id": "hold-2",
            "execution_id": START.turn,
            "conversation_id": "c-1",
            "agent": "helper",
            "model": "agent:helper",
            "status": "open",
            "expires_at_s": 1_790_000_600.124,
            "calls": [
                {"tool_execution_id": "pay1", "name": "pay", "sentence": "Pay 5", "approved": None},
                {"tool_execution_id": "pay2", "name": "pay", "sentence": "Pay 5", "approved": None},
            ],
        },
    }


def test_a_request_is_the_same_call_whenever_it_is_told() -> None:
    before = change(HOLD, calls=(HELD, change(HELD, id="pay2")))
    later = change(HOLD, status="decided", version=3)
    first = _order("desk", DESK, "approval.requested", before)
    assert [_order("desk", DESK, "approval.requested", each) for each in (HOLD, later)] == [first, first]


def test_a_decision_is_told_with_what_was_decided_so_far() -> None:
    data = told("approval.decided", change(HOLD, status="decided"))["data"]
    assert (data["status"], [each["approved"] for each in data["calls"]]) == ("decided", [None, False])


def test_a_turn_is_told_without_its_content() -> None:
    body = told("turn.failed", RECORD)
    assert body["data"] == {
        "execution_id": START.turn,
        "conversation_id": "c-1",
        "status": "failed",
        "agent": "helper",
        "model": "agent:helper",
        "error": {"code": "upstream.failed", "message": "The model failed"},
        "usage": {"input_tokens": 10, "output_tokens": 6},
    }
    assert told("turn.finished", change(RECORD, error=None, status="completed"))["data"]["error"] is None


def test_delays_grow_and_never_shrink() -> None:
    assert list(notices.DELAYS_S) == sorted(notices.DELAYS_S)
    day_s = 24 * 3600
    assert day_s <= sum(notices.DELAYS_S) <= 1.1 * day_s


class FakeBus:
    """Keeps what is sent now and what is to be sent later."""

    def __init__(self) -> None:
        self.posted: list[tuple[str, NewsItem]] = []
        self.sent: list[RunCalls] = []
        self.later: list[tuple[str, str, RunCalls, float, str]] = []

    def post(self, subject: str, payload: bytes) -> None:
        self.posted.append((subject, codec.decode(codec.NEWS, payload)))

    async def send(self, subject: str, payload: bytes, *, msg_id: str) -> None:
        job = read(payload)
        assert subject.startswith("km.v1.tool.webhooks.")
        assert msg_id == job_msg_id(job.turn, 0, "tool", 0, job.attempt)
        self.sent.append(job)

    async def schedule(self, subject: str, target: str, payload: bytes, *, at_s: float, msg_id: str) -> None:
        self.later.append((subject, target, read(payload), at_s, msg_id))


class StoppedClock(SystemClock):
    """Time stands still."""

    def now_ms(self) -> int:
        return NOW_MS


class FixedCatalog:
    """Two webhooks, of which one asked for holds."""

    current = Catalog.model_validate(
        {
            **PARTS,
            "pools": {"tool": {"default": {}, "slow": {}, "webhooks": {}}},
            "webhooks": {
                name: {"url": "https://desk.example/hook", "events": events, "secret": {"env": "DESK_SECRET"}}
                for name, events in {"desk": ["approval.requested"], "other": ["turn.failed"]}.items()
            },
        }
    )


def read(payload: bytes) -> RunCalls:
    job = codec.decode(codec.RUN_CALLS, payload)
    assert isinstance(job, RunCalls)
    return job


def returned(job: RunCalls, code: ErrorCode | None = None) -> CallsReturned:
    """Say how a webhook's call went."""
    error = ErrorInfo(code=code, message="The webhook failed") if code is not None else None
    return CallsReturned(
        turn=job.turn,
        tenant=job.tenant,
        step=job.step,
        attempt=job.attempt,
        job=job.job,
        results=(CallResult(call=job.calls[0].id, error=error),),
        carry=job.carry,
    )


@pytest.fixture
def bus() -> FakeBus:
    return FakeBus()


def telling(bus: FakeBus) -> Notices:
    return Notices(bus, FixedCatalog(), StoppedClock())  # type: ignore[arg-type]  only what is faked is used


async def told_once(bus: FakeBus) -> RunCalls:
    """Return the job by which the one webhook that asked for holds is told of one."""
    await telling(bus).tell("approval.requested", HOLD)
    (job,) = bus.sent
    assert job.calls == _order("desk", DESK, "approval.requested", HOLD).calls
    return job


async def test_a_call_that_may_yet_succeed_is_made_again_after_growing_delays(bus: FakeBus) -> None:
    job = await told_once(bus)
    for number, delay_s in enumerate(notices.DELAYS_S, start=1):
        await telling(bus).on_returned(returned(job, ErrorCode.TOOL_FAILED))
        subject, target, again, at_s, _ = bus.later[-1]
        assert (subject, target) == (subjects.timer("notice", job.turn), subjects.timer_due("notice", job.turn))
        assert at_s == NOW_MS / 1000 + delay_s
        assert (again.attempt, again.calls) == (number + 1, job.calls)
        await telling(bus).on_due(again)
        job = bus.sent[-1]
        assert (job.attempt, job.calls) == (number + 1, again.calls)
    await telling(bus).on_returned(returned(job, ErrorCode.TOOL_FAILED))
    assert len(bus.later) == len({msg_id for *_, msg_id in bus.later}) == len(notices.DELAYS_S)


@pytest.mark.parametrize(
    "code",
    [None, ErrorCode.TOOL_UNKNOWN, ErrorCode.TOOL_CHANGED, ErrorCode.TOOL_ARGUMENTS, ErrorCode.TOOL_BLOCKED],
)
async def test_a_call_that_came_through_or_never_will_is_not_made_again(bus: FakeBus, code: ErrorCode | None) -> None:
    await telling(bus).on_returned(returned(await told_once(bus), code))
    assert bus.later == []
    assert len(bus.sent) == 1


async def test_a_webhook_that_was_taken_out_of_the_catalog_is_told_nothing_more(bus: FakeBus) -> None:
    gone = _order("gone", DESK, "approval.requested", HOLD)
    await telling(bus).on_due(gone)
    assert bus.sent == []


async def test_the_feed_is_told_of_everything_whoever_else_is(bus: FakeBus) -> None:
    notices = telling(bus)
    decided = change(HOLD, status="decided", version=3)
    await notices.tell("approval.requested", decided)
    await notices.tell("approval.decided", decided)
    await notices.tell("approval.expired", change(HOLD, status="expired"))
    notices.tell_cancelled(change(HOLD, status="cancelled"))
    await notices.tell("turn.failed", change(RECORD, ended_at_ms=7))
    notices.tell_refused(change(RECORD, status="cancelled", conversation=None))
    assert [subject.removeprefix("km.v1.feed.acme.") for subject, _ in bus.posted] == [
        "approval.requested.hold-2",
        f"turn.held.{START.turn}",
        "approval.decided.hold-2",
        "approval.expired.hold-2",
        "approval.cancelled.hold-2",
        f"turn.ended.{START.turn}",
        f"turn.ended.{START.turn}",
    ]
    items = [item for _, item in bus.posted]
    assert [(item.id, item.status, item.mode, item.at_ms) for item in items] == [
        ("approval.requested:hold-2", "open", "durable", 0),
        ("turn.held:hold-2", "held", "durable", 0),
        ("approval.decided:hold-2:3", "decided", "durable", NOW_MS),
        ("approval.expired:hold-2", "expired", "durable", NOW_MS),
        ("approval.cancelled:hold-2", "cancelled", "durable", NOW_MS),
        (f"turn.ended:{START.turn}", "failed", "classic", 7),
        (f"turn.ended:{START.turn}", "cancelled", "classic", 0),
    ]
    assert {(item.execution_id, item.model) for item in items} == {(START.turn, "agent:helper")}
    assert [(item.approval_id, item.conversation_id) for item in items[3:6]] == [
        ("hold-2", "c-1"),
        ("hold-2", "c-1"),
        (None, "c-1"),
    ]


async def test_news_that_are_told_again_have_the_same_id(bus: FakeBus) -> None:
    for about in (HOLD, change(HOLD, applied=2)):
        await telling(bus).tell("approval.decided", about)
    await telling(bus).tell("approval.decided", change(HOLD, version=2))
    first, again, other = [item.id for _, item in bus.posted]
    assert first == again != other


async def test_a_feed_that_cannot_be_told_holds_nothing_up(bus: FakeBus, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise Unavailable(ErrorCode.BUS_DOWN, "Too much waits")

    monkeypatch.setattr(bus, "post", refuse)
    lost = NEWS_LOST.collect()[0].samples[0].value
    await telling(bus).tell("turn.failed", RECORD)
    assert [call.name for job in bus.sent for call in job.calls] == ["webhook_other"]
    assert NEWS_LOST.collect()[0].samples[0].value == lost + 1
