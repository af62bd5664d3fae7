"""Every effect class in every state of the ledger, through every crash: how often a tool runs, and what is told."""

import asyncio
from typing import Any

import pytest
import structlog

from kitemesh_contracts.content import CallResult
from kitemesh_contracts.errors import ErrorCode, Unavailable
from kitemesh_runtime.clock import SystemClock
from kitemesh_runtime.ledger import LedgerRow
from kitemesh_runtime.live_turns import LiveTurn
from kitemesh_runtime.metrics import TOOL_OUTCOME_UNKNOWN
from kitemesh_tool_executor import dispatch
from kitemesh_tool_executor.tool import CallFailed
from unit.tool_executor.doubles import EFFECTS, TENANT, TURN, Crash, Rig, catalog_of, code, rig, work_of

UNSENT = CallFailed(ErrorCode.TOOL_FAILED, "not now", sent=False, again=True)
SENT = CallFailed(ErrorCode.TOOL_FAILED, "it said 503", sent=True, again=True)
ANSWERED = CallFailed(ErrorCode.TOOL_FAILED, "it said 404", sent=True, answered=True)
FINAL = CallFailed(ErrorCode.TOOL_FAILED, "never", sent=False)
STORED = CallResult(call="call-1", text="stored")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "BACKOFF_S", 0.0)


async def put(rig: Rig, effect: Any, state: str) -> None:
    """Bring the ledger into a state, as another delivery left it."""
    if state == "none":
        return
    row = LedgerRow(
        id="call-1",
        tenant=TENANT,
        turn=TURN,
        tool=effect,
        effect=effect,
        state="cancelled" if state == "cancelled" else "dispatched",
        by="other",
        args_sha256=rig.order(effect).sha256,
    )
    ledger = rig.stores.ledger
    await ledger.dispatch(TENANT, row)
    if state == "finished":
        await ledger.finish(TENANT, "call-1", "other", STORED)
    if state in ("unknown", "late"):
        await ledger.give_up(TENANT, row)
    if state == "late":
        await ledger.finish(TENANT, "call-1", "other", STORED)


RETURNED = None
LEDGER = [
    # effect, the row that is found, times the tool runs, what is told, the row afterwards
    ("safe", "none", 1, RETURNED, None),
    ("keyed", "none", 1, RETURNED, "finished"),
    ("keyed", "dispatched", 1, RETURNED, "finished"),
    ("keyed", "finished", 0, RETURNED, "finished"),
    ("keyed", "cancelled", 0, ErrorCode.TOOL_CANCELLED, "cancelled"),
    ("keyed", "unknown", 0, ErrorCode.TOOL_UNCERTAIN, "unknown"),
    ("once", "none", 1, RETURNED, "finished"),
    ("once", "dispatched", 0, ErrorCode.TOOL_UNCERTAIN, "unknown"),
    ("once", "finished", 0, RETURNED, "finished"),
    ("once", "cancelled", 0, ErrorCode.TOOL_CANCELLED, "cancelled"),
    ("once", "unknown", 0, ErrorCode.TOOL_UNCERTAIN, "unknown"),
    ("once", "late", 0, RETURNED, "unknown"),
]


@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize(("effect", "state", "runs", "told", "after"), LEDGER)
async def test_the_row_that_is_found_decides(
    effect: str, state: str, runs: int, told: ErrorCode | None, after: str | None, *, repeated: bool
) -> None:
    r = rig()
    await put(r, effect, state)
    result = await r.run(r.order(effect), work_of(repeated=repeated))
    assert (len(r.tool.calls), code(result)) == (runs, told)
    if told is None:
        assert result.text == ("done" if runs else "stored")
    row = await r.row()
    assert (row.state if row else None) == after


@pytest.mark.parametrize(
    ("status", "runs", "told"), [("running", 1, RETURNED), ("cancelling", 0, ErrorCode.TOOL_UNCERTAIN)]
)
async def test_nothing_of_a_cancelled_turn_starts_again(status: str, runs: int, told: ErrorCode | None) -> None:
    r = rig()
    await put(r, "keyed", "dispatched")
    live = LiveTurn(id=TURN, tenant=TENANT, version=1, status="running", mode="durable", model="m", state=b"")
    assert await r.stores.live_turns.insert(TENANT, live)
    if status == "cancelling":
        await r.stores.live_turns.cancel(TENANT, TURN, "enough")
    result = await r.run(r.order("keyed"), work_of(repeated=True, stored=True, mode="durable"))
    assert (len(r.tool.calls), code(result)) == (runs, told)


