"""Long results that a model is shown again are fetched only as far as they can be shown."""

import pytest

from integration.orchestrator.held_turns import results_in, with_tools
from integration.orchestrator.rig import Rig, start
from integration.orchestrator.test_repeats import Failing
from kitemesh_contracts import codec
from kitemesh_contracts.commands import Parcel
from kitemesh_contracts.content import AssistantMessage, CallResult, Step, ToolCall
from kitemesh_contracts.events import CallsReturned
from kitemesh_orchestrator import jobs
from kitemesh_orchestrator.endings import UNDELIVERED
from kitemesh_runtime.catalog import History
from kitemesh_runtime.turns import TurnRecord

LONG = 64 * 1024


async def long_blobs(rig: Rig, count: int) -> list[str]:
    return [await rig.stores.blobs.put("acme", b"%03d" % number + b"z" * LONG, keep_s=60) for number in range(count)]


class Fetches:
    """Counts the bytes that are fetched of blobs."""

    def __init__(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        self._get = rig.stores.blobs.get
        self.bytes = 0
        monkeypatch.setattr(rig.stores.blobs, "get", self.get)

    async def get(self, tenant: str, blob: str) -> bytes | None:
        data = await self._get(tenant, blob)
        self.bytes += len(data or b"")
        return data


async def test_of_a_history_no_more_is_fetched_than_the_window_shows(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    conversation = "c-long-history"
    await rig.start(start("one", conversation=conversation, fresh=True))
    await rig.answer(await rig.job(), "1")
    await rig.closing()
    for ordinal in range(2, 12):
        blobs = await long_blobs(rig, 2)
        calls = tuple(ToolCall(id=f"c{ordinal}-{place}", name="look", arguments="{}") for place in range(2))
        results = tuple(CallResult(call=call.id, blob=blob) for call, blob in zip(calls, blobs, strict=True))
        record = TurnRecord(
            id=f"long-{ordinal}",
            tenant="acme",
            status="completed",
            mode="classic",
            model="m",
            conversation=conversation,
            ordinal=ordinal,
            answer=AssistantMessage(text=f"answer {ordinal}"),
            steps=(Step(step=1, calls=calls, results=results),),
        )
        await rig.stores.turns.put("acme", record)
    rig.stores.conversations._kept["acme", conversation].turns = 11  # type: ignore[attr-defined]
    fetches = Fetches(rig, monkeypatch)
    await rig.start(start("again", conversation=conversation))
    job = await rig.job()
    assert fetches.bytes <= History().characters + LONG + 3
    shown = [message.text for message in job.messages if isinstance(message, AssistantMessage) and message.text]
    assert shown == ["answer 11"]


async def returned_long(rig: Rig, count: int) -> None:
    """Have a first step's calls return so many long results."""
    job = await rig.job()
    await rig.call(job, *[("look", "{}")] * count)
    tool = await rig.tool_job()
    blobs = await long_blobs(rig, count)
    await rig.event(
        CallsReturned(
            turn=tool.turn,
            tenant="acme",
            step=1,
            attempt=1,
            results=tuple(CallResult(call=call.id, blob=blob) for call, blob in zip(tool.calls, blobs, strict=True)),
            carry=tool.carry,
        )
    )


async def test_of_a_turns_own_long_results_the_newest_are_shown_up_to_a_bound(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "RESULTS_MAX_CHARS", 2 * LONG)
    await rig.start(with_tools())
    fetches = Fetches(rig, monkeypatch)
    await returned_long(rig, 5)
    shown = results_in(await rig.job())
    assert [text[:3] for text in shown[3:]] == ["003", "004"]
    assert shown[:3] == [jobs.NOT_SHOWN] * 3
    assert fetches.bytes == 2 * (LONG + 3)


@pytest.mark.parametrize("results", [0, 20])
async def test_what_says_that_an_answer_cannot_be_delivered_is_small(rig: Rig, results: int) -> None:
    await rig.start(with_tools())
    job = await rig.job()
    if results:
        await rig.call(job, *[("look", "{}")] * results)
        await rig.returned(await rig.tool_job(), *["z" * 10_000] * results)
        job = await rig.job()
    rig.endings._parcels._blobs = Failing(rig.stores.blobs, "put")  # type: ignore[assignment]
    await rig.answer(job, "x" * 1024 * 1024)
    closing = await rig.closing()
    assert (closing.outcome, closing.error, closing.earlier) == ("failed", UNDELIVERED, ())
    assert len(codec.encode(closing)) < 1024


@pytest.mark.requirement("resume:nothing-is-missed")
async def test_of_a_turn_that_is_in_the_store_nobody_is_told_that_it_failed_because_its_end_cannot_travel(
    rig: Rig,
) -> None:
    begun = await rig.accept(start("Fly"))
    await rig.start(begun)
    job = await rig.job()
    blobs = rig.endings._parcels._blobs
    rig.endings._parcels._blobs = Failing(rig.stores.blobs, "put")  # type: ignore[assignment]
    await rig.answer(job, "x" * 1024 * 1024)
    ended = await rig.stores.live_turns.get("acme", begun.turn)
    assert isinstance(ended, TurnRecord)
    assert ended.status == "completed"
    # Nor when an event of it comes again; once it can be told, it is.
    await rig.answer(job, "again")
    await rig.bus.barrier()
    assert rig.closings.empty()
    rig.endings._parcels._blobs = blobs
    await rig.endings.repeat(ended)
    assert isinstance(await rig.closing(), Parcel)
