"""Durable turns at two gateways over the same stores: accepted, followed, gone on with and listed over HTTP."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace

from integration.bus.rig import OwnServer
from integration.gateway.rig import ASK, KEY, TENANT, Answer, Client, Rig, get, key_record, open_rig, post
from integration.gateway.test_approvals import STRANGER, assert_problem
from kitemesh_contracts import codec, subjects
from kitemesh_contracts.commands import StartTurn
from kitemesh_contracts.content import AssistantMessage, Step, TextPart, Usage, UserMessage
from kitemesh_contracts.deltas import Frame, TextDelta
from kitemesh_contracts.errors import ErrorCode, ErrorInfo
from kitemesh_gateway.app import drain
from kitemesh_runtime import keyring
from kitemesh_runtime.live_turns import LiveTurn
from kitemesh_runtime.turns import TurnRecord
from unit.gateway.holding import HOLD, hold

_numbers = itertools.count(1)
CONFINED, APPROVER = (keyring.make(bytes(range(n, n + 40))) for n in (60, 61))
DURABLE = {**ASK, "metadata": {"mode": "durable"}}
STREAM = {**DURABLE, "stream": True}
USAGE = Usage(input_tokens=3, output_tokens=2)
TEXTS = ("Once", " upon", " a time")


class Pair(NamedTuple):
    """Two gateways that have their stores in common, and what answers behind the bus of the first."""

    one: Rig
    two: Rig

    @property
    def live_turns(self) -> Any:
        return self.one.stores.live_turns

    async def start(self) -> StartTurn:
        return await self.one.cluster.start()

    def say(self, start: StartTurn, *texts: str, first: int = 1, attempt: int = 1) -> None:
        """Publish one frame for each text, those of `TEXTS` from the first one on, as a model-runner does."""
        prefix = subjects.out(start.gateway, start.turn, 1, attempt)
        offset = len("".join(TEXTS[: first - 1]))
        for n, text in enumerate(texts, first):
            frame = Frame(n=n, offset=offset, items=(TextDelta(text=text),))
            offset += len(text)
            self.one.cluster.bus.post(subjects.out_frame(prefix, n), codec.encode(frame))

    async def finish(self, start: StartTurn, text: str, *, last: int = 0, **fields: Any) -> TurnRecord:
        """Store the end of a turn, then tell it."""
        assert await self.one.cluster.bus.posted(timeout_s=5)
        values: dict[str, Any] = {"status": "completed", "finish": "stop", "usage": USAGE, **fields}
        live = await self.live_turns.get(TENANT, start.turn)
        record = TurnRecord(
            id=start.turn,
            tenant=TENANT,
            mode="durable",
            model=live.model,
            conversation=live.conversation,
            request=live.request,
            dialect=live.dialect,
            include_usage=live.include_usage,
            gateway=live.gateway,
            input=start.input,
            answer=AssistantMessage(text=text),
            accepted_at_ms=live.accepted_at_ms,
            ended_at_ms=live.accepted_at_ms + 5,
            attempt=1,
            last=last,
            **values,
        )
        await self.live_turns.finish(TENANT, record, version=live.version)
        self.one.cluster.end(
            start,
            text,
            last=last,
            outcome=record.status,
            finish=record.finish,
            usage=record.usage,
            error=record.error,
        )
        return record


@pytest.fixture
async def pair(gateway_server: OwnServer, tmp_path: Path) -> AsyncIterator[Pair]:
    other = tmp_path / "two"
    other.mkdir()
    n = next(_numbers)
    async with (
        open_rig(gateway_server.url, tmp_path, replica=f"one-{n}") as one,
        open_rig(gateway_server.url, other, replica=f"two-{n}", is_worked=False, shared=one.stores) as two,
    ):
        await one.stores.keys.put("other", key_record(STRANGER, tenant="other"))
        await one.stores.keys.put(TENANT, key_record(CONFINED, models=("agent:helper",)))
        await one.stores.keys.put(TENANT, key_record(APPROVER, scopes=("approve",)))
        yield Pair(one, two)


async def begin(rig: Rig, body: dict[str, Any] = STREAM, **headers: str) -> Client:
    client = rig.client()
    await client.send(post(body, **headers))
    return client


async def read_events(client: Client, count: int) -> list[str]:
    """Read events as they come, status line and pings left out."""
    events: list[str] = []
    data = ""
    while len(events) < count:
        data += (await client.piece()).decode()
        *whole, data = data.split("\n\n")
        events += [each for each in whole if each.startswith("id: ")]
    return events


def events_of(answer: Answer) -> list[str]:
    return [each for each in answer.body.decode().split("\n\n") if each.startswith("id: ")]


def data_of(events: list[str]) -> list[str]:
    return [event.partition("data: ")[2] for event in events]


def id_of(event: str) -> str:
    return event.split("\n", 1)[0].removeprefix("id: ")


def native(answer: Answer) -> list[dict[str, Any]]:
    return [json.loads(event) for event in answer.events]


def follow(turn: str, *, key: str = KEY.text, last: str = "") -> bytes:
    header = f"\r\nLast-Event-ID: {last}" if last else ""
    return get(f"/v1/executions/{turn}/stream", key=key + header)


# Acceptance


@pytest.mark.requirement("durable:status-line-at-once", "durable:visible-at-once")
async def test_a_durable_stream_is_accepted_at_once_and_seen_at_every_gateway(pair: Pair) -> None:
    client = await begin(pair.one)
    status, headers = await client.head()
    turn = headers["x-execution-id"]
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    assert "gateway;dur=" in headers["server-timing"]
    for rig in pair:
        shown = (await rig.ask(get(f"/v1/executions/{turn}"))).json()
        assert (shown["status"], shown["mode"], shown["conversation_id"]) == (
            "queued",
            "durable",
            headers["x-conversation-id"],
        )
    start = await pair.start()
    assert (start.turn, start.mode, start.dialect, start.request) == (
        turn,
        "durable",
        "completions",
        headers["x-request-id"],
    )
    pair.say(start, *TEXTS)
    await pair.finish(start, "".join(TEXTS), last=3)
    async with asyncio.timeout(5):
        body = b""
        while piece := await client.piece():
            body += piece
    answer = Answer(status, headers, body)
    assert (answer.text, answer.events[-1]) == ("Once upon a time", "[DONE]")


@pytest.mark.requirement("fault:queue-full")
async def test_who_follows_a_turn_at_a_full_gateway_is_refused_until_there_is_room(
    gateway_server: OwnServer, tmp_path: Path
) -> None:
    async with open_rig(gateway_server.url, tmp_path, replica=f"full-{next(_numbers)}", max_streams=1) as rig:
        pair = Pair(rig, rig)
        client = await begin(rig)
        start = await pair.start()
        refused = await rig.ask(follow(start.turn))
        assert refused.status == 429
        assert (refused.json()["code"], refused.headers["retry-after"]) == ("queue.full", "1")
        assert (await rig.ask(get(f"/v1/executions/{start.turn}"))).status == 200
        pair.say(start, *TEXTS)
        await pair.finish(start, "".join(TEXTS), last=3)
        assert (await client.answer()).text == "Once upon a time"
        assert (await rig.ask(follow(start.turn))).status == 200


@pytest.mark.requirement("durable:asked-for")
@pytest.mark.parametrize(
    ("body", "headers", "mode"),
    [
        (ASK, {}, "classic"),
        (DURABLE, {}, "durable"),
        ({**ASK, "model": "agent:lasting"}, {}, "durable"),
        ({**ASK, "model": "agent:lasting", "metadata": {"mode": "classic"}}, {}, "classic"),
        ({**ASK, "metadata": {"mode": "classic"}}, {"Idempotency-Key": "classic all the same"}, "durable"),
    ],
)
async def test_a_turn_runs_as_it_is_asked_for(
    pair: Pair, body: dict[str, Any], headers: dict[str, str], mode: str
) -> None:
    client = await begin(pair.one, body, **headers)
    start = await pair.start()
    stored = await pair.live_turns.get(TENANT, start.turn)
    assert start.mode == mode
    assert isinstance(stored, LiveTurn) == (mode == "durable")
    if mode == "durable":
        await pair.finish(start, "Hello")
    else:
        pair.one.cluster.end(start, "Hello")
    answer = await client.answer()
    assert (answer.status, answer.json()["choices"][0]["message"]["content"]) == (200, "Hello")


@pytest.mark.requirement("durable:client-leaves")
async def test_a_durable_turn_goes_on_without_its_client(pair: Pair) -> None:
    leaver, classic = await begin(pair.one), await begin(pair.one, {**ASK, "stream": True})
    first, second = await pair.start(), await pair.start()
    durable, other = (first, second) if first.mode == "durable" else (second, first)
    await leaver.head()
    leaver.close()
    classic.close()
    cancelled = await pair.one.cluster.cancel()
    assert cancelled.turn == other.turn
    await pair.finish(durable, "Hello")
    shown = (await pair.two.ask(get(f"/v1/executions/{durable.turn}"))).json()
    assert shown["status"] == "completed"
    assert pair.one.cluster.cancels.empty()


@pytest.mark.requirement("durable:unknown-conversation")
async def test_a_conversation_that_does_not_exist_is_a_status(pair: Pair) -> None:
    for more in ({}, {"stream": True}):
        body = {**DURABLE, **more, "metadata": {"mode": "durable", "conversation_id": "nowhere"}}
        answer = await pair.one.ask(post(body))
        assert (answer.status, answer.error["code"]) == (404, "conversation.unknown")
        assert "x-execution-id" not in answer.headers
    assert (await pair.one.ask(get("/v1/executions"))).json()["data"] == []


# Going on with a stream


@pytest.mark.requirement("reattach:same-bytes")
async def test_a_stream_is_gone_on_with_at_another_gateway_by_the_same_bytes(pair: Pair) -> None:
    body = {**STREAM, "stream_options": {"include_usage": True}, "metadata": {"mode": "durable", "request_id": "mine"}}
    client = await begin(pair.one, body)
    start = await pair.start()
    pair.say(start, *TEXTS[:2])
    await client.head()
    shown = await read_events(client, 3)
    again = pair.two.client()
    await again.send(post(body, Last_Event_ID=id_of(shown[1])))
    status, headers = await again.head()
    assert (status, headers["x-execution-id"]) == (200, start.turn)
    assert await read_events(again, 1) == shown[2:]
    pair.say(start, TEXTS[2], first=3)
    await pair.finish(start, "".join(TEXTS), last=3)
    rest, rest_again = await read_events(client, 4), await read_events(again, 4)
    assert rest == rest_again
    late = await pair.two.ask(post(body, Last_Event_ID=id_of(shown[0])))
    assert events_of(late) == shown[1:] + rest
    assert '"request_id":"mine"' in rest[1]
    assert rest[-1].endswith("data: [DONE]")
    assert pair.one.cluster.starts.empty()


@pytest.mark.requirement("resume:by-content")
async def test_in_another_dialect_a_stream_goes_on_behind_the_text_and_is_told_its_end(pair: Pair) -> None:
    client = await begin(pair.one)
    start = await pair.start()
    pair.say(start, *TEXTS)
    await pair.finish(start, "".join(TEXTS), last=3)
    chat = events_of(await client.answer())
    shown = events_of(await pair.two.ask(follow(start.turn)))
    assert (len(chat), len(shown)) == (6, 5)
    for cut, event in enumerate(chat):
        rest = native(await pair.two.ask(follow(start.turn, last=id_of(event))))
        assert [each["text"] for each in rest[:-1]] == list(TEXTS[cut:])
        assert rest[-1]["type"] == "turn.ended"
    for cut, event in enumerate(shown):
        answer = await pair.two.ask(post(b"", Last_Event_ID=id_of(event)))
        assert (answer.text, answer.events[-1]) == ("".join(TEXTS[cut:]), "[DONE]")


@pytest.mark.requirement("drain:durable-streams-move")
async def test_whoever_is_sent_away_before_the_first_word_goes_on_elsewhere(pair: Pair) -> None:
    client = await begin(pair.one)
    start = await pair.start()
    await client.head()
    first = (await read_events(client, 1))[0]
    assert '"role":"assistant"' in first
    pair.one.life.signal()
    async with asyncio.timeout(5):
        await drain(pair.one.gateway, pair.one.life, 0.2)
    assert b"service.draining" in await client.piece()
    again = pair.two.client()
    await again.send(post(STREAM, Last_Event_ID=id_of(first)))
    assert (await again.head())[0] == 200
    pair.say(start, *TEXTS)
    await pair.finish(start, "".join(TEXTS), last=3)
    assert [json.loads(event.split("data: ")[1])["choices"][0]["delta"] for event in await read_events(again, 3)] == [
        {"content": text} for text in TEXTS
    ]


@pytest.mark.requirement("reattach:refusals")
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/chat/resume"])
async def test_what_cannot_be_gone_on_with_is_told_and_nothing_is_started(pair: Pair, path: str) -> None:
    client = await begin(pair.one)
    start = await pair.start()
    client.close()
    await pair.one.stores.turns.put(
        TENANT, TurnRecord(id="classic-1", tenant=TENANT, status="completed", mode="classic", model="scripted")
    )
    for last, key, told in (
        ("nothing:1.1.1.0.1-00000000", KEY, (404, "execution.unknown")),
        (f"{start.turn}:0.0.0.0.0-00000000", STRANGER, (404, "execution.unknown")),
        (f"{start.turn}:0.0.0.0.0-00000000", CONFINED, (404, "execution.unknown")),
        (f"{start.turn}:0.0.0.0.0-00000000", APPROVER, (403, "permission.denied")),
        ("classic-1:1.1.1.0", KEY, (410, "execution.classic")),
        ("classic-1", KEY, (400, "request.invalid")),
        ("a b:1.1.1.0", KEY, (400, "request.invalid")),
    ):
        answer = await pair.two.ask(post(STREAM, path=path, key=key.text, Last_Event_ID=last))
        assert (answer.status, answer.error["code"]) == told
        assert "x-execution-id" not in answer.headers
    assert pair.one.cluster.starts.empty()


async def test_the_body_of_who_comes_back_is_not_looked_at_but_bounded(pair: Pair) -> None:
    client = await begin(pair.one)
    start = await pair.start()
    await pair.finish(start, "Hello")
    first = events_of(await client.answer())
    for body in (b"no json", b""):
        answer = await pair.two.ask(post(body, Last_Event_ID=id_of(first[0])))
        # No frame was captured, so the same content is told under numbers of its own.
        assert data_of(events_of(answer)) == data_of(first[1:])
    large = await pair.two.ask(post(b"x" * (2 * 1024 * 1024 + 1), Last_Event_ID=id_of(first[0])))
    assert large.status == 413


# Idempotency keys


@pytest.mark.requirement("idempotency:one-turn")
async def test_of_twenty_at_once_at_two_gateways_one_turn_runs_and_all_get_its_answer(pair: Pair) -> None:
    clients = [pair[n % 2].client() for n in range(20)]
    await asyncio.gather(*(client.send(post(ASK, Idempotency_Key="order 7")) for client in clients))
    start = await pair.start()
    await pair.finish(start, "Hello")
    answers = await asyncio.gather(*(client.answer() for client in clients))
    assert {answer.status for answer in answers} == {200}
    assert {answer.headers["x-execution-id"] for answer in answers} == {start.turn}
    assert len({answer.body for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    assert pair.one.cluster.starts.empty()


@pytest.mark.requirement("idempotency:replayed")
async def test_the_same_request_again_is_told_the_same_stream_while_it_runs_and_afterwards(pair: Pair) -> None:
    body = {**ASK, "stream": True}
    client = await begin(pair.one, body, Idempotency_Key="k")
    start = await pair.start()
    pair.say(start, *TEXTS)
    await client.head()
    shown = await read_events(client, 4)
    again = await begin(pair.two, body, Idempotency_Key="k")
    status, headers = await again.head()
    assert (status, headers["idempotency-replayed"], headers["x-execution-id"]) == (200, "true", start.turn)
    assert await read_events(again, 4) == shown
    await pair.finish(start, "".join(TEXTS), last=3)
    rest = await read_events(client, 2)
    assert await read_events(again, 2) == rest
    late = await pair.one.ask(post(body, Idempotency_Key="k"))
    assert late.headers["idempotency-replayed"] == "true"
    assert events_of(late) == shown + rest


@pytest.mark.requirement("idempotency:replayed")
async def test_a_failure_is_replayed_too(pair: Pair) -> None:
    client = await begin(pair.one, ASK, Idempotency_Key="k")
    start = await pair.start()
    error = ErrorInfo(code=ErrorCode.UPSTREAM_FAILED, message="No luck")
    await pair.finish(start, "", status="failed", finish=None, error=error)
    first, again = await client.answer(), await pair.two.ask(post(ASK, Idempotency_Key="k"))
    for answer in (first, again):
        assert (answer.status, answer.error["code"]) == (502, "upstream.failed")
        assert answer.headers["x-execution-id"] == start.turn
    assert again.headers["idempotency-replayed"] == "true"


@pytest.mark.requirement("idempotency:another-body-is-refused", "idempotency:scope")
async def test_a_key_stands_for_one_body_on_one_route_of_one_tenant(pair: Pair) -> None:
    client = await begin(pair.one, ASK, Idempotency_Key="k")
    start = await pair.start()
    other = {**ASK, "temperature": 0}
    refused = await pair.two.ask(post(other, Idempotency_Key="k"))
    assert (refused.status, refused.error["type"], refused.error["code"]) == (
        422,
        "invalid_request_error",
        "idempotency.mismatch",
    )
    assert refused.error["param"] == "Idempotency-Key"
    elsewhere = await pair.two.ask(post(ASK, path="/v1/executions", Idempotency_Key="k"))
    assert (elsewhere.status, elsewhere.json()["id"] != start.turn) == (202, True)
    foreign = await begin(pair.two, ASK, key=STRANGER.text, Idempotency_Key="k")
    turns = {(await pair.start()).tenant for _ in range(2)}
    assert turns == {TENANT, "other"}
    foreign.close()
    await pair.finish(start, "Hello")
    assert (await client.answer()).status == 200


@pytest.mark.requirement("idempotency:resume")
async def test_a_decision_is_made_once_and_answered_in_the_same_way_whatever_its_key(pair: Pair) -> None:
    held = await pair.one.stores.holds.open(TENANT, hold(scope="chat", model="agent:helper"), expires_after_s=600)
    steps = (Step(step=1, attempt=1, last=1, text="I will."),)
    turn = LiveTurn(
        id=held.turn,
        tenant=TENANT,
        version=1,
        status="held",
        mode="durable",
        model="agent:helper",
        state=b"",
        hold=HOLD,
        steps=steps,
    )
    await pair.live_turns.insert(TENANT, turn)
    body = {
        "model": "agent:helper",
        "approval_id": HOLD,
        "approved_tool_execution_ids": [call.id for call in held.calls],
    }
    path = "/v1/chat/resume"
    refused = await pair.one.ask(post(body, path=path, Idempotency_Key="x" * 256))
    assert (refused.status, refused.error["param"]) == (400, "Idempotency-Key")
    client = await begin(pair.one, body, path=path, Idempotency_Key="k")
    await pair.one.cluster.apply()
    done = TurnRecord(
        id=turn.id,
        tenant=TENANT,
        status="completed",
        mode="durable",
        model="agent:helper",
        steps=steps,
        answer=AssistantMessage(text="Done"),
        finish="stop",
    )
    await pair.live_turns.finish(TENANT, done, version=1)
    answers = [await client.answer(), await pair.two.ask(post(body, path=path, Idempotency_Key="k"))]
    assert [answer.json()["choices"][0]["message"]["content"] for answer in answers] == ["Done", "Done"]


# Background runs


@pytest.mark.requirement("background:accepted-once-stored", "idempotency:replayed")
async def test_a_background_run_is_accepted_once_it_is_stored_and_replayed_by_its_key(pair: Pair) -> None:
    body = {**ASK, "model": "agent:helper", "metadata": {"request_id": "job 7"}}
    answer = await pair.one.ask(post(body, path="/v1/executions", Idempotency_Key="k"))
    told = answer.json()
    start = await pair.start()
    assert answer.status == 202
    assert told == {
        "id": start.turn,
        "status": "queued",
        "mode": "durable",
        "conversation_id": start.conversation,
        "model": "agent:helper",
        "created_at": told["created_at"],
    }
    assert answer.headers["location"] == f"/v1/executions/{start.turn}"
    assert (answer.headers["x-execution-id"], answer.headers["x-conversation-id"]) == (start.turn, start.conversation)
    assert (start.mode, start.stream, start.request, start.dialect) == ("durable", True, "job 7", "native")
    pair.say(start, *TEXTS)
    await pair.finish(start, "".join(TEXTS), last=3)
    again = await pair.two.ask(post(body, path="/v1/executions", Idempotency_Key="k"))
    assert (again.status, again.body, again.headers["location"]) == (202, answer.body, answer.headers["location"])
    assert (again.headers["idempotency-replayed"], "idempotency-replayed" in answer.headers) == ("true", False)
    followed = native(await pair.two.ask(follow(start.turn)))
    assert "".join(event["text"] for event in followed if event["type"] == "text.delta") == "Once upon a time"
    assert pair.one.cluster.starts.empty()


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        ({**ASK, "mode": "classic"}, {}, 400, "request.invalid"),
        ({**ASK, "metadata": {"mode": "classic"}}, {}, 400, "request.invalid"),
        ({**ASK, "model": "unheard of"}, {}, 404, "model.unknown"),
        ({**ASK, "n": 2}, {}, 400, "request.invalid"),
        (ASK, {"Idempotency-Key": "x" * 256}, 400, "request.invalid"),
        (ASK, {"Last-Event-ID": "t:1.1.1.0.1-00000000"}, 400, "request.invalid"),
        (b"{", {}, 400, "request.malformed"),
    ],
)
async def test_a_background_run_that_cannot_be_is_refused_as_a_problem(
    pair: Pair, body: object, headers: dict[str, str], status: int, code: str
) -> None:
    answer = await pair.one.ask(post(body, path="/v1/executions", **headers))
    assert_problem(answer, status, code, answer.json()["detail"], "/v1/executions")
    assert (await pair.one.ask(get("/v1/executions"))).json()["data"] == []


# The native stream


@pytest.mark.requirement("executions:stream")
async def test_a_running_turn_is_followed_by_any_number_of_readers_from_its_beginning(pair: Pair) -> None:
    client = await begin(pair.one)
    start = await pair.start()
    pair.say(start, *TEXTS[:2])
    readers = [pair[n % 2].client() for n in range(3)]
    for reader in readers:
        await reader.send(follow(start.turn))
        status, headers = await reader.head()
        assert (status, headers["content-type"], headers["x-execution-id"]) == (200, "text/event-stream", start.turn)
    told = [await read_events(reader, 3) for reader in readers]
    assert told[0] == told[1] == told[2]
    resumed = pair.two.client()
    await resumed.send(follow(start.turn, last=id_of(told[0][1])))
    assert (await resumed.head())[0] == 200
    assert await read_events(resumed, 1) == told[0][2:]
    pair.say(start, TEXTS[2], first=3)
    await pair.finish(start, "".join(TEXTS), last=3)
    rests = [await read_events(reader, 2) for reader in (*readers, resumed)]
    assert rests[0] == rests[1] == rests[2] == rests[3]
    late = await pair.two.ask(follow(start.turn))
    assert events_of(late) == told[0] + rests[0]
    assert native(late) == [
        {
            "type": "turn.started",
            "execution_id": start.turn,
            "request_id": start.request,
            "conversation_id": start.conversation,
            "model": "scripted",
            "created_at": native(late)[0]["created_at"],
        },
        *({"type": "text.delta", "step": 1, "text": text} for text in TEXTS),
        {
            "type": "turn.ended",
            "status": "completed",
            "finish_reason": "stop",
            "usage": {"input_tokens": 3, "output_tokens": 2, "cached_tokens": 0, "reasoning_tokens": 0},
        },
    ]
    assert (await client.answer()).text == "Once upon a time"


@pytest.mark.requirement("executions:stream")
async def test_a_held_turn_is_followed_to_its_hold(pair: Pair) -> None:
    held = await pair.one.stores.holds.open(TENANT, hold(), expires_after_s=600)
    turn = LiveTurn(
        id=held.turn,
        tenant=TENANT,
        version=1,
        status="held",
        mode="durable",
        model="agent:helper",
        state=b"",
        hold=HOLD,
        gateway="dead",
        steps=(Step(step=1, attempt=1, last=2, text="I will."),),
    )
    await pair.live_turns.insert(TENANT, turn)
    events = native(await pair.two.ask(follow(held.turn)))
    assert [event["type"] for event in events] == ["turn.started", "text.delta", "turn.held"]
    assert (events[1]["text"], events[2]["approval_id"]) == ("I will.", HOLD)
    assert b"1234" not in json.dumps(events).encode()


@pytest.mark.requirement("executions:stream")
async def test_what_a_turn_ended_as_is_its_last_event(pair: Pair) -> None:
    error = ErrorInfo(code=ErrorCode.UPSTREAM_FAILED, message="No luck")
    base = TurnRecord(id="classic-1", tenant=TENANT, status="completed", mode="classic", model="scripted")
    records = {
        "completed": replace(base, answer=AssistantMessage(text="Hi", reasoning="Hm"), finish="stop"),
        "failed": replace(base, id="failed-1", mode="durable", status="failed", error=error),
    }
    for status, record in records.items():
        await pair.one.stores.turns.put(TENANT, record)
        ended = native(await pair.two.ask(follow(record.id)))[-1]
        assert (ended["type"], ended["status"]) == ("turn.ended", status)
    # What a classic turn said is shown, and cannot be gone on with.
    shown = await pair.two.ask(follow("classic-1"))
    assert [event["type"] for event in native(shown)] == ["turn.started", "reasoning.delta", "text.delta", "turn.ended"]
    gone = await pair.two.ask(follow("classic-1", last=id_of(events_of(shown)[0])))
    assert (gone.status, gone.json()["code"]) == (410, "execution.classic")


@pytest.mark.requirement("executions:foreign-is-missing")
async def test_a_stream_is_for_those_who_may_see_the_execution(pair: Pair) -> None:
    accepted = (await pair.one.ask(post(ASK, path="/v1/executions"))).json()["id"]
    for turn, key in (("nothing", KEY), (accepted, STRANGER), (accepted, CONFINED)):
        answer = await pair.two.ask(follow(turn, key=key.text))
        assert_problem(answer, 404, "execution.unknown", "There is no such execution", f"/v1/executions/{turn}/stream")
    assert (await pair.two.ask(follow(accepted, key=APPROVER.text))).status == 403
    other = await pair.two.ask(follow(accepted, last="nothing:1.1.1.0.1-00000000"))
    assert (other.status, other.json()["detail"]) == (400, "Last-Event-ID: is not of this execution")
    malformed = await pair.two.ask(follow(accepted, last="nothing"))
    assert malformed.status == 400


async def test_a_head_of_a_stream_ends(pair: Pair) -> None:
    accepted = (await pair.one.ask(post(ASK, path="/v1/executions"))).json()["id"]
    client = pair.two.client()
    await client.send(follow(accepted).replace(b"GET", b"HEAD", 1))
    status, headers = await client.head()
    assert (status, headers["content-type"], headers["x-execution-id"]) == (200, "text/event-stream", accepted)


# The list


def record(n: int, **fields: Any) -> TurnRecord:
    values: dict[str, Any] = {"status": "completed", "mode": "classic", "model": "scripted", **fields}
    return TurnRecord(id=f"01990000-0000-7000-8000-{n:012d}", tenant=TENANT, **values)


def waiting(n: int, **fields: Any) -> LiveTurn:
    values: dict[str, Any] = {"status": "queued", "mode": "durable", "model": "scripted", "state": b"", **fields}
    return LiveTurn(id=f"01990000-0000-7000-8000-{n:012d}", tenant=TENANT, version=1, gateway="dead", **values)


@pytest.fixture
async def listed(pair: Pair) -> Pair:
    late = ErrorInfo(code=ErrorCode.TURN_TIMEOUT, message="late")
    broken = ErrorInfo(code=ErrorCode.UPSTREAM_FAILED, message="broken")
    for turn in (
        record(1, input=(UserMessage(parts=(TextPart(text="Hi"),)),), conversation="conv-a", ended_at_ms=1_500),
        record(2, status="failed", error=late),
        record(3, status="failed", error=broken, model="agent:helper"),
        record(4, status="cancelled", conversation="conv-a"),
    ):
        await pair.one.stores.turns.put(TENANT, turn)
    for turn in (
        waiting(5),
        waiting(6, status="running", model="agent:helper", conversation="conv-a"),
        waiting(7, status="cancelling"),
        waiting(8, status="held", hold=HOLD),
    ):
        await pair.live_turns.insert(TENANT, turn)
    await pair.live_turns.insert("other", replace(waiting(9), tenant="other"))
    return pair


async def numbers(rig: Rig, query: str = "", *, key: str = KEY.text) -> list[int]:
    """Read every page and return the turns by their number."""
    found: list[int] = []
    cursor = ""
    while True:
        answer = await rig.ask(get(f"/v1/executions?{query}{cursor}", key=key))
        assert answer.status == 200
        page = answer.json()
        found += [int(each["id"][-12:]) for each in page["data"]]
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


@pytest.mark.requirement("executions:list")
@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", [8, 7, 6, 5, 4, 3, 2, 1]),
        ("limit=3", [8, 7, 6, 5, 4, 3, 2, 1]),
        ("status=queued", [5]),
        ("status=running", [7, 6]),
        ("status=held", [8]),
        ("status=completed", [1]),
        ("status=failed", [3]),
        ("status=expired", [2]),
        ("status=expired&limit=1", [2]),
        ("status=cancelled", [4]),
        ("conversation_id=conv-a", [6, 4, 1]),
        ("conversation_id=conv-a&limit=1", [6, 4, 1]),
        ("conversation_id=conv-a&status=running", [6]),
        ("conversation_id=nowhere", []),
    ],
)
async def test_executions_are_listed_newest_first_by_what_is_asked_for(
    listed: Pair, query: str, found: list[int]
) -> None:
    assert await numbers(listed.two, query) == found


@pytest.mark.requirement("executions:list", "executions:foreign-is-missing")
async def test_a_key_lists_only_its_tenants_and_what_it_may_name(listed: Pair) -> None:
    assert await numbers(listed.one, key=STRANGER.text) == [9]
    assert await numbers(listed.one, "limit=1", key=CONFINED.text) == [6, 3]
    assert (await listed.one.ask(get("/v1/executions", key=APPROVER.text))).status == 403


async def test_an_entry_of_the_list_says_how_the_turn_stands_and_not_what_was_said(listed: Pair) -> None:
    entries = (await listed.one.ask(get("/v1/executions"))).json()["data"]
    assert entries[-1] == {
        "id": record(1).id,
        "status": "completed",
        "mode": "classic",
        "conversation_id": "conv-a",
        "model": "scripted",
        "created_at": "1970-01-01T00:00:00.000Z",
        "updated_at": "1970-01-01T00:00:01.500Z",
        "usage": {"input_tokens": 0, "output_tokens": 0, "cached_tokens": 0, "reasoning_tokens": 0},
    }
    assert entries[-3]["error"] == {"code": "upstream.failed", "message": "broken"}


async def test_everything_that_is_wrong_with_a_query_is_told(pair: Pair) -> None:
    query = "status=done&status=x&conversation_id=a.b&cursor=%21&limit=0"
    answer = await pair.one.ask(get(f"/v1/executions?{query}"))
    detail = (
        "status: must be given once; status: must be one of queued, running, held, completed, failed, cancelled, "
        "expired; conversation_id: must be an id: 1 to 64 of A-Z, a-z, 0-9, _ and -; cursor: must be a next_cursor of "
        "this list; limit: must be a number from 1 to 100"
    )
    assert_problem(answer, 400, "request.invalid", detail, "/v1/executions")