CRASHES = [
    # effect, where the first delivery dies, times the tool runs in all, what the second delivery tells
    ("safe", "tool", 2, RETURNED),
    ("keyed", "tool.after_dispatched", 1, RETURNED),
    ("keyed", "tool", 2, RETURNED),
    ("keyed", "tool.after_response", 2, RETURNED),
    ("keyed", "stored", 1, RETURNED),
    ("once", "tool.after_dispatched", 0, ErrorCode.TOOL_UNCERTAIN),
    ("once", "tool", 1, ErrorCode.TOOL_UNCERTAIN),
    ("once", "tool.after_response", 1, ErrorCode.TOOL_UNCERTAIN),
    ("once", "stored", 1, RETURNED),
]


@pytest.mark.requirement("tool:effect-classes", "tool:outcome-unknown")
@pytest.mark.parametrize(("effect", "point", "runs", "told"), CRASHES)
async def test_a_crash_is_followed_by_what_the_effect_class_allows(
    effect: str, point: str, runs: int, told: ErrorCode | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def reach(name: str) -> None:
        if name == point:
            raise Crash

    r = rig()
    if point == "stored":
        await r.run(r.order(effect), work_of("first"))
    else:
        monkeypatch.setattr(dispatch, "reach", reach)
        r.tool.script = [Crash()] if point == "tool" else []
        with pytest.raises(Crash):
            await r.run(r.order(effect), work_of("first"))
        monkeypatch.undo()
    result = await r.run(r.order(effect), work_of("second", repeated=True))
    assert (len(r.tool.calls), code(result)) == (runs, told)
    assert {call.id for call in r.tool.calls} <= {"call-1"}
    # Whoever comes third is told the same.
    assert await r.run(r.order(effect), work_of("third", repeated=True)) == result or effect == "safe"


FAILURES = [
    # effect, what the tool does, times it runs, what is told, the row afterwards
    ("safe", [SENT, UNSENT], 3, RETURNED, None),
    ("safe", [SENT, SENT, SENT], 3, ErrorCode.TOOL_FAILED, None),
    ("safe", [FINAL], 1, ErrorCode.TOOL_FAILED, None),
    ("keyed", [SENT, UNSENT], 3, RETURNED, "finished"),
    ("keyed", [SENT, SENT, SENT], 3, ErrorCode.TOOL_FAILED, "finished"),
    ("once", [UNSENT, UNSENT], 3, RETURNED, "finished"),
    ("once", [UNSENT, UNSENT, UNSENT], 3, ErrorCode.TOOL_FAILED, "finished"),
    ("once", [UNSENT, SENT], 2, ErrorCode.TOOL_UNCERTAIN, "unknown"),
    ("once", [SENT], 1, ErrorCode.TOOL_UNCERTAIN, "unknown"),
    ("once", [ANSWERED], 1, ErrorCode.TOOL_FAILED, "finished"),
    ("once", [FINAL], 1, ErrorCode.TOOL_FAILED, "finished"),
    ("safe", [RuntimeError("a secret")], 1, ErrorCode.TOOL_FAILED, None),
    ("keyed", [RuntimeError("a secret")], 1, ErrorCode.TOOL_FAILED, "finished"),
    ("once", [RuntimeError("a secret")], 1, ErrorCode.TOOL_UNCERTAIN, "unknown"),
]


@pytest.mark.parametrize(("effect", "script", "runs", "told", "after"), FAILURES)
async def test_a_failure_is_repeated_only_where_that_is_harmless(
    effect: str, script: list[BaseException | str], runs: int, told: ErrorCode | None, after: str | None
) -> None:
    r = rig()
    r.tool.script = list(script)
    result = await r.run(r.order(effect))
    assert (len(r.tool.calls), code(result)) == (runs, told)
    assert len({call.id for call in r.tool.calls}) == 1
    assert result.error is None or "secret" not in result.error.message
    row = await r.row()
    assert (row.state if row else None) == after


@pytest.mark.parametrize(
    ("effect", "told", "after"),
    [
        ("safe", ErrorCode.TOOL_TIMEOUT, None),
        ("keyed", ErrorCode.TOOL_TIMEOUT, "finished"),
        ("once", ErrorCode.TOOL_UNCERTAIN, "unknown"),
    ],
)
async def test_a_tool_that_hangs_is_given_up(
    effect: str, told: ErrorCode, after: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "GRACE_S", 0.0)
    r = rig(timeout_s=0.05)
    r.tool.hangs = True
    assert code(await r.run(r.order(effect))) == told
    row = await r.row()
    assert (row.state if row else None) == after


@pytest.mark.requirement("tool:unknown", "tool:arguments", "tool:changed")
@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": "rm"}, ErrorCode.TOOL_UNKNOWN),
        ({"name": "webhook_rm"}, ErrorCode.TOOL_UNKNOWN),
        ({"version": "0" * 64}, ErrorCode.TOOL_CHANGED),
        ({"version": ""}, ErrorCode.TOOL_CHANGED),
        ({"arguments": '{"n":2}'}, ErrorCode.TOOL_CHANGED),
        ({"sha256": ""}, ErrorCode.TOOL_CHANGED),
    ],
)
async def test_what_was_not_judged_is_not_run(effect: str, change: dict[str, str], told: ErrorCode) -> None:
    r = rig()
    order = r.order(effect)
    changed = type(order)(**{**{name: getattr(order, name) for name in order.__struct_fields__}, **change})
    assert code(await r.run(changed)) == told
    assert r.tool.calls == []
    assert await r.row() is None


