"""`GET /v1/events`: what happens at one gateway is told at another, within the tenant, and from any place on again."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from cluster import Cluster
from stream_client import Event, Stream, ask, open_session, streaming
from tool_cluster import Gateway, cancel, make_keys, question

FEED = "/v1/events"
HELD = 'Please.\n@call delete_record {"id": "7"}\n@then\n@echo Gone.'


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as opened:
        yield opened


@pytest.fixture(scope="module")
def stranger(cluster: Cluster) -> str:
    """A key of another tenant."""
    (key,) = make_keys(cluster, ("someone-else", ("chat", "approve")))
    return key


@asynccontextmanager
async def reading(
    session: aiohttp.ClientSession, gateway: Cluster, *, types: str = "", **more: str
) -> AsyncIterator[Stream]:
    """Be a reader of the news from now on, or from a place on."""
    path = f"{FEED}?types={types}" if types else FEED
    async with streaming(session, gateway, path=path, **more) as stream:
        assert stream.status == 200, await stream.json()
        yield stream


async def news(stream: Stream, execution: str, count: int) -> list[tuple[Event, dict[str, Any]]]:
    """Return the next news of an execution: others happen in the same cluster."""
    found = []
    async for event in stream.events():
        item = json.loads(event.data)
        if item["execution_id"] == execution:
            found.append((event, item))
            if len(found) == count:
                return found
    raise AssertionError(f"the news ended behind {found}")


def types_of(found: list[tuple[Event, dict[str, Any]]]) -> list[str]:
    return [item["type"] for _, item in found]


async def say(gateway: Cluster, text: str, *, key: str = "", **more: Any) -> Any:
    """Run a durable turn, not streamed."""
    body = {**ask(text), "stream": False, **more}
    reply = await asyncio.to_thread(gateway.call, "/v1/chat/completions", body, key=key)
    assert reply.status == 200, reply.body
    return reply.json()


@pytest.mark.requirement("events:tell-without-content", "events:no-gap-and-no-repeat")
async def test_what_happens_to_a_turn_is_told_at_another_gateway_and_again_from_any_place_on(
    session: aiohttp.ClientSession, cluster: Cluster, elsewhere: Gateway
) -> None:
    async with reading(session, elsewhere) as there, reading(session, cluster) as here:
        held = (await say(cluster, HELD))["kitemesh"]
        execution, approval = held["execution_id"], held["approval_id"]
        before = await news(there, execution, 3)
        shown = await asyncio.to_thread(elsewhere.call, f"/v1/approvals/{approval}")
        (call,) = shown.json()["calls"]
        decision = {"decisions": [{"tool_execution_id": call["tool_execution_id"], "approved": True}]}
        decided = await asyncio.to_thread(elsewhere.call, f"/v1/approvals/{approval}/decide", decision)
        assert decided.status == 200, decided.body
        told = before + await news(there, execution, 2)
        assert await news(here, execution, 5) != []
    assert types_of(told)[0] == "turn.accepted"
    assert sorted(types_of(told)) == [
        "approval.decided",
        "approval.requested",
        "turn.accepted",
        "turn.ended",
        "turn.held",
    ]
    assert types_of(told)[-1] == "turn.ended"
    assert told[-1][1]["status"] == "completed"
    assert {item.get("approval_id") for _, item in told if item["type"].startswith("approval.")} == {approval}
    assert {item["conversation_id"] for _, item in told} == {held["conversation_id"]}
    for place, (event, _) in enumerate(told[:-1], 1):
        async with reading(session, cluster, last=event.id) as again:
            found = await news(again, execution, len(told) - place)
        assert [each.block for each, _ in found] == [each.block for each, _ in told[place:]]


@pytest.mark.requirement("events:tell-without-content")
async def test_a_reader_is_told_what_it_asks_for(
    session: aiohttp.ClientSession, cluster: Cluster, elsewhere: Gateway
) -> None:
    async with reading(session, elsewhere, types="approval.cancelled,turn.ended") as stream:
        held = (await say(cluster, HELD))["kitemesh"]["execution_id"]
        assert (await asyncio.to_thread(cancel, elsewhere, held)).status == 200
        found = await news(stream, held, 2)
        assert sorted(types_of(found)) == ["approval.cancelled", "turn.ended"]
        assert {item["status"] for _, item in found} == {"cancelled"}
        failed = await asyncio.to_thread(cluster.call, "/v1/executions", question("@fail upstream.failed", "assistant"))
        (_, item), *_ = await news(stream, failed.json()["id"], 1)
        assert (item["type"], item["status"]) == ("turn.ended", "failed")
    async with streaming(session, elsewhere, path=f"{FEED}?types=nonsense") as refused:
        assert refused.status == 400


@pytest.mark.requirement("events:who-may-know")
async def test_another_tenant_is_told_nothing(
    session: aiohttp.ClientSession, cluster: Cluster, elsewhere: Gateway, stranger: str
) -> None:
    async with (
        reading(session, elsewhere, key=stranger) as theirs,
        reading(session, elsewhere) as ours,
        reading(session, cluster, key=stranger) as theirs_here,
    ):
        mine = (await say(cluster, "@echo a secret"))["kitemesh"]["execution_id"]
        told = await news(ours, mine, 2)
        foreign = (await say(cluster, "@echo mine", key=stranger))["kitemesh"]["execution_id"]
        for stream in (theirs, theirs_here):
            # Theirs is the first that they hear of, though ours was told before it.
            first, second = await stream.read(2)
            assert {json.loads(event.data)["execution_id"] for event in (first, second)} == {foreign}
    assert b"secret" not in b"".join(event.block for event, _ in told)
    # A place in the news of one tenant leads nowhere in another's.
    async with reading(session, elsewhere, key=stranger, last=told[0][0].id) as stream:
        again = (await say(cluster, "@echo mine", key=stranger))["kitemesh"]["execution_id"]
        seen = []
        while again not in seen:
            (event,) = await stream.read(1)
            seen.append(json.loads(event.data).get("execution_id", ""))
    assert mine not in seen
