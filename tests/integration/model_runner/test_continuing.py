"""Durable answers that break off: what the next attempt tells first, and what it generates."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp
import msgspec
import pytest

from integration.bus.rig import OwnServer
from integration.model_runner.rig import WAIT_S, Rig, job_of, running
from kitemesh_contracts import codec, subjects, topology
from kitemesh_contracts.commands import Generate
from kitemesh_contracts.content import Sampling, Usage
from kitemesh_contracts.deltas import CallDelta, Delta, Frame, ReasoningDelta, TextDelta
from kitemesh_contracts.errors import ErrorCode, Unavailable
from kitemesh_contracts.events import StepGenerated, StepReleased
from kitemesh_contracts.subjects import OUT_BLOCK
from kitemesh_model_runner.provider import Generated, ModelCall, Sink
from kitemesh_model_runner.provider_scripted import ScriptedModel
from kitemesh_runtime import failpoints
from kitemesh_runtime.clock import SystemClock
from kitemesh_runtime.live_turns import Job
from kitemesh_runtime.worker import Done, Leave, Retry
from upstream import Upstream


@pytest.fixture
async def rig(nats: OwnServer, upstream: Upstream, session: aiohttp.ClientSession) -> AsyncIterator[Rig]:
    models = {"continuing": "ok?tokens=3", "beginning": "ok?tokens=3"}
    async with running(nats.url, upstream, session, models, at_once=False) as ready:
        yield ready


def durable(text: str = "hello", **more: Any) -> Generate:
    return job_of(text, **{"mode": "durable", "stored": True, "step": 2, "carry": msgspec.Raw(b"null"), **more})


class Delivery:
    """One delivery of a job that the test makes by itself."""

    sequence = 7

    def __init__(self, job: Generate, deliveries: int) -> None:
        self.data = codec.encode(job)
        self.published_at_s = SystemClock().now_ms() / 1000
        self.deliveries = deliveries
        self.subject = f"km.v1.model.p.interactive.0.{job.turn}"


async def handle(rig: Rig, job: Generate, deliveries: int = 1) -> object:
    return await rig.runner.on_job(Delivery(job, deliveries))  # type: ignore[arg-type]  # no answer is needed


async def tell(rig: Rig, job: Generate, attempt: int, *frames: Sequence[Delta]) -> None:
    """Be the worker of an attempt that told so much and died."""
    prefix = subjects.out(job.gateway, job.turn, job.step, attempt)
    for n, items in enumerate(frames, 1):
        rig.bus.post(subjects.out_frame(prefix, n), codec.encode(Frame(n=n, offset=0, items=tuple(items))))
    assert await rig.bus.posted(timeout_s=WAIT_S)
    for _ in frames:
        await rig.frame()


async def captured(rig: Rig, job: Generate, attempt: int) -> list[Frame]:
    assert await rig.bus.posted(timeout_s=WAIT_S)
    kept = await rig.bus.last_of(topology.OUT, subjects.out_block(job.turn, job.step, attempt, 0))
    frames = [codec.decode(codec.RELAYED, each.payload) for each in kept]
    assert all(isinstance(frame, Frame) for frame in frames)
    return frames  # type: ignore[return-value]  # just asserted


def text(words: str) -> tuple[TextDelta]:
    return (TextDelta(text=words),)


async def answer(rig: Rig) -> StepGenerated:
    event = await rig.event()
    assert isinstance(event, StepGenerated)
    return event


async def test_a_durable_answers_frames_are_captured_and_heard_at_once(rig: Rig) -> None:
    job = durable("@count 3\n@delay_ms 1")
    await rig.live_turns.begin(job)
    assert await handle(rig, job) == Done()
    heard = [await rig.frame() for _ in range(3)]
    assert await captured(rig, job, 1) == heard
    assert [(frame.n, frame.offset, frame.items) for frame in heard] == [
        (1, 0, text("1 ")),
        (2, 2, text("2 ")),
        (3, 4, text("3 ")),
    ]
    assert (await answer(rig)).last == 3


async def test_a_redelivered_answer_goes_on_where_the_attempt_before_it_broke_off(rig: Rig) -> None:
    job = durable("@reason 1\n@count 4")
    await rig.live_turns.begin(job)
    await tell(rig, job, 1, (ReasoningDelta(text="hm "),), text("1 "), text("2"))
    assert await handle(rig, job, 2) == Done()
    event = await answer(rig)
    assert (event.attempt, event.text, event.reasoning, event.last) == (2, "1 2 3 4 ", "hm ", 2)
    assert await captured(rig, job, 2) == [
        Frame(n=1, offset=0, items=(ReasoningDelta(text="hm "), TextDelta(text="1 2"))),
        Frame(n=2, offset=3, items=(*text(" "), *text("3 "), *text("4 "))),
    ]


async def test_the_newest_attempt_that_told_anything_is_gone_on_with(rig: Rig) -> None:
    job = durable("@count 3")
    await rig.live_turns.begin(job, attempt=3, claimed=(Delivery.sequence, 3))
    await tell(rig, job, 1, text("0 "))
    await tell(rig, job, 2, text("1 "))
    assert await handle(rig, job, 4) == Done()
    event = await answer(rig)
    assert (event.attempt, event.text) == (4, "1 2 3 ")


async def test_an_answer_of_more_frames_than_a_block_is_gone_on_with(rig: Rig) -> None:
    words = [f"{n} " for n in range(1, OUT_BLOCK + 3)]
    job = durable(f"@count {OUT_BLOCK + 4}")
    await rig.live_turns.begin(job)
    await tell(rig, job, 1, *map(text, words))
    assert await handle(rig, job, 2) == Done()
    first = await rig.frame()
    assert first.items == text("".join(words))
    assert (await answer(rig)).text == "".join(words) + f"{OUT_BLOCK + 3} {OUT_BLOCK + 4} "


@pytest.mark.parametrize(
    ("told", "more"),
    [
        ([], {}),
        ([text("1 "), (CallDelta(index=0, name="f"),)], {}),
        ([text("1 ")], {"models": ("anew",)}),
        ([text("1 ")], {"models": ("beginning",)}),
    ],
    ids=["nothing was told", "a call was begun", "a scripted model that may not", "an endpoint that cannot"],
)
async def test_what_cannot_be_gone_on_with_is_generated_anew(
    rig: Rig, upstream: Upstream, told: list[Sequence[Delta]], more: dict[str, Any]
) -> None:
    job = durable("@echo w0 w1 w2 ", **more)
    await rig.live_turns.begin(job)
    await tell(rig, job, 1, *told)
    assert await handle(rig, job, 2) == Done()
    event = await answer(rig)
    assert (event.attempt, event.text.strip()) == (2, "w0 w1 w2")
    (first, *_) = await captured(rig, job, 2)
    assert (first.n, first.offset) == (1, 0)
    for record in await upstream.records():
        assert "continue_final_message" not in record["body"]
        assert [message["role"] for message in record["body"]["messages"]] == ["user"]


async def test_an_endpoint_that_can_is_given_the_beginning_and_asked_for_the_rest(rig: Rig, upstream: Upstream) -> None:
    job = durable("hello", models=("continuing",), sampling=Sampling(max_tokens=100))
    await rig.live_turns.begin(job)
    await tell(rig, job, 1, text("Once "), text("upon a time "))
    assert await handle(rig, job, 2) == Done()
    event = await answer(rig)
    assert (event.attempt, event.text) == (2, "Once upon a time w0 w1 w2 ")
    # Five tokens of the prompt's seven, as estimated, were said: with the three that came they are the answer's.
    assert event.usage == Usage(input_tokens=2, output_tokens=8)
    (record,) = await upstream.records()
    body = record["body"]
    assert body["messages"] == [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "Once upon a time "},
    ]
    assert (body["continue_final_message"], body["add_generation_prompt"], body["max_tokens"]) == (True, False, 95)
    assert (await captured(rig, job, 2))[0].items == text("Once upon a time ")


@pytest.mark.parametrize("told", [[ReasoningDelta(text="hm")], [ReasoningDelta(text="hm"), TextDelta(text="so")]])
async def test_an_endpoint_is_not_given_the_beginning_of_an_answer_that_reasons(
    rig: Rig, upstream: Upstream, told: list[Delta]
) -> None:
    job = durable("hello", models=("continuing",))
    await rig.live_turns.begin(job)
    await tell(rig, job, 1, told)
    assert await handle(rig, job, 2) == Done()
    assert (await answer(rig)).text == "w0 w1 w2 "
    (record,) = await upstream.records()
    assert "continue_final_message" not in record["body"]


@pytest.mark.requirement("classic:hand-back-on-drain")
async def test_an_answer_that_is_handed_back_in_mid_stream_is_gone_on_with_by_the_next_attempt(rig: Rig) -> None:
    rig.start()
    job = await rig.send(durable("@count 5\n@hang after 2", turn="handed-back"))
    await rig.live_turns.begin(job)
    assert await rig.text(words=2) == "1 2 "
    await rig.worker.drain(0.0)
    released = await rig.event()
    assert isinstance(released, StepReleased)
    assert (released.attempt, bytes(released.job)) == (1, codec.encode(job))
    again = msgspec.structs.replace(durable("@count 5", turn="handed-back"), attempt=2)
    await rig.live_turns.published_again(again)
    assert await handle(rig, again) == Done()
    event = await answer(rig)
    assert (event.attempt, event.text) == (2, "1 2 3 4 5 ")


def freezing(rig: Rig, job: Generate, claimed: asyncio.Event | None, stopped: list[str]) -> Any:
    """Make a model during whose second word the process stands still; `claimed`, while another takes its job."""
    original = ScriptedModel.generate

    async def generate(self: ScriptedModel, call: ModelCall, sink: Sink) -> Generated:
        async def thaw(deltas: Sequence[Delta]) -> None:
            if "2 " in [delta.text for delta in deltas if isinstance(delta, TextDelta)]:
                if claimed is not None and not claimed.is_set():
                    work = Job(
                        kind="model",
                        step=job.step,
                        attempt=job.attempt,
                        pool="p",
                        message=Delivery.sequence,
                        deliveries=2,
                    )
                    assert await rig.live_turns.claim(job.tenant, job.turn, work)
                    claimed.set()
                rig.clock.ahead_s += 10.0
            await sink(deltas)

        try:
            return await original(self, call, thaw)
        except BaseException as exc:
            stopped.append(type(exc).__name__)
            raise

    return generate


async def test_a_worker_that_thaws_after_its_job_was_taken_tells_nothing_more(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = durable("@count 4\n@delay_ms 1")
    await rig.live_turns.begin(job)
    stopped: list[str] = []
    monkeypatch.setattr(ScriptedModel, "generate", freezing(rig, job, asyncio.Event(), stopped))
    assert await handle(rig, job) == Leave()
    assert stopped == ["Outdated"]
    assert [frame.n for frame in await captured(rig, job, 1)] == [1]
    await rig.bus.barrier()
    assert rig.events.empty()


async def test_a_worker_that_thaws_while_the_store_is_away_goes_on_under_an_attempt_of_its_own(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = durable("@count 4\n@delay_ms 1")
    await rig.live_turns.begin(job)
    monkeypatch.setattr(ScriptedModel, "generate", freezing(rig, job, None, []))
    original = rig.live_turns.get

    async def get(tenant: str, turn: str) -> Any:
        raise Unavailable(ErrorCode.STORE_DOWN, "the test took it away")

    with monkeypatch.context() as patch:
        patch.setattr(rig.live_turns, "get", get)
        assert isinstance(await handle(rig, job), Retry)
    assert rig.live_turns.get == original
    monkeypatch.undo()
    assert await handle(rig, job) == Done()
    event = await answer(rig)
    assert (event.attempt, event.text) == (2, "1 2 3 4 ")
    assert (await captured(rig, job, 2))[0].items == text("1 ")


async def test_an_answer_that_stumbled_in_mid_stream_is_never_told_anew_under_the_same_attempt(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failpoints, "_armed", failpoints.parse("run.mid_stream:raise:2"))
    rig.start()
    job = durable("@count 4\n@delay_ms 1")
    await rig.live_turns.begin(job)
    await rig.send(job)
    event = await answer(rig)
    assert (event.attempt, event.text) == (2, "1 2 3 4 ")
    assert await rig.live_turns.attempt(job) == 2
    assert [frame.n for frame in await captured(rig, job, 1)] == [1, 2]
    assert (await captured(rig, job, 2))[0].items == text("1 2 ")
    await rig.emptied()