@pytest.mark.parametrize("arguments", ['{"n":"one"}', "[]", "null", "{", "[" * 5000])
async def test_arguments_that_do_not_fit_are_told_without_being_quoted(arguments: str) -> None:
    r = rig()
    result = await r.run(r.order("once", arguments))
    assert code(result) == ErrorCode.TOOL_ARGUMENTS
    assert r.tool.calls == []
    if arguments.startswith('{"n'):
        assert result.error is not None
        assert result.error.message == 'The arguments do not fit: n: the value is not of type "integer"'


async def test_a_tool_that_changed_in_the_catalog_refuses_what_was_judged_before() -> None:
    r = rig()
    order = r.order("once")
    assert code(await r.run(order)) is None
    r.source.current = catalog_of(url="https://example.com/other")
    assert code(await r.run(r.order("once", id="call-2", version=order.version))) == ErrorCode.TOOL_CHANGED


@pytest.mark.parametrize("state", ["dispatched", "finished"])
async def test_a_refusal_never_denies_what_an_earlier_delivery_did(state: str) -> None:
    r = rig()
    order = r.order("once")
    await put(r, "once", state)
    r.source.current = catalog_of(url="https://example.com/other")
    result = await r.run(order, work_of(repeated=True))
    assert code(result) == (ErrorCode.TOOL_UNCERTAIN if state == "dispatched" else None)


async def test_other_arguments_under_the_same_id_are_refused() -> None:
    r = rig()
    await r.run(r.order("once"))
    assert code(await r.run(r.order("once", '{"n":2}'), work_of("other"))) == ErrorCode.TOOL_CHANGED
    assert len(r.tool.calls) == 1


@pytest.mark.parametrize("afterwards", [False, True])
@pytest.mark.parametrize("effect", ["keyed", "once"])
async def test_while_the_store_is_down_nothing_is_sent_and_the_call_waits(effect: str, *, afterwards: bool) -> None:
    r = rig()
    r.ledger.away, r.ledger.afterwards = {"dispatch": 1}, afterwards
    work = work_of()
    with pytest.raises(Unavailable):
        await r.run(r.order(effect), work)
    assert r.tool.calls == []
    assert not work.dispatched
    assert (await r.run(r.order(effect), work)).text == "done"
    assert len(r.tool.calls) == 1


@pytest.mark.parametrize("afterwards", [False, True])
@pytest.mark.parametrize(("effect", "lost"), [("keyed", "finish"), ("once", "finish"), ("once", "give_up")])
async def test_a_result_is_stored_however_long_the_store_is_away_and_never_made_again(
    effect: str, lost: str, *, afterwards: bool
) -> None:
    r = rig()
    r.ledger.away, r.ledger.afterwards = {lost: 5}, afterwards
    r.tool.script = [SENT] if lost == "give_up" else []
    result = await r.run(r.order(effect))
    assert len(r.tool.calls) == 1
    assert r.ledger.tried.count(lost) == 6
    row = await r.row()
    assert row is not None
    assert row.state == ("unknown" if lost == "give_up" else "finished")
    assert row.result == (None if lost == "give_up" else result)


