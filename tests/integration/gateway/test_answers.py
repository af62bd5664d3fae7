"""Whole and streamed answers, and what travels with them."""

import asyncio

import pytest

from integration.gateway.rig import ASK, GROUP, KEY, TENANT, Rig, get, post
from kitemesh_contracts.content import Sampling, TextPart, UserMessage
from kitemesh_contracts.errors import ErrorCode, ErrorInfo
from kitemesh_contracts.events import StepTimings
from kitemesh_contracts.ids import is_id

STREAM = {**ASK, "stream": True}


TIMINGS = StepTimings(
    queued_ms=1.25, first_token_ms=20.0, total_ms=40.0, start_queued_ms=0.5, orchestrator_ms=0.75, runner_ms=0.0
)


@pytest.mark.requirement("completions:conversation-is-named", "completions:request-id-is-echoed", "http:server-timing")
async def test_a_whole_answer_with_everything_that_goes_with_it(rig: Rig) -> None:
    client = rig.client()
    body = {
        "model": GROUP,
        "messages": [{"role": "user", "content": "Give a summary of the key points."}],
        "metadata": {"request_id": "req_demo_001", "mode": "auto"},
        "temperature": 0.5,
    }
    await client.send(post(body))
    start = await rig.cluster.start()
    assert (start.tenant, start.key, start.gateway, start.mode) == (TENANT, KEY.id, rig.life.replica, "classic")
    assert (start.route.requested, start.route.models, start.route.agent) == (GROUP, ("scripted",), "helper")
    assert start.input == (UserMessage(parts=(TextPart(text="Give a summary of the key points."),)),)
    assert start.sampling == Sampling(temperature=0.5)
    assert (start.request, start.fresh, start.stream, start.budget_s) == ("req_demo_001", True, False, 600)
    assert start.conversation is not None
    assert is_id(start.conversation)
    rig.cluster.end(start, "Done.", timings=TIMINGS, store_ms=2.5)
    answer = await client.answer()
    assert answer.status == 200
    assert answer.json()["choices"][0]["message"] == {"role": "assistant", "content": "Done."}
    assert answer.json()["kitemesh"] == {
        "execution_id": start.turn,
        "request_id": "req_demo_001",
        "conversation_id": start.conversation,
    }
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-execution-id"] == start.turn
    assert answer.headers["x-conversation-id"] == start.conversation
    assert answer.headers["server"] == "kitemesh"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-request-id"].startswith("req_")
    names = [hop.split(";")[0].strip() for hop in answer.headers["server-timing"].split(",")]
    assert names == ["gateway", "start_queue", "orchestrator", "model_queue", "provider", "store", "relay", "total"]
    told = "start_queue;dur=0.5, orchestrator;dur=0.75, model_queue;dur=1.25, provider;dur=20.0, store;dur=2.5, relay"
    assert told in answer.headers["server-timing"]


@pytest.mark.requirement("stream:ends-with-done", "stream:headers")
async def test_a_stream_shows_each_frame_as_it_comes(rig: Rig) -> None:
    client = rig.client()
    await client.send(post({**STREAM, "stream_options": {"include_usage": True}}))
    start = await rig.cluster.start()
    assert start.stream
    rig.cluster.frame(start, 1, "Hel")
    status, headers = await client.head()
    assert status == 200
    assert headers["content-type"] == "text/event-stream"
    assert headers["cache-control"] == "no-cache, no-transform"
    assert headers["x-accel-buffering"] == "no"
    assert headers["x-execution-id"] == start.turn
    assert headers["server-timing"].startswith("gateway;dur=")
    first = await client.piece()
    assert first.count(b"\n\n") == 2
    assert b'"role":"assistant","content":""' in first
    assert b'{"content":"Hel"}' in first
    rig.cluster.frame(start, 2, "lo")
    second = await client.piece()
    assert second.startswith(f"id: {start.turn}:1.1.2.0\ndata: ".encode())
    rig.cluster.end(start, "Hello", last=2)
    last = await client.piece()
    assert last.endswith(b"data: [DONE]\n\n")
    assert await client.piece() == b""


async def test_an_answer_that_was_not_streamed_by_anybody_is_streamed_from_its_closing_event(rig: Rig) -> None:
    client = rig.client()
    await client.send(post(STREAM))
    rig.cluster.end(await rig.cluster.start(), "Hello")
    answer = await client.answer()
    assert answer.text == "Hello"
    assert answer.events[-1] == "[DONE]"
    assert [chunk["choices"][0]["finish_reason"] for chunk in answer.chunks] == [None, None, "stop"]


async def test_a_connection_serves_one_request_after_the_other(rig: Rig) -> None:
    client = rig.client()
    for stream in (False, True, True, False):
        await client.send(post({**ASK, "stream": stream}))
        rig.cluster.end(await rig.cluster.start(), "x")
        answer = await client.answer()
        assert (answer.text if stream else answer.json()["choices"][0]["message"]["content"]) == "x"


async def test_pipelined_requests_are_answered_in_order(rig: Rig) -> None:
    client = rig.client()
    await client.send(get("/v1/models") + post({}) + get("/v1/models/scripted"))
    assert [(await client.answer()).status for _ in range(3)] == [200, 400, 200]


async def test_a_client_of_http_1_0_gets_a_stream_without_chunks_that_ends_with_the_connection(rig: Rig) -> None:
    client = rig.client()
    await client.send(post(STREAM, Connection="keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0"))
    start = await rig.cluster.start()
    rig.cluster.frame(start, 1, "a")
    rig.cluster.end(start, "ab", last=1, attempt=2)
    answer = await client.answer()
    assert "transfer-encoding" not in answer.headers
    assert answer.text == "ab"
    assert answer.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.requirement("completions:conversation-is-named")
