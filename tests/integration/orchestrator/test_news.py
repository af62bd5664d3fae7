"""What a tenant's feed is told while turns run, wait and end."""

import asyncio

import pytest

from integration.orchestrator.held_turns import decide, held, hold_of, with_tools
from integration.orchestrator.rig import Rig, start
from kitemesh_contracts import codec, subjects, topology
from kitemesh_contracts.errors import ErrorCode
from kitemesh_contracts.ids import hold_id
from kitemesh_contracts.news import NewsItem
from kitemesh_runtime.holds import Verdict


class Feed:
    """What is told of one turn, in the order of the stream."""

    def __init__(self, rig: Rig, turn: str) -> None:
        self._rig = rig
        self._turn = turn

    async def told(self) -> list[tuple[str, str, str]]:
        """Return type, status and mode of everything so far."""
        assert await self._rig.bus.posted(timeout_s=5)
        stored = await self._rig.bus.since(topology.FEED, subjects.feed_of("acme"), 1, limit=10_000)
        items = [codec.decode(codec.NEWS, each.payload) for each in stored]
        return [_short(item) for item in items if item.execution_id == self._turn]


def _short(item: NewsItem) -> tuple[str, str, str]:
    return item.type, item.status, item.mode


@pytest.mark.requirement("events:tell-without-content")
async def test_the_end_of_a_classic_turn_is_told_with_its_conversation(rig: Rig) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    begun = start(conversation="c-news", fresh=True)
    await rig.bus.subscribe(subjects.feed("acme", "turn.ended", begun.turn), lambda _, data: heard.put_nowait(data))
    await rig.start(begun)
    await rig.answer(await rig.job(), "Hello.")
    async with asyncio.timeout(5):
        item = codec.decode(codec.NEWS, await heard.get())
    assert _short(item) == ("turn.ended", "completed", "classic")
    assert (item.conversation_id, item.model, item.approval_id) == ("c-news", begun.route.requested, None)


@pytest.mark.requirement("events:tell-without-content")
async def test_a_turn_that_holds_is_told_step_by_step(rig: Rig) -> None:
    begun = with_tools()
    feed = Feed(rig, begun.turn)
    await held(rig, begun, ("wipe", "{}"))
    opened = [("approval.requested", "open", "durable"), ("turn.held", "held", "durable")]
    assert await feed.told() == opened
    hold = await hold_of(rig, begun.turn)
    await decide(rig, hold, wipe=Verdict(approved=False, reason="no", by="k"))
    await rig.apply(begun.turn, hold.id)
    await rig.answer(await rig.job(), "Fine.")
    assert await feed.told() == [
        *opened,
        ("approval.decided", "decided", "durable"),
        ("turn.ended", "completed", "durable"),
    ]


async def test_a_hold_that_is_cancelled_with_its_turn_is_told(rig: Rig) -> None:
    begun = with_tools()
    await held(rig, begun, ("wipe", "{}"))
    await rig.cancel(begun.turn)
    told = await Feed(rig, begun.turn).told()
    assert told[2:] == [("approval.cancelled", "cancelled", "durable"), ("turn.ended", "cancelled", "durable")]


async def test_a_hold_that_runs_out_is_told(rig: Rig) -> None:
    begun = with_tools()
    await held(rig, begun, ("wipe", "{}"))
    rig.later(25 * 3600)
    await rig.apply(begun.turn, hold_id(begun.turn, 1))
    assert ("approval.expired", "expired", "durable") in await Feed(rig, begun.turn).told()


@pytest.mark.parametrize(("durable", "told"), [(True, [("turn.ended", "failed", "durable")]), (False, [])])
async def test_a_refused_turn_is_told_only_if_it_was_accepted_before(
    rig: Rig, *, durable: bool, told: list[tuple[str, str, str]]
) -> None:
    begun = with_tools("nobody")
    if durable:
        begun = await rig.accept(begun)
    await rig.start(begun)
    closing = await rig.closing()
    assert closing.error is not None
    assert closing.error.code is ErrorCode.MODEL_UNKNOWN
    assert await Feed(rig, begun.turn).told() == told