async def test_a_safe_call_needs_no_ledger() -> None:
    r = rig()
    r.ledger.away = dict.fromkeys(("dispatch", "get", "finish"), 99)
    assert (await r.run(r.order("safe"))).text == "done"


async def test_when_the_time_is_up_before_the_store_is_back_the_call_was_not_run() -> None:
    r = rig()
    r.ledger.away = {"dispatch": 99, "get": 99}
    work = work_of(budget_s=0.0)
    assert code(await r.run(r.order("once"), work)) == ErrorCode.TOOL_TIMEOUT
    with pytest.raises(Unavailable):
        await r.run(r.order("once"), work_of(budget_s=0.0, repeated=True))


@pytest.mark.parametrize("effect", EFFECTS)
async def test_a_call_whose_time_was_up_before_its_job_came_is_not_run(effect: str) -> None:
    r = rig()
    assert (await r.run(r.order(effect), work_of(queued_s=31.0))).error == dispatch.TOO_LATE
    assert r.tool.calls == []
    assert await r.row() is None


@pytest.mark.parametrize("effect", EFFECTS)
async def test_what_its_job_waited_is_taken_from_a_calls_time(effect: str) -> None:
    r = rig()
    assert code(await r.run(r.order(effect), work_of(queued_s=28.0))) is None
    (call,) = r.tool.calls
    assert 0 < call.timeout_s <= 2.0


@pytest.mark.parametrize(
    ("effect", "state", "told"),
    [
        ("once", "dispatched", ErrorCode.TOOL_UNCERTAIN),
        ("keyed", "dispatched", ErrorCode.TOOL_UNCERTAIN),
        ("once", "finished", None),
        ("keyed", "finished", None),
    ],
)
async def test_when_the_time_is_up_what_an_earlier_delivery_did_is_still_told(
    effect: str, state: str, told: ErrorCode | None
) -> None:
    r = rig()
    await put(r, effect, state)
    assert code(await r.run(r.order(effect), work_of(repeated=True, queued_s=31.0))) == told
    assert r.tool.calls == []


async def test_a_webhooks_time_counts_from_when_its_job_came() -> None:
    r = rig()
    r.tool.script = [""]
    assert code(await r.run(r.order("webhook_ops"), work_of(queued_s=3000.0))) is None


async def test_a_row_that_was_stored_although_the_store_said_otherwise_is_ended_when_the_call_is_cancelled() -> None:
    r = rig()
    r.ledger.away, r.ledger.afterwards = {"dispatch": 1}, True
    work = work_of()
    with pytest.raises(Unavailable):
        await r.run(r.order("once"), work)
    work.stop("the client left")
    assert code(await r.run(r.order("once"), work)) == ErrorCode.TOOL_CANCELLED
    row = await r.row()
    assert row is not None
    assert row.state == "finished"
    assert r.tool.calls == []


@pytest.mark.parametrize("effect", EFFECTS)
async def test_a_call_that_comes_after_its_cancel_is_not_run(effect: str) -> None:
    r = rig()
    assert code(await r.run(r.order(effect), work_of(reason="enough"))) == ErrorCode.TOOL_CANCELLED
    assert r.tool.calls == []
    assert await r.row() is None


async def test_a_running_safe_call_is_stopped_at_once() -> None:
    r, work = rig(), work_of()
    r.tool.hangs = True
    running = asyncio.create_task(r.run(r.order("safe"), work))
    async with asyncio.timeout(5):
        await r.tool.asked.wait()
        work.stop("enough")
        assert code(await running) == ErrorCode.TOOL_CANCELLED


