"""What is measured of an attempt that ended, with a clock of the test's and a kind of provider of each test's."""

import uuid

import pytest

from kitemesh_contracts.commands import Generate
from kitemesh_contracts.content import TextPart, Usage, UserMessage
from kitemesh_contracts.deltas import TextDelta
from kitemesh_contracts.errors import ErrorCode, ErrorInfo
from kitemesh_model_runner.accounts import note
from kitemesh_model_runner.attempt import Attempt, Result
from kitemesh_model_runner.provider import Generated
from kitemesh_runtime.metrics import REGISTRY

JOB = Generate(
    turn="t",
    tenant="n",
    gateway="g",
    mode="classic",
    step=1,
    attempt=1,
    models=("m",),
    messages=(UserMessage(parts=(TextPart(text="12345678"),)),),
    budget_s=1.0,
    stream=True,
)
CUT = ErrorInfo(code=ErrorCode.UPSTREAM_CUT, message="cut")


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


class Bus:
    def publish(self, _: str, payload: bytes) -> None:
        """Take a frame."""

    post = publish


class Call:
    """An attempt, and what was measured of its kind of provider."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.kind = uuid.uuid4().hex
        self.attempt = Attempt(Bus(), self.clock, JOB, number=1, queued_ms=5.0)  # type: ignore[arg-type]  all it needs

    async def answer(self, *pauses_s: float) -> None:
        """Be asked, and tell a token after each pause."""
        self.attempt.ask()
        for pause_s in pauses_s:
            self.clock.now_s += pause_s
            await self.attempt.take((TextDelta(text="a"),))

    def note(self, result: Result) -> None:
        note(self.attempt, result, self.kind)

    def measured(self, name: str, what: str = "sum", **labels: str) -> float | None:
        own = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": self.kind, **labels}
        return REGISTRY.get_sample_value(f"gen_ai_{name}_{what}", own)


@pytest.fixture
def call() -> Call:
    return Call()


def whole(call: Call, usage: Usage) -> Result:
    return call.attempt.generated(Generated(finish="stop", usage=usage))


async def test_an_answer_tells_its_time_its_first_token_and_what_each_further_one_took(call: Call) -> None:
    await call.answer(0.5, 0.2, 0.2)
    call.note(whole(call, Usage(input_tokens=7, output_tokens=5)))
    assert call.measured("client_operation_duration_seconds", error_type="") == pytest.approx(0.9)
    assert call.measured("server_time_to_first_token_seconds") == pytest.approx(0.5)
    assert call.measured("server_time_per_output_token_seconds") == pytest.approx(0.1)
    assert call.measured("client_token_usage", gen_ai_token_type="input") == 7
    assert call.measured("client_token_usage", gen_ai_token_type="output") == 5


async def test_a_failure_is_told_by_its_code_and_has_no_time_per_token(call: Call) -> None:
    await call.answer(0.5, 0.2)
    call.note(call.attempt.failed(CUT))
    assert call.measured("client_operation_duration_seconds", "count", error_type="upstream.cut") == 1
    assert call.measured("client_operation_duration_seconds", "count", error_type="") is None
    assert call.measured("server_time_per_output_token_seconds", "count") == 0
    assert call.measured("server_time_to_first_token_seconds", "count") == 1


async def test_what_was_cancelled_before_it_was_asked_has_cost_nothing(call: Call) -> None:
    call.note(call.attempt.cancelled("the client left"))
    assert call.measured("client_operation_duration_seconds", "count", error_type="turn.cancelled") == 1
    assert call.measured("server_time_to_first_token_seconds", "count") == 0
    for kind in ("input", "output"):
        assert call.measured("client_token_usage", "count", gen_ai_token_type=kind) == 0


async def test_a_single_token_and_a_continued_answer_have_no_time_per_token(call: Call) -> None:
    await call.answer(0.5)
    call.note(whole(call, Usage(input_tokens=7, output_tokens=1)))
    await call.attempt.go_on([TextDelta(text="before")])
    call.note(whole(call, Usage(input_tokens=7, output_tokens=50)))
    assert call.measured("server_time_per_output_token_seconds", "count") == 0
