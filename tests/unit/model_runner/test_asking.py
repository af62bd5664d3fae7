"""Several upstreams for one call, with a clock of the test's: who is asked, how often, and what is told in the end."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kitemesh_contracts.commands import Generate
from kitemesh_contracts.content import Sampling
from kitemesh_contracts.deltas import TextDelta
from kitemesh_contracts.errors import ErrorCode, ProviderFailed, Unavailable
from kitemesh_model_runner.asking import ELSEWHERE, OPEN_WORDS, ask
from kitemesh_model_runner.attempt import Attempt
from kitemesh_model_runner.breaker import IN_A_ROW, OPEN_S
from kitemesh_model_runner.circuit import Circuit
from kitemesh_model_runner.provider import SENTENCES, Generated, ModelCall, ModelMissing, Prefix, Sink, failure
from kitemesh_model_runner.routing import Target
from kitemesh_runtime.metrics import REGISTRY

JOB = Generate(
    turn="t",
    tenant="n",
    gateway="g",
    mode="classic",
    step=1,
    attempt=1,
    models=("m",),
    messages=(),
    budget_s=1.0,
    stream=True,
)
END = Generated("stop", None)
UNREACHABLE, LIMITED = ErrorCode.UPSTREAM_UNREACHABLE, ErrorCode.UPSTREAM_LIMITED
FAILED, CONTEXT, REFUSED = ErrorCode.UPSTREAM_FAILED, ErrorCode.UPSTREAM_CONTEXT, ErrorCode.UPSTREAM_REFUSED
MISSING = ModelMissing(REFUSED, SENTENCES[REFUSED])


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


class Bus:
    def publish(self, _: str, payload: bytes) -> None:
        assert payload

    post = publish


class Upstream:
    """A provider that does what is next: fail, say something and fail, or answer."""

    kind = "openai"

    def __init__(self, name: str, *does: Exception | str, tries: int = 1) -> None:
        self.name = name
        self.does = list(does)
        self.tries = tries
        self.asked = 0
        self.hangs = asyncio.Event()
        self.target = Target(name, name, self, Circuit("p", name, lambda: 0.0))

    def can_continue(self, prefix: Prefix) -> bool:
        return bool(prefix)

    async def generate(self, call: ModelCall, sink: Sink) -> Generated:
        assert call.model == self.name
        for number in range(1, self.tries + 1):
            self.asked += 1
            does = self.does.pop(0) if self.does else "done"
            if isinstance(does, str):
                await sink((TextDelta(text=does),))
                if does.startswith("half"):
                    raise failure(ErrorCode.UPSTREAM_CUT)
                if does == "hang":
                    self.hangs.set()
                    await asyncio.Event().wait()
                return END
            if not isinstance(does, ProviderFailed) or number == self.tries or not call.again(does):
                raise does
        raise AssertionError

    def shut(self, clock: Clock, code: ErrorCode = UNREACHABLE, *, retry_after_s: float | None = None) -> None:
        """Have it fail until it is not asked any more."""
        while self.target.circuit.obstacle(clock.now_s) is None:
            ticket = self.target.circuit.enter(clock.now_s)
            assert ticket is not None
            self.target.circuit.leave(ticket, clock.now_s, failure(code, retry_after_s=retry_after_s))


class Asked:
    """One call over some upstreams."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.attempt = Attempt(Bus(), clock, JOB, number=1, queued_ms=0.0)  # type: ignore[arg-type]  # stand-ins

    async def over(self, *upstreams: Upstream) -> Generated:
        async def prepare(target: Target) -> ModelCall:
            self.attempt.ask()
            return ModelCall("t", 1, target.upstream, (), Sampling(), 1.0)

        targets = [each.target for each in upstreams]
        return await ask(self.attempt, targets, prepare, self.clock)  # type: ignore[arg-type]  # a stand-in

    async def failing(self, *upstreams: Upstream) -> ProviderFailed:
        with pytest.raises(ProviderFailed) as caught:
            await self.over(*upstreams)
        return caught.value

    @property
    def said(self) -> str:
        return self.attempt.generated(END).text


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def asked(clock: Clock) -> Asked:
    return Asked(clock)


