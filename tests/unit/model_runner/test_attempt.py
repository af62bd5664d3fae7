"""One attempt with a clock of the test's: whose frames go out after a standstill, and where the time went."""

import asyncio
from typing import NamedTuple

import msgspec
import pytest

from kitemesh_contracts import codec
from kitemesh_contracts.commands import Generate, Mark
from kitemesh_contracts.content import (
    Alternative,
    CallResult,
    Logprob,
    TextPart,
    TopLogprob,
    Usage,
    UserMessage,
)
from kitemesh_contracts.deltas import RESULT_SHOWN_CHARS, Frame, ReasoningDelta, TextDelta, result_delta
from kitemesh_contracts.errors import ErrorCode, ErrorInfo, ProviderFailed, Unavailable
from kitemesh_contracts.events import StepTimings
from kitemesh_contracts.topology import WORKER_ACK_WAIT_S, WORKER_HEARTBEAT_S
from kitemesh_model_runner import attempt as attempt_module
from kitemesh_model_runner.attempt import Attempt
from kitemesh_model_runner.fence import Lost
from kitemesh_model_runner.lease import PAUSE_S, Lease, Outdated, Standstill
from kitemesh_model_runner.provider import Generated

JOB = Generate(
    turn="t",
    tenant="n",
    gateway="g",
    mode="durable",
    step=2,
    attempt=1,
    models=("m",),
    messages=(UserMessage(parts=(TextPart(text="12345678"),)),),
    budget_s=1.0,
    stored=True,
    stream=True,
    timings=StepTimings(queued_ms=7.0, first_token_ms=7.0, total_ms=7.0, start_queued_ms=3.0, orchestrator_ms=4.0),
)
ERROR = ErrorInfo(code=ErrorCode.UPSTREAM_CUT, message="cut")


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


class Bus:
    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def post(self, _: str, payload: bytes) -> None:
        frame = codec.decode(codec.RELAYED, payload)
        assert isinstance(frame, Frame)
        self.frames.append(frame)

    publish = post


class Fence:
    """Answers as the test says."""

    def __init__(self) -> None:
        self.lost_to: Lost | None = None
        self.is_up = True
        self.asked = 0

    async def lost(self, *asked: object) -> Lost | None:
        assert asked == ("n", "t", 2, 2, "delivery")
        self.asked += 1
        if not self.is_up:
            raise Unavailable(ErrorCode.STORE_DOWN, "down")
        return self.lost_to


class Scene(NamedTuple):
    clock: Clock
    bus: Bus
    fence: Fence
    standstill: Standstill
    attempt: Attempt


@pytest.fixture
def scene() -> Scene:
    clock, bus, fence = Clock(), Bus(), Fence()
    standstill = Standstill(clock)  # type: ignore[arg-type]  # it tells no other time
    lease = Lease(standstill, fence, JOB, 2, "delivery", sure_s=clock.now_s)  # type: ignore[arg-type]  # it only asks
    attempt = Attempt(bus, clock, JOB, number=2, queued_ms=5.0, lease=lease)  # type: ignore[arg-type]  # as above
    return Scene(clock, bus, fence, standstill, attempt)


async def say(scene: Scene, text: str) -> None:
    await scene.attempt.take((TextDelta(text=text),))


def test_the_shortest_standstill_that_matters_is_what_a_heartbeat_leaves_of_the_lease() -> None:
    assert PAUSE_S <= WORKER_ACK_WAIT_S - WORKER_HEARTBEAT_S


async def test_while_the_process_runs_nobody_is_asked(scene: Scene) -> None:
    for _ in range(20):
        scene.clock.now_s += 1.0
        scene.standstill.look()
        await say(scene, "a")
    assert scene.fence.asked == 0
    assert len(scene.bus.frames) == 20


@pytest.mark.requirement("attempt:redelivery-has-a-number-of-its-own")
@pytest.mark.parametrize("ticked", [False, True], ids=["before the tick", "after it"])
@pytest.mark.parametrize("lost_to", ["elsewhere", "over"])
async def test_after_a_standstill_no_frame_goes_out_once_the_job_is_anothers(
    scene: Scene, lost_to: Lost, *, ticked: bool
) -> None:
    await say(scene, "a")
    scene.fence.lost_to = lost_to
    scene.clock.now_s += PAUSE_S + 0.1
    if ticked:
        scene.standstill.look()
    with pytest.raises(Outdated) as caught:
        await say(scene, "b")
    assert caught.value.standing == lost_to
    assert [frame.n for frame in scene.bus.frames] == [1]


async def test_after_a_standstill_that_cost_nothing_the_attempt_goes_on_and_asks_once(scene: Scene) -> None:
    scene.clock.now_s += PAUSE_S + 0.1
    for _ in range(3):
        await say(scene, "a")
    assert scene.fence.asked == 1
    assert len(scene.bus.frames) == 3
    scene.clock.now_s += PAUSE_S + 0.1
    await say(scene, "a")
    assert scene.fence.asked == 2


async def test_while_the_store_does_not_say_whose_the_job_is_no_frame_goes_out(scene: Scene) -> None:
    scene.fence.is_up = False
    scene.clock.now_s += PAUSE_S + 0.1
    for _ in range(2):
        with pytest.raises(Unavailable):
            await say(scene, "a")
    scene.fence.is_up = True
    await say(scene, "a")
    assert [frame.n for frame in scene.bus.frames] == [1]