async def test_without_a_conversation_none_is_named(rig: Rig) -> None:
    client = rig.client()
    await client.send(post({**ASK, "store": False}))
    start = await rig.cluster.start()
    assert (start.conversation, start.fresh) == (None, False)
    rig.cluster.end(start, "x")
    answer = await client.answer()
    assert "x-conversation-id" not in answer.headers
    assert "conversation_id" not in answer.json()["kitemesh"]


@pytest.mark.requirement("conversation:continued-while-running")
async def test_a_conversation_is_continued_by_its_id(rig: Rig) -> None:
    client = rig.client()
    await client.send(post({**ASK, "metadata": {"conversation_id": "conv-1"}}))
    start = await rig.cluster.start()
    assert (start.conversation, start.fresh) == ("conv-1", False)
    rig.cluster.end(start, "x")
    assert (await client.answer()).headers["x-conversation-id"] == "conv-1"


@pytest.mark.requirement("completions:unstored-answer-says-so")
async def test_an_answer_that_could_not_be_stored_says_so(rig: Rig) -> None:
    for stream in (False, True):
        client = rig.client()
        await client.send(post({**ASK, "stream": stream}))
        rig.cluster.end(await rig.cluster.start(), "x", stored=False)
        answer = await client.answer()
        told = answer.chunks[-1] if stream else answer.json()
        assert told["kitemesh"]["stored"] is False


@pytest.mark.requirement("classic:large-messages-are-parcels")
async def test_a_request_too_large_to_travel_goes_as_a_parcel(rig: Rig) -> None:
    client = rig.client()
    text = "x" * 400_000
    await client.send(post({"model": "scripted", "messages": [{"role": "user", "content": text}]}))
    start = await rig.cluster.start()
    assert start.input == (UserMessage(parts=(TextPart(text=text),)),)
    rig.cluster.end(start, "ok")
    assert (await client.answer()).status == 200


async def test_a_large_answer_arrives_whole(rig: Rig) -> None:
    client = rig.client()
    await client.send(post(ASK))
    rig.cluster.end(await rig.cluster.start(), "y" * 600_000)
    assert len((await client.answer()).json()["choices"][0]["message"]["content"]) == 600_000


@pytest.mark.requirement("http:request-id")
async def test_the_clients_request_id_is_kept_if_it_is_one(rig: Rig) -> None:
    answer = await rig.ask(post({}, **{"x-request-id": "Abc_=-1"}))
    assert answer.headers["x-request-id"] == answer.error["request_id"] == "Abc_=-1"
    for bad in ("a b", "a.b", "x" * 256, ""):
        answer = await rig.ask(post({}, **{"x-request-id": bad}))
        assert answer.headers["x-request-id"].startswith("req_")


@pytest.mark.requirement("http:upstream-limit-keeps-its-time", "stream:failure-is-a-status-first")
async def test_a_failure_before_the_first_event_is_a_status(rig: Rig) -> None:
    for stream in (False, True):
        client = rig.client()
        await client.send(post({**ASK, "stream": stream}))
        rig.cluster.fail(await rig.cluster.start(), ErrorCode.UPSTREAM_LIMITED, "Busy", retry_after_s=2.2)
        answer = await client.answer()
        assert answer.status == 429
        assert answer.headers["retry-after"] == "3"
        assert answer.error["code"] == "rate_limit_exceeded"
        assert "x-execution-id" in answer.headers


@pytest.mark.requirement("http:stopped-turn-is-not-retried")
async def test_a_turn_that_somebody_stopped_is_not_brought_back_by_a_retry(rig: Rig) -> None:
    client = rig.client()
    await client.send(post(ASK))
    error = ErrorInfo(code=ErrorCode.TURN_CANCELLED, message="The turn was cancelled: an operator")
    rig.cluster.end(await rig.cluster.start(), "", outcome="cancelled", error=error)
    answer = await client.answer()
    assert (answer.status, answer.headers["x-should-retry"]) == (409, "false")


@pytest.mark.requirement("stream:failure-is-never-complete")
async def test_a_failure_after_the_first_event_is_in_the_stream_and_closes_the_connection(rig: Rig) -> None:
    client = rig.client()
    await client.send(post(STREAM))
    start = await rig.cluster.start()
    rig.cluster.frame(start, 1, "a")
    rig.cluster.fail(start, ErrorCode.UPSTREAM_CUT, "It broke off")
    answer = await client.answer()
    assert answer.status == 200
    assert answer.chunks[-1]["error"] == {
        "message": "It broke off",
        "type": "upstream_error",
        "code": "upstream.cut",
        "param": None,
        "request_id": answer.headers["x-request-id"],
    }
    assert b"[DONE]" not in answer.body
    assert b'"finish_reason":"' not in answer.body
    assert await client.ended()


@pytest.mark.requirement("stream:streams-do-not-mix")
async def test_many_streams_at_once_do_not_mix(rig: Rig) -> None:
    async def stream(n: int) -> str:
        client = rig.client()
        await client.send(post({**STREAM, "messages": [{"role": "user", "content": str(n)}]}))
        return (await client.answer()).text

    async def serve() -> None:
        starts = [await rig.cluster.start() for _ in range(20)]
        for n in range(1, 11):
            for start in starts:
                message = start.input[0]
                assert isinstance(message, UserMessage)
                rig.cluster.frame(start, n, message.parts[0].text + ",")
        for start in starts:
            message = start.input[0]
            assert isinstance(message, UserMessage)
            rig.cluster.end(start, (message.parts[0].text + ",") * 10, last=10)

    serving = asyncio.create_task(serve())
    texts = await asyncio.gather(*(stream(n) for n in range(20)))
    await serving
    assert texts == [f"{n}," * 10 for n in range(20)]