def fallbacks(reason: str) -> float:
    return REGISTRY.get_sample_value("kitemesh_upstream_fallbacks_total", {"reason": reason}) or 0.0


@pytest.mark.requirement("routing:ordered-fallback")
@pytest.mark.parametrize("code", sorted(ELSEWHERE))
async def test_the_next_model_is_asked_for_what_another_may_not_have(asked: Asked, code: ErrorCode) -> None:
    first, second, third = Upstream("a", failure(code)), Upstream("b"), Upstream("c")
    before = fallbacks(code.value)
    assert await asked.over(first, second, third) == END
    assert (first.asked, second.asked, third.asked) == (1, 1, 0)
    assert (asked.attempt.model, asked.said) == ("b", "done")
    assert fallbacks(code.value) == before + 1


async def test_a_model_that_its_provider_does_not_have_is_looked_for_elsewhere(asked: Asked) -> None:
    first, second = Upstream("a", MISSING), Upstream("b")
    assert await asked.over(first, second) == END


@pytest.mark.requirement("routing:ordered-fallback")
async def test_a_request_that_was_found_fault_with_is_not_tried_elsewhere(asked: Asked) -> None:
    first, second = Upstream("a", failure(REFUSED)), Upstream("b")
    assert (await asked.failing(first, second)).code == REFUSED
    assert second.asked == 0


@pytest.mark.requirement("provider:retry-before-the-first-delta")
async def test_after_the_first_delta_nobody_else_is_asked(asked: Asked) -> None:
    first, second = Upstream("a", "half"), Upstream("b")
    assert (await asked.failing(first, second)).code == ErrorCode.UPSTREAM_CUT
    assert (second.asked, asked.said, asked.attempt.model) == (0, "half", "a")


@pytest.mark.requirement("routing:no-hammering")
async def test_only_the_last_one_left_is_asked_again(asked: Asked) -> None:
    down = failure(FAILED)
    first, second = (Upstream(name, *[down] * 9, tries=3) for name in "ab")
    error = await asked.failing(first, second)
    assert error.code == FAILED
    assert (first.asked, second.asked) == (1, 3)


@pytest.mark.requirement("routing:no-hammering")
async def test_the_last_one_is_who_is_left_and_not_who_is_last_in_the_list(asked: Asked, clock: Clock) -> None:
    first, second = Upstream("a", failure(FAILED), tries=3), Upstream("b")
    second.shut(clock)
    assert await asked.over(first, second) == END
    assert (first.asked, second.asked) == (2, 0)


@pytest.mark.requirement("routing:breaker")
async def test_tries_end_when_the_breaker_opens(asked: Asked) -> None:
    only = Upstream("a", *[failure(FAILED)] * 99, tries=99)
    assert (await asked.failing(only)).code == FAILED
    assert only.asked == IN_A_ROW


@pytest.mark.requirement("routing:breaker")
async def test_an_open_upstream_is_passed_over_without_a_call(asked: Asked, clock: Clock) -> None:
    first, second = Upstream("a"), Upstream("b")
    first.shut(clock)
    before = fallbacks("open")
    assert await asked.over(first, second) == END
    assert (first.asked, second.asked) == (0, 1)
    assert fallbacks("open") == before + 1


@pytest.mark.requirement("routing:breaker")
@pytest.mark.parametrize("reasons", [["open"], ["cooling"], ["open", "cooling"], ["cooling", "open"]])
async def test_while_nobody_may_be_asked_the_client_is_told_at_once_when_to_come_back(
    asked: Asked, clock: Clock, reasons: list[str]
) -> None:
    upstreams = []
    for place, reason in enumerate(reasons):
        upstreams.append(Upstream(str(place)))
        if reason == "open":
            upstreams[-1].shut(clock)
        else:
            upstreams[-1].shut(clock, LIMITED, retry_after_s=3.0)
    clock.now_s += 1.0
    error = await asked.failing(*upstreams)
    assert [each.asked for each in upstreams] == [0] * len(upstreams)
    if "cooling" in reasons:
        assert (error.code, error.message, error.retry_after_s) == (LIMITED, SENTENCES[LIMITED], 2.0)
    else:
        assert (error.code, error.message, error.retry_after_s) == (UNREACHABLE, OPEN_WORDS, OPEN_S - 1.0)


