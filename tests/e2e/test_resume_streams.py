"""Streams of durable turns that are cut, gone on with, joined late and read by many, at either of two gateways."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai
import pytest

from cluster import GROUP, Cluster
from kitemesh_contracts.topology import OUT
from kitemesh_gateway import positions
from kitemesh_runtime.bus_nats import open_bus
from stream_client import CHAT, RESUME, STEP_BREAK, Event, Shown, ask, followed, open_session, streaming
from tool_cluster import Gateway, make_keys

PACED = "@reason 2\n@delay_ms 60\n@count 12"
BURST = "@delay_ms 0\n@count 300"
STEPS = '@echo I will look.\n@call get_weather {"city": "Oslo"}\n@then\n@delay_ms 10\n@echo It is fine there.'
HELD = '@echo One moment.\n@call delete_record {"id": "7"}\n@then\n@delay_ms 30\n@echo It is gone, and so am I.'


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as opened:
        yield opened


@pytest.fixture(scope="module")
def stranger(cluster: Cluster) -> str:
    """A key of another tenant."""
    (key,) = make_keys(cluster, ("stranger", ("chat", "approve")))
    return key


async def whole(
    session: aiohttp.ClientSession, gateway: Cluster, body: dict[str, Any] | None = None, **more: Any
) -> list[Event]:
    """Read a stream from where it begins to its end."""
    async with streaming(session, gateway, body, **more) as stream:
        assert stream.status == 200, await stream.json()
        return await stream.rest()


def blocks(events: list[Event]) -> list[bytes]:
    return [event.block for event in events]


def execution_of(events: list[Event]) -> str:
    return positions.parse(events[0].id)[0]


def shown(events: list[Event]) -> Shown:
    found = Shown()
    found.take_all(events)
    return found


async def purge_frames(cluster: Cluster) -> None:
    """Have every captured frame forgotten."""
    async with open_bus(cluster.environment()["KITEMESH_NATS_URL"], name="test") as bus:
        reply = json.loads(await bus.request(f"$JS.API.STREAM.PURGE.{OUT}", b"", timeout_s=5))
    assert reply["success"]


async def rests(
    session: aiohttp.ClientSession, gateways: tuple[Cluster, ...], events: list[Event], **more: Any
) -> list[tuple[int, list[Event]]]:
    """Go on behind each event, of very many behind some, all at once, the gateways by turns; tell behind how many."""
    places = sorted({*range(1, len(events) + 1, 1 + len(events) // 50), *range(len(events) - 4, len(events) + 1)})
    found = await asyncio.gather(
        *(whole(session, gateways[n % len(gateways)], last=events[n - 1].id, **more) for n in places)
    )
    return list(zip(places, found, strict=True))


@pytest.mark.requirement("reattach:same-bytes", "resume:exact-while-captured")
async def test_a_stream_goes_on_behind_each_of_its_events_while_it_runs(
    session: aiohttp.ClientSession, cluster: Cluster, elsewhere: Gateway
) -> None:
    body = ask(PACED, stream_options={"include_usage": True})
    gone_on: list[tuple[int, asyncio.Task[list[Event]]]] = []
    events: list[Event] = []
    async with asyncio.TaskGroup() as tasks, streaming(session, cluster, body) as stream:
        async for event in stream.events():
            events.append(event)
            reading = whole(session, elsewhere, body, last=event.id)
            gone_on.append((len(events), tasks.create_task(reading)))
    assert len(events) > 12
    assert shown(events).is_complete
    assert shown(events).is_contiguous()
    assert shown(events).text == "".join(f"{n} " for n in range(1, 13))
    for place, rest in gone_on:
        assert blocks(rest.result()) == blocks(events[place:])


@pytest.mark.requirement("reattach:same-bytes", "resume:exact-while-captured", "executions:native-events")
@pytest.mark.parametrize("text", [PACED.replace("60", "1"), STEPS, BURST], ids=["one step", "tools", "burst"])
async def test_a_stream_goes_on_behind_each_of_its_events_when_the_turn_has_ended(
    session: aiohttp.ClientSession, cluster: Cluster, elsewhere: Gateway, text: str
) -> None:
    body = ask(text, stream_options={"include_usage": True})
    chat = await whole(session, cluster, body)
    path = followed(execution_of(chat))
    native = await whole(session, elsewhere, path=path)
    assert shown(chat).is_complete
    if text == BURST:
        assert max(positions.parse(event.id)[1].k for event in chat[:-3]) > 20
    for events, rest in (
        (chat, await rests(session, (elsewhere, cluster), chat, body=body)),
        (native, await rests(session, (cluster, elsewhere), native, path=path)),
    ):
        assert [blocks(each) for _, each in rest] == [blocks(events[place:]) for place, _ in rest]


@pytest.mark.requirement("resume:by-content")
@pytest.mark.parametrize("text", [PACED.replace("60", "1"), STEPS, BURST], ids=["one step", "tools", "burst"])
async def test_what_is_captured_no_more_is_rebuilt_from_what_is_stored(
    session: aiohttp.ClientSession, cluster: Cluster, elsewhere: Gateway, text: str
) -> None:
    body = ask(text, stream_options={"include_usage": True})
    events = await whole(session, cluster, body)
    closing = len(events) - 3
    await purge_frames(cluster)
    for place, rest in await rests(session, (elsewhere, cluster), events, body=body):
        again = shown(events[:place] + rest)
        assert again.is_complete
        assert (again.text, again.reasoning) == (shown(events).text, shown(events).reasoning)
        # What closes a stream follows from what is stored, so it is the same to the last byte.
        assert blocks(rest)[-3:] == blocks(events[max(place, closing) :])
    late = await whole(session, elsewhere, path=followed(execution_of(events)))
    told = [json.loads(event.data) for event in late]
    texts = [each["text"] for each in told if each["type"] == "text.delta"]
    assert "".join(texts) == shown(events).text.replace(STEP_BREAK, "")
    assert told[-1]["status"] == "completed"


@pytest.mark.requirement("resume:by-content", "resume:gap-is-read-again")
async def test_what_is_lost_while_a_turn_runs_follows_from_its_end(
    session: aiohttp.ClientSession, cluster: Cluster, elsewhere: Gateway
) -> None:
    body = ask(PACED)
    async with streaming(session, cluster, body) as stream:
        events = await stream.read(6)
        await purge_frames(cluster)
        again = await asyncio.gather(*(whole(session, elsewhere, body, last=event.id) for event in events))
        untouched = events + await stream.rest()
    assert shown(untouched).is_contiguous()
    for place, rest in enumerate(again, 1):
        found = shown(events[:place] + rest)
        assert found.is_complete
        assert (found.text, found.reasoning) == (shown(untouched).text, shown(untouched).reasoning)
        assert blocks(rest)[-2:] == blocks(untouched)[-2:]


@pytest.mark.requirement("resume:gap-is-an-error")
async def test_a_place_that_the_answer_does_not_have_is_an_explicit_error(
    session: aiohttp.ClientSession, cluster: Cluster, elsewhere: Gateway
) -> None:
    body = ask("@delay_ms 1\n@count 12")
    events = await whole(session, cluster, body)
    execution = execution_of(events)
    other_text = f"{execution}:1.1.3.0.4-{0xDEADBEEF:08x}"
    behind_the_end = f"{execution}:1.1.3.0.4000-{0xDEADBEEF:08x}"
    later_step = f"{execution}:7.1.1.0.4-{0xDEADBEEF:08x}"
    for _ in range(2):
        for last in (other_text, behind_the_end, later_step):
            for path, sent in ((CHAT, body), (followed(execution), None)):
                async with streaming(session, elsewhere, sent, path=path, last=last) as stream:
                    refused = await stream.json()
                    assert stream.status == 410, (last, refused)
                error = refused if sent is None else refused["error"]
                assert error["code"] == "stream.gap"
                assert execution in json.dumps(error)
        # The same when only what is stored is left.
        await purge_frames(cluster)


@pytest.mark.requirement("resume:gap-is-an-error")
async def test_a_gap_that_shows_later_is_told_in_the_stream(
    session: aiohttp.ClientSession, cluster: Cluster, elsewhere: Gateway
) -> None:
    body = ask("@delay_ms 60\n@count 30")
    async with streaming(session, cluster, body) as stream:
        events = await stream.read(3)
        execution = execution_of(events)
        # Of a text that is still to be said nobody can tell yet that it will be another one.
        async with streaming(session, elsewhere, body, last=f"{execution}:1.1.29.0.76-{0xDEADBEEF:08x}") as other:
            assert other.status == 200
            (told,) = await other.rest()
        await stream.rest()
    assert told.id == ""
    error = json.loads(told.data)["error"]
    assert error["code"] == "stream.gap"
    assert execution in error["message"]


@pytest.mark.requirement("reattach:refusals", "executions:foreign-is-missing", "resume:hostile-ids")
async def test_ids_of_nothing_of_others_and_of_classic_turns_are_refused_and_start_nothing(
    session: aiohttp.ClientSession, cluster: Cluster, elsewhere: Gateway, stranger: str
) -> None:
    classic = await whole(session, cluster, ask("@echo short", mode="classic"))
    durable = await whole(session, cluster, ask("@echo short"))
    missing = durable[0].id.replace(execution_of(durable), "01990000-0000-7000-8000-000000000000")
    before = cluster.call("/v1/executions").json()["data"]
    refusals = []
    for last, key, status, code in (
        (missing, "", 404, "execution.unknown"),
        (durable[0].id, stranger, 404, "execution.unknown"),
        (classic[1].id, "", 410, "execution.classic"),
        ("nonsense", "", 400, "request.invalid"),
        (f"{durable[0].id}0", "", 400, "request.invalid"),
        ("*:1.1.1.0.0-00000000", "", 400, "request.invalid"),
    ):
        for gateway in (cluster, elsewhere):
            async with streaming(session, gateway, ask("@echo never"), last=last, key=key) as stream:
                error = (await stream.json())["error"]
                assert (stream.status, error["code"]) == (status, code), last
                assert "x-execution-id" not in stream.headers
            refusals.append({**error, "request_id": ""})
    assert refusals[0] == refusals[2]
    for execution, last, status in (
        (execution_of(durable), classic[1].id, 400),
        (execution_of(classic), classic[1].id, 410),
        (execution_of(durable), "nonsense", 400),
    ):
        async with streaming(session, elsewhere, path=followed(execution), last=last) as stream:
            assert stream.status == status
    assert cluster.call("/v1/executions").json()["data"] == before


@pytest.mark.requirement("executions:stream", "resume:several-readers", "resume:late-readers")
async def test_any_number_of_readers_read_the_same_whenever_they_come(
    session: aiohttp.ClientSession, cluster: Cluster, elsewhere: Gateway
) -> None:
    body = ask(PACED)
    async with asyncio.TaskGroup() as tasks, streaming(session, cluster, body) as stream:
        events: list[Event] = []
        readers = []
        async for event in stream.events():
            events.append(event)
            path = followed(execution_of(events))
            for gateway in (cluster, elsewhere):
                reader = tasks.create_task(whole(session, gateway, path=path))
                readers.append(reader)
    late = await whole(session, elsewhere, path=path)
    assert json.loads(late[0].data)["type"] == "turn.started"
    assert json.loads(late[-1].data)["status"] == "completed"
    assert len(readers) > 24
    for reader in readers:
        assert blocks(reader.result()) == blocks(late)
    # Behind the place, a native stream's ids say which calls it has told.
    assert [event.id.partition("~")[0] for event in late[:-1]] == [event.id for event in events[:-2]]


@pytest.mark.requirement("executions:stream", "resume:position-at-the-end")
async def test_a_held_turn_is_read_to_its_hold_and_after_the_decision_to_its_end(
    session: aiohttp.ClientSession, cluster: Cluster, elsewhere: Gateway
) -> None:
    body = ask(HELD)
    held = await whole(session, cluster, body)
    asked = json.loads(held[-2].data)
    execution, approval = asked["kitemesh"]["execution_id"], asked["kitemesh"]["approval_id"]
    assert asked["choices"][0]["finish_reason"] == "tool_calls"
    for place, rest in await rests(session, (elsewhere, cluster), held, body=body):
        assert blocks(rest) == blocks(held[place:])
    native = await whole(session, elsewhere, path=followed(execution))
    assert json.loads(native[-1].data)["type"] == "turn.held"
    calls = [call["tool_execution_id"] for call in json.loads(native[-1].data)["to_decide"]]
    resumption = {"model": GROUP, "approval_id": approval, "approved_tool_execution_ids": calls, "stream": True}
    async with asyncio.TaskGroup() as tasks, streaming(session, elsewhere, resumption, path=RESUME) as stream:
        events: list[Event] = []
        gone_on = []
        async for event in stream.events():
            events.append(event)
            for path in (RESUME, CHAT):
                rest = tasks.create_task(whole(session, cluster, {}, path=path, last=event.id))
                gone_on.append((len(events), rest))
    assert shown(events).is_complete
    assert shown(events).text == "It is gone, and so am I."
    for place, rest in gone_on:
        assert blocks(rest.result()) == blocks(events[place:])
    everything = [json.loads(event.data) for event in await whole(session, cluster, path=followed(execution))]
    texts = [each["text"] for each in everything if each["type"] == "text.delta"]
    assert "".join(texts) == "One moment.It is gone, and so am I."
    assert everything[-1]["status"] == "completed"


@pytest.mark.requirement("durable:sdk")
def test_the_openai_sdk_reads_a_durable_stream_as_any_other(cluster: Cluster) -> None:
    sdk = openai.OpenAI(base_url=f"{cluster.origin}/v1", api_key=cluster.key, max_retries=0)
    messages: list[Any] = [{"role": "user", "content": "@count 12"}]
    asked: dict[str, Any] = {"model": GROUP, "messages": messages, "metadata": {"mode": "durable"}}
    chunks = list(sdk.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "".join(f"{n} " for n in range(1, 13))
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 12
    key = {"Idempotency-Key": f"sdk {chunks[0].id}"}
    with sdk.chat.completions.stream(**asked, extra_headers=key) as stream:
        first = stream.get_final_completion()
    with sdk.chat.completions.stream(**asked, extra_headers=key) as stream:
        again = stream.get_final_completion()
    assert first.choices[0].message.content == text
    assert again == first
    whole_answer = sdk.chat.completions.create(**asked)
    assert whole_answer.choices[0].message.content == text
