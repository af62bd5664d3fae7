"""What a runner adds to a job: results told at once, files fetched, and what a model says beside its answer."""

import base64
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from integration.bus.rig import OwnServer
from integration.model_runner.rig import Rig, job_of, running
from integration.model_runner.test_continuing import Delivery
from kitemesh_cli.servers import LOOPBACK, free_port
from kitemesh_contracts.commands import Mark
from kitemesh_contracts.content import (
    Alternative,
    CallResult,
    FilePart,
    Logprob,
    Sampling,
    TextPart,
    UserMessage,
)
from kitemesh_contracts.deltas import Delta, Frame, TextDelta, result_delta
from kitemesh_contracts.errors import ErrorCode, ErrorInfo, ProviderFailed, Unavailable
from kitemesh_contracts.events import StepCancelled, StepGenerated
from kitemesh_model_runner.provider import ModelCall
from kitemesh_model_runner.provider_openai import OpenAIEndpoint
from kitemesh_runtime.catalog import OpenAIProvider
from kitemesh_runtime.clock import SystemClock
from kitemesh_runtime.worker import Done, Retry
from upstream import Upstream

RESULTS = (
    CallResult(call="a", text="42"),
    CallResult(call="b", error=ErrorInfo(code=ErrorCode.TOOL_DENIED, message="no")),
)
AFTER = Mark(step=1, attempt=1, n=4)


@pytest.fixture
async def rig(nats: OwnServer, upstream: Upstream, session: aiohttp.ClientSession) -> AsyncIterator[Rig]:
    async with running(nats.url, upstream, session, {"ok": "ok?tokens=2", "stalled": "stalled_first"}) as ready:
        yield ready


@pytest.mark.parametrize("mode", ["classic", "durable"])
@pytest.mark.requirement("stream:results-are-told-first")
async def test_what_came_of_calls_is_told_before_the_model_has_said_anything(rig: Rig, mode: str) -> None:
    job = await rig.send(job_of("@hang", mode=mode, step=2, results=RESULTS, after=AFTER))
    assert await rig.frame() == Frame(n=1, offset=0, items=tuple(map(result_delta, RESULTS)), after=AFTER)
    rig.cancel(job)
    event = await rig.event()
    assert isinstance(event, StepCancelled)
    assert event.last == 1


@pytest.mark.requirement("stream:results-are-told-first")
async def test_what_the_model_says_follows_in_frames_of_its_own(rig: Rig) -> None:
    await rig.send(job_of("@echo so", step=2, results=RESULTS, after=AFTER))
    frames = [await rig.frame(), await rig.frame()]
    assert frames[1] == Frame(n=2, offset=0, items=(TextDelta(text="so"),))
    event = await rig.event()
    assert isinstance(event, StepGenerated)
    assert (event.text, event.last) == ("so", 2)


async def test_a_caller_that_does_not_stream_is_told_no_results(rig: Rig) -> None:
    await rig.send(job_of("@echo so", step=2, results=RESULTS, stream=False))
    event = await rig.event()
    assert isinstance(event, StepGenerated)
    assert event.last == 0
    assert rig.frames.empty()


async def picture(rig: Rig) -> UserMessage:
    blob = await rig.blobs.put("acme", b"pixels", keep_s=60.0)
    part = FilePart(media_type="image/png", name="a.png", blob=blob, size=6)
    return UserMessage(parts=(TextPart(text="@files"), part))


@pytest.mark.requirement("provider:files")
async def test_files_are_fetched_for_the_endpoint(rig: Rig, upstream: Upstream) -> None:
    gone = FilePart(media_type="application/pdf", name="b.pdf", blob="no-such-blob", size=3)
    message = await picture(rig)
    message = UserMessage(parts=(*message.parts, gone))
    await rig.send(job_of(models=("ok",), messages=(message,)))
    assert isinstance(await rig.event(), StepGenerated)
    (record,) = await upstream.records(came=1)
    assert record["body"]["messages"][0]["content"] == [
        {"type": "text", "text": "@files"},
        {
            "type": "image_url",
            "image_url": {"url": "data:image/png;base64," + base64.b64encode(b"pixels").decode()},
        },
        {"type": "text", "text": "(The file b.pdf is not kept any more.)"},
    ]


async def test_while_files_cannot_be_fetched_the_job_is_handed_back_and_not_failed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def get(*_: object) -> bytes:
        raise Unavailable(ErrorCode.STORE_DOWN, "down")

    message = await picture(rig)
    monkeypatch.setattr(rig.blobs, "get", get)
    job = job_of(messages=(message,))
    outcome = await rig.runner.on_job(Delivery(job, 1))  # type: ignore[arg-type]  # no answer is needed
    assert isinstance(outcome, Retry)
    monkeypatch.undo()
    assert await rig.runner.on_job(Delivery(job, 1)) == Done()  # type: ignore[arg-type]  # as above
    event = await rig.event()
    assert isinstance(event, StepGenerated)
    assert event.text.startswith("a.png image/png 6 ")


async def test_choices_and_likely_tokens_come_back_with_the_answer(rig: Rig) -> None:
    sampling = Sampling(choices=2, logprobs=True)
    await rig.send(job_of("@echo a", sampling=sampling))
    event = await rig.event()
    assert isinstance(event, StepGenerated)
    likely = Logprob(token="a", logprob=-0.125, bytes=(97,))
    assert event.logprobs == (likely,)
    assert [each.text for each in event.alternatives] == ["(2) a"]
    assert (await rig.frame()).items == (TextDelta(text="a", logprobs=(likely,)),)


@asynccontextmanager
async def serving(*chunks: dict[str, Any]) -> AsyncIterator[OpenAIEndpoint]:
    """Run an endpoint that answers with these chunks while inside."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for chunk in chunks:
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, LOOPBACK, port).start()
    config = OpenAIProvider(kind="openai", base_url=f"http://{LOOPBACK}:{port}/v1", retries=0)
    async with aiohttp.ClientSession() as session:
        yield OpenAIEndpoint("x", config, session, clock=SystemClock(), chance=lambda: 0.0)
    await runner.cleanup()


def said(index: int, text: str, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": finish}]}


CALL = ModelCall("t", 1, "m", (UserMessage(parts=(TextPart(text="hi"),)),), Sampling(choices=2), 10.0)


async def test_an_endpoint_may_end_its_choices_in_any_order() -> None:
    deltas: list[Delta] = []

    async def take(more: Sequence[Delta]) -> None:
        deltas.extend(more)

    async with serving(said(1, "b"), said(0, "a", "stop"), said(1, "c", "length")) as endpoint:
        end = await endpoint.generate(CALL, take)
    assert deltas == [TextDelta(text="a")]
    assert end.finish == "stop"
    assert end.alternatives == (Alternative(index=1, finish="length", text="bc"),)


@pytest.mark.parametrize("chunks", [(said(0, "a", "stop"),), (said(1, "b"), said(0, "a", "stop"))])
async def test_an_answer_without_one_of_its_choices_is_no_whole_one(chunks: tuple[dict[str, Any], ...]) -> None:
    async def take(_: Sequence[Delta]) -> None:
        """Take it."""

    async with serving(*chunks) as endpoint:
        with pytest.raises(ProviderFailed) as caught:
            await endpoint.generate(CALL, take)
    assert caught.value.code == ErrorCode.UPSTREAM_CUT