async def test_a_beginning_that_is_told_after_a_standstill_is_checked_as_well(scene: Scene) -> None:
    scene.fence.lost_to = "elsewhere"
    scene.clock.now_s += PAUSE_S + 0.1
    with pytest.raises(Outdated):
        await scene.attempt.go_on((TextDelta(text="a"),))
    assert scene.bus.frames == []


async def test_a_continued_answer_is_told_and_returned_from_its_beginning(scene: Scene) -> None:
    beginning = (ReasoningDelta(text="hm"), TextDelta(text="abc"))
    await scene.attempt.go_on(beginning)
    await say(scene, "de")
    assert scene.bus.frames == [
        Frame(n=1, offset=0, items=beginning),
        Frame(n=2, offset=3, items=(TextDelta(text="de"),)),
    ]
    event = scene.attempt.generated(Generated("stop", None))
    assert (event.text, event.reasoning, event.last) == ("abcde", "hm", 2)
    assert event.usage == Usage(input_tokens=2, output_tokens=3, reasoning_tokens=1)
    assert scene.attempt.continued == 5


async def test_an_answer_that_breaks_off_before_it_goes_on_keeps_its_beginning(scene: Scene) -> None:
    await scene.attempt.go_on((TextDelta(text="abcd"),))
    event = scene.attempt.failed(ERROR)
    assert (event.text, event.last) == ("abcd", 1)
    assert event.usage == Usage(input_tokens=2, output_tokens=1)


async def test_the_time_before_the_provider_is_asked_is_the_runners_and_what_came_before_is_passed_on(
    scene: Scene,
) -> None:
    clock, attempt = scene.clock, scene.attempt
    async with asyncio.timeout(10) as scope:
        clock.now_s += 0.25
        attempt.begin("m", scope)
        clock.now_s += 0.25
        attempt.ask()
        clock.now_s += 0.125
        await say(scene, "a")
        clock.now_s += 1.0
        timings = attempt.generated(Generated("stop", None)).timings
    assert timings == StepTimings(
        queued_ms=5.0,
        first_token_ms=125.0,
        total_ms=1625.0,
        runner_ms=500.0,
        start_queued_ms=3.0,
        orchestrator_ms=4.0,
    )


async def test_where_no_provider_was_asked_all_the_time_is_the_runners(scene: Scene) -> None:
    scene.clock.now_s += 0.5
    timings = scene.attempt.failed(ERROR).timings
    assert (timings.total_ms, timings.runner_ms, timings.first_token_ms) == (500.0, 500.0, None)


async def test_a_classic_attempt_is_never_asked_for(scene: Scene) -> None:
    job = msgspec.structs.replace(JOB, mode="classic")
    attempt = Attempt(scene.bus, scene.clock, job, number=1, queued_ms=0.0)  # type: ignore[arg-type]  # as above
    scene.clock.now_s += 10 * PAUSE_S
    await attempt.take((TextDelta(text="a"),))
    assert len(scene.bus.frames) == 1


async def test_what_came_of_calls_is_told_before_anything_is_said_and_is_no_first_token(scene: Scene) -> None:
    error = ErrorInfo(code=ErrorCode.TOOL_DENIED, message="no")
    results = (CallResult(call="a", text="x" * (RESULT_SHOWN_CHARS + 1)), CallResult(call="b", error=error))
    job = msgspec.structs.replace(JOB, results=results, after=Mark(step=1, attempt=1, n=3))
    attempt = Attempt(scene.bus, scene.clock, job, number=2, queued_ms=0.0)  # type: ignore[arg-type]  # as above
    await attempt.tell_results()
    assert attempt.first_token_s is None
    await attempt.take((TextDelta(text="so"),))
    assert scene.bus.frames == [
        Frame(
            n=1,
            offset=0,
            items=tuple(map(result_delta, results)),
            after=Mark(step=1, attempt=1, n=3),
        ),
        Frame(n=2, offset=0, items=(TextDelta(text="so"),)),
    ]
    assert attempt.generated(Generated("stop", None)).text == "so"


async def test_after_a_standstill_results_are_told_only_by_who_still_has_the_job(scene: Scene) -> None:
    scene.fence.lost_to = "over"
    scene.clock.now_s += PAUSE_S + 0.1
    await scene.attempt.tell_results()
    scene.attempt.job = msgspec.structs.replace(JOB, results=(CallResult(call="a"),))  # type: ignore[misc]  # a test
    with pytest.raises(Outdated):
        await scene.attempt.tell_results()
    assert scene.bus.frames == []


async def test_further_choices_and_how_likely_tokens_were_are_in_the_result(scene: Scene) -> None:
    one, two = (Logprob(token=token, logprob=-0.5) for token in ("a", "b"))
    await scene.attempt.take((TextDelta(text="a", logprobs=(one,)), TextDelta(text="", logprobs=(two,))))
    others = (Alternative(index=1, finish="stop", text="12345678", reasoning="1234"),)
    event = scene.attempt.generated(Generated("stop", None, alternatives=others))
    assert event.alternatives == others
    assert event.logprobs == (one, two)
    assert event.usage == Usage(input_tokens=2, output_tokens=4, reasoning_tokens=1)


async def test_nobody_needs_to_be_told_of_that_many_tokens(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt_module, "MAX_LOGPROBS", 2)
    likely = Logprob(token="a", logprob=-0.5, top=(TopLogprob(token="b", logprob=-1.0),))
    await scene.attempt.take((TextDelta(text="a", logprobs=(likely,)),))
    with pytest.raises(ProviderFailed):
        await scene.attempt.take((TextDelta(text="a", logprobs=(likely,)),))