@pytest.mark.parametrize("effect", ["keyed", "once"])
async def test_a_dispatched_call_is_let_finish(effect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    r, work = rig(), work_of()
    go_on = asyncio.Event()

    async def run(_: Any) -> str:
        r.tool.asked.set()
        await go_on.wait()
        return "true result"

    monkeypatch.setattr(r.tool, "run", run)
    running = asyncio.create_task(r.run(r.order(effect), work))
    async with asyncio.timeout(5):
        await r.tool.asked.wait()
        work.stop("enough")
        go_on.set()
        assert (await running).text == "true result"


async def test_a_cancel_that_comes_while_the_row_is_inserted_keeps_the_call_from_running(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    r, work = rig(), work_of()

    async def reach(name: str) -> None:
        work.stop("enough")

    monkeypatch.setattr(dispatch, "reach", reach)
    assert code(await r.run(r.order("once"), work)) == ErrorCode.TOOL_CANCELLED
    assert r.tool.calls == []
    row = await r.row()
    assert row is not None
    assert row.state == "finished"


@pytest.mark.parametrize(("effect", "runs"), [("keyed", 0), ("once", 0)])
async def test_a_process_that_stood_still_looks_again_before_it_sends(
    effect: str, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Thawed(SystemClock):
        ahead_s = 0.0

        def monotonic(self) -> float:
            return super().monotonic() + self.ahead_s

    clock = Thawed()
    r = rig(clock)

    async def freeze(name: str) -> None:
        monkeypatch.undo()
        clock.ahead_s = 20.0
        # Meanwhile another takes it for dead.
        await r.run(r.order(effect), work_of("other", repeated=True))
        assert len(r.tool.calls) == (1 if effect == "keyed" else 0)
        r.tool.calls.clear()

    monkeypatch.setattr(dispatch, "reach", freeze)
    result = await r.run(r.order(effect), work_of("frozen"))
    assert code(result) == (None if effect == "keyed" else ErrorCode.TOOL_UNCERTAIN)
    assert len(r.tool.calls) == runs


@pytest.mark.requirement("tool:large-results")
async def test_a_long_result_becomes_a_blob_and_one_beyond_the_limit_an_error() -> None:
    r = rig()
    r.tool.script = ["ü" * 40_000]
    result = await r.run(r.order("once"))
    assert result.text == ""
    assert result.blob is not None
    assert await r.stores.blobs.get(TENANT, result.blob) == ("ü" * 40_000).encode()
    r.tool.script = ["x" * 700_000]
    too_long = await r.run(r.order("once", id="call-2"))
    assert too_long.error is not None
    assert too_long.error.message == "The result is larger than 600000 bytes"


async def test_a_result_that_is_not_text_is_an_error() -> None:
    r = rig()
    r.tool.script = ["\ud800"]
    assert code(await r.run(r.order("safe"))) == ErrorCode.TOOL_FAILED


async def test_an_unknown_outcome_is_counted_and_seen_by_the_operator() -> None:
    r = rig()
    r.tool.script = [SENT]
    before = TOOL_OUTCOME_UNKNOWN._value.get()
    with structlog.testing.capture_logs() as logs:
        await r.run(r.order("once"))
    assert TOOL_OUTCOME_UNKNOWN._value.get() == before + 1
    (line,) = [each for each in logs if each["event"] == "call.outcome_unknown"]
    assert (line["call"], line["tool"], line["turn"]) == ("call-1", "once", TURN)
    assert [row.id for row in await r.stores.ledger.unknown(TENANT)] == ["call-1"]


async def test_one_line_tells_of_each_call_and_holds_neither_arguments_nor_results() -> None:
    r = rig()
    r.tool.script = ["the secret result"]
    with structlog.testing.capture_logs() as logs:
        await r.run(r.order("keyed", '{"n":7,"secret":"argument"}'))
    (line,) = [each for each in logs if each["event"] == "call.ended"]
    assert {"turn", "call", "tool", "effect", "outcome", "ms"} <= set(line)
    assert "secret" not in str(logs)


async def test_a_name_that_is_no_tool_is_not_repeated_in_the_log() -> None:
    r = rig()
    with structlog.testing.capture_logs() as logs:
        await r.run(r.order("a forged\nline"))
    assert "forged" not in str(logs)


async def test_a_webhook_that_failed_may_be_called_again_under_the_same_id() -> None:
    r = rig()
    r.tool.script = [SENT, SENT, SENT, ""]
    assert code(await r.run(r.order("webhook_ops"), work_of("first"))) == ErrorCode.TOOL_FAILED
    assert code(await r.run(r.order("webhook_ops"), work_of("second", repeated=True))) is None
    assert code(await r.run(r.order("webhook_ops"), work_of("third", repeated=True))) is None
    assert len(r.tool.calls) == 4