@pytest.mark.requirement("routing:cooling")
async def test_a_limit_of_one_model_keeps_every_other_job_away_until_its_time(asked: Asked, clock: Clock) -> None:
    only = Upstream("a", failure(LIMITED, retry_after_s=7.0))
    assert (await asked.failing(only)).retry_after_s == 7.0
    clock.now_s += 6.0
    assert (await Asked(clock).failing(only)).retry_after_s == 1.0
    assert only.asked == 1
    clock.now_s += 1.0
    assert await Asked(clock).over(only) == END


@pytest.mark.requirement("routing:cooling")
async def test_a_limit_is_told_with_the_time_of_whoever_is_back_first(asked: Asked, clock: Clock) -> None:
    first, second = Upstream("a"), Upstream("b", failure(LIMITED, retry_after_s=60.0))
    first.shut(clock, LIMITED, retry_after_s=2.0)
    error = await asked.failing(first, second)
    assert (error.code, error.retry_after_s) == (LIMITED, 2.0)


@pytest.mark.requirement("routing:breaker")
async def test_a_stream_that_breaks_off_is_judged_by_its_end(clock: Clock) -> None:
    only = Upstream("a", *["half way"] * IN_A_ROW)
    for _ in range(IN_A_ROW):
        await Asked(clock).failing(only)
    assert only.target.circuit.state(clock.now_s) == "open"


@pytest.mark.requirement("routing:breaker")
async def test_a_call_that_was_stopped_speaks_for_nothing_and_frees_the_probe(asked: Asked, clock: Clock) -> None:
    only = Upstream("a", "hang")
    only.shut(clock)
    clock.now_s += OPEN_S
    call = asyncio.ensure_future(asked.over(only))
    async with asyncio.timeout(5):
        await only.hangs.wait()
    assert only.target.circuit.obstacle(clock.now_s) is not None
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert only.target.circuit.obstacle(clock.now_s) is None
    assert await Asked(clock).over(only) == END
    assert only.target.circuit.state(clock.now_s) == "closed"


async def test_what_is_no_failure_of_a_provider_is_raised_as_it_is(asked: Asked) -> None:
    first, second = Upstream("a", Unavailable(ErrorCode.STORE_DOWN, "away")), Upstream("b")
    with pytest.raises(Unavailable):
        await asked.over(first, second)
    assert second.asked == 0


CODES = st.sampled_from([*sorted(ELSEWHERE), REFUSED])
DOES = st.one_of(
    st.just("done"),
    st.just("half"),
    st.builds(failure, CODES, retry_after_s=st.none() | st.floats(0, 20)),
    st.just(MISSING),
)
LISTS = st.lists(st.lists(DOES, max_size=40), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(plans=LISTS, waits=st.lists(st.floats(0, 30), min_size=1, max_size=12), tries=st.integers(1, 4))
def test_whatever_upstreams_do_a_call_ends_and_none_is_hammered(
    plans: Sequence[Sequence[Any]], waits: list[float], tries: int
) -> None:
    clock = Clock()
    upstreams = [Upstream(str(place), *plan, tries=tries) for place, plan in enumerate(plans)]

    async def run() -> None:
        for wait_s in waits:
            clock.now_s += wait_s
            before = [each.asked for each in upstreams]
            free = [each.target.circuit.obstacle(clock.now_s) is None for each in upstreams]
            asked = Asked(clock)
            error: ProviderFailed | None = None
            try:
                await asked.over(*upstreams)
            except ProviderFailed as exc:
                error = exc
            if not any(free):
                assert error is not None
                assert error.retry_after_s is not None
                assert error.retry_after_s > 0
                assert asked.attempt.model == ""
            calls = [each.asked - start for each, start in zip(upstreams, before, strict=True)]
            # Who was shut when the call began is not asked, and at most one is asked more than once.
            assert all(is_free or not made for is_free, made in zip(free, calls, strict=True))
            assert all(made <= tries for made in calls)
            assert sum(made > 1 for made in calls) <= 1
            assert asked.said in {"", "done", "half"}

    asyncio.run(run())
