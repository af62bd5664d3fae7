import asyncio
import itertools
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer

from kitemesh_cli.servers import LOOPBACK, free_port
from kitemesh_contracts.content import Sampling, ToolCall, Usage, UserMessage
from kitemesh_contracts.content import TextPart as Text
from kitemesh_contracts.deltas import CallDelta, Delta, ReasoningDelta, TextDelta
from kitemesh_contracts.errors import ErrorCode, ProviderFailed
from kitemesh_contracts.ids import call_id
from kitemesh_model_runner import openai_exchange
from kitemesh_model_runner.provider import SENTENCES, Again, Generated, ModelCall, ModelMissing
from kitemesh_model_runner.provider_openai import OpenAIEndpoint
from kitemesh_runtime.catalog import OpenAIProvider, Secret
from kitemesh_runtime.clock import SystemClock
from upstream import Upstream

MESSAGES = (UserMessage(parts=(Text(text="hello"),)),)


class Said:
    """A sink that remembers, and says when the first delta came."""

    def __init__(self) -> None:
        self.deltas: list[Delta] = []
        self.first = asyncio.Event()

    async def take(self, deltas: Sequence[Delta]) -> None:
        assert deltas
        self.deltas += deltas
        self.first.set()

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas if isinstance(delta, TextDelta))


Ask = Callable[..., "asyncio.Task[Generated]"]


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def ask(upstream: Upstream, session: aiohttp.ClientSession, said: Said) -> Ask:
    def start(
        model: str,
        *,
        budget_s: float = 20.0,
        sampling: Sampling | None = None,
        again: Again = lambda _: True,
        **config: Any,
    ) -> Any:
        settings = {
            "kind": "openai",
            "base_url": upstream.url,
            "first_token_timeout_s": 0.5,
            "silence_timeout_s": 0.5,
            "retries": 0,
            **config,
        }
        endpoint = OpenAIEndpoint(
            "stub", OpenAIProvider.model_validate(settings), session, clock=SystemClock(), chance=lambda: 0.0
        )
        call = ModelCall("t1", 0, model, MESSAGES, sampling or Sampling(), budget_s, again=again)
        return asyncio.create_task(endpoint.generate(call, said.take))

    return start


async def failure_of(task: "asyncio.Task[Generated]") -> ProviderFailed:
    async with asyncio.timeout(5):
        with pytest.raises(ProviderFailed) as caught:
            await task
    assert caught.value.message == SENTENCES[caught.value.code]
    return caught.value


async def test_a_whole_answer_arrives_with_its_usage(ask: Ask, said: Said) -> None:
    generated = await ask("ok?tokens=3&reasoning=2")
    assert generated == Generated("stop", Usage(input_tokens=7, output_tokens=3))
    assert said.text == "w0 w1 w2 "
    assert [delta.text for delta in said.deltas if isinstance(delta, ReasoningDelta)] == ["r0 ", "r1 "]


async def test_the_first_delta_does_not_wait_for_the_second(ask: Ask, said: Said) -> None:
    task = ask("ok?tokens=1&then=stall", silence_timeout_s=5.0)
    async with asyncio.timeout(2):
        await said.first.wait()
    assert said.text == "w0 "
    task.cancel()


async def test_an_odd_but_whole_answer_is_understood(ask: Ask, said: Said) -> None:
    generated = await ask("odd")
    assert generated == Generated("stop", Usage(input_tokens=4, output_tokens=2, cached_tokens=3))
    assert said.deltas == [ReasoningDelta(text="so "), TextDelta(text="w0 "), TextDelta(text="w1")]


async def test_calls_get_ids_of_their_own_and_survive_a_missing_index(ask: Ask, said: Said) -> None:
    generated = await ask("calls")
    look, count = call_id("t1", 0, 0), call_id("t1", 0, 1)
    assert generated.finish == "tool_calls"
    assert generated.calls == (
        ToolCall(id=look, name="look", arguments='{"q": 1}'),
        ToolCall(id=count, name="count", arguments="{}"),
    )
    assert [delta for delta in said.deltas if isinstance(delta, CallDelta)] == [
        CallDelta(index=0, id=look, name="look"),
        CallDelta(index=0, arguments='{"q": '),
        CallDelta(index=0, arguments="1}"),
        CallDelta(index=1, id=count, name="count", arguments="{}"),
    ]


FAULTS = [
    ("unauthorized", ErrorCode.UPSTREAM_REFUSED, 0),
    ("too_long", ErrorCode.UPSTREAM_CONTEXT, 0),
    ("unknown_model", ErrorCode.UPSTREAM_REFUSED, 0),
    ("huge_refusal", ErrorCode.UPSTREAM_REFUSED, 0),
    ("bad_request", ErrorCode.UPSTREAM_REFUSED, 0),
    ("redirect", ErrorCode.UPSTREAM_REFUSED, 0),
    ("limited", ErrorCode.UPSTREAM_LIMITED, 0),
    ("failing", ErrorCode.UPSTREAM_FAILED, 0),
    ("slow_head", ErrorCode.UPSTREAM_TIMEOUT, 0),
    ("stalled_first", ErrorCode.UPSTREAM_TIMEOUT, 0),
    ("stalled", ErrorCode.UPSTREAM_TIMEOUT, 5),
    ("reset_first", ErrorCode.UPSTREAM_CUT, 0),
    ("unterminated", ErrorCode.UPSTREAM_CUT, 5),
    ("only_done", ErrorCode.UPSTREAM_CUT, 5),
    ("empty", ErrorCode.UPSTREAM_CUT, 0),
    ("error_first", ErrorCode.UPSTREAM_FAILED, 0),
    ("error", ErrorCode.UPSTREAM_FAILED, 5),
    ("garbage", ErrorCode.UPSTREAM_FAILED, 5),
    ("html", ErrorCode.UPSTREAM_FAILED, 0),
    ("not_a_stream", ErrorCode.UPSTREAM_FAILED, 0),
    ("huge_line?delay_ms=10", ErrorCode.UPSTREAM_FAILED, 5),
]


@pytest.mark.requirement("promise:P20")
@pytest.mark.parametrize("fault", FAULTS, ids=[fault[0] for fault in FAULTS])
async def test_every_fault_is_a_typed_error_within_its_timeout(
    ask: Ask, upstream: Upstream, said: Said, fault: tuple[str, ErrorCode, int]
) -> None:
    model, code, words = fault
    began_s = time.monotonic()
    error = await failure_of(ask(model))
    assert error.code == code
    assert time.monotonic() - began_s < 2.0
    assert said.text == "".join(f"w{n} " for n in range(words))
    # Whatever it was doing, the upstream learns that nobody listens any more.
    await upstream.records(came=1, ended=1, timeout_s=2)


async def test_a_reset_in_mid_stream_is_a_cut(ask: Ask, said: Said) -> None:
    error = await failure_of(ask("reset?delay_ms=20"))
    assert error.code == ErrorCode.UPSTREAM_CUT
    assert "w0 w1 w2 w3 w4 ".startswith(said.text)


async def test_nobody_listening_is_told_from_a_refusal(ask: Ask) -> None:
    error = await failure_of(ask("ok", base_url=f"http://{LOOPBACK}:{free_port()}/v1"))
    assert error.code == ErrorCode.UPSTREAM_UNREACHABLE


async def test_an_address_that_is_none_is_a_typed_error(ask: Ask) -> None:
    error = await failure_of(ask("ok", base_url="http://[::1/v1"))
    assert error.code == ErrorCode.UPSTREAM_FAILED


async def test_a_slow_but_steady_stream_outlives_the_first_tokens_bound(ask: Ask, said: Said) -> None:
    assert (await ask("ok?tokens=5&delay_ms=100", first_token_timeout_s=0.3)).finish == "stop"
    assert said.text == "w0 w1 w2 w3 w4 "


@pytest.mark.requirement("provider:budget")
async def test_a_stream_that_drips_for_ever_ends_with_the_total_time(ask: Ask, said: Said) -> None:
    error = await failure_of(ask("ok?tokens=1000&delay_ms=50", total_timeout_s=0.6))
    assert error.code == ErrorCode.UPSTREAM_TIMEOUT
    assert said.text.startswith("w0 w1 ")


@pytest.mark.parametrize("then", ["linger", "drop", "babble"])
async def test_what_follows_the_end_costs_at_most_the_count(
    ask: Ask, said: Said, then: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_exchange, "TAIL_S", 0.3)
    async with asyncio.timeout(2):
        assert await ask(f"ok?then={then}&finish=length", silence_timeout_s=30.0) == Generated("length", None)
    assert said.text == "w0 w1 w2 w3 w4 "


async def test_the_stub_can_be_told_to_treat_every_model_alike(ask: Ask, upstream: Upstream) -> None:
    await upstream.plan("failing")
    assert (await failure_of(ask("ok"))).code == ErrorCode.UPSTREAM_FAILED
    await upstream.plan("")
    assert (await ask("ok")).finish == "stop"


@pytest.mark.requirement("provider:retry-after-is-honoured")
async def test_a_limit_that_passes_is_waited_for_as_long_as_it_asks(ask: Ask, upstream: Upstream, said: Said) -> None:
    generated = await ask("limited_once", retries=1)
    assert generated.finish == "stop"
    assert said.text == "w0 w1 w2 w3 w4 "
    first, second = await upstream.records(ended=2)
    assert 1.0 <= second["at_s"] - first["end_at_s"] < 1.5


@pytest.mark.requirement("provider:retry-after-is-honoured")
async def test_a_limit_that_outlasts_the_budget_is_told_at_once(ask: Ask, upstream: Upstream) -> None:
    began = time.monotonic()
    error = await failure_of(ask("limited?retry_after=7", retries=3, budget_s=5.0))
    assert (error.code, error.retry_after_s) == (ErrorCode.UPSTREAM_LIMITED, 7.0)
    assert time.monotonic() - began < 1.0
    assert len(await upstream.records(ended=1)) == 1


@pytest.mark.requirement("provider:retry-before-the-first-delta")
@pytest.mark.parametrize("model", ["failing_once", "flapping"])
async def test_a_failure_that_passes_is_not_seen(ask: Ask, upstream: Upstream, said: Said, model: str) -> None:
    generated = await ask(model, retries=1)
    assert generated.finish == "stop"
    assert said.text == "w0 w1 w2 w3 w4 "
    assert len(await upstream.records(ended=2)) == 2


@pytest.mark.requirement("provider:retry-before-the-first-delta")
@pytest.mark.parametrize("model", ["failing", "limited", "stalled_first", "reset_first", "empty", "error_first"])
async def test_what_keeps_failing_is_asked_no_more_often_than_allowed(ask: Ask, upstream: Upstream, model: str) -> None:
    await failure_of(ask(model, retries=2, first_token_timeout_s=0.2))
    records = await upstream.records(ended=3)
    assert len(records) == 3
    gaps = [later["at_s"] - earlier["end_at_s"] for earlier, later in itertools.pairwise(records)]
    assert gaps[0] >= 0.12
    assert gaps[1] >= 0.24


@pytest.mark.requirement("provider:retry-before-the-first-delta")
@pytest.mark.parametrize(
    "model", ["unauthorized", "bad_request", "too_long", "html", "not_a_stream", "garbage?tokens=0"]
)
async def test_what_would_fail_again_is_asked_once(ask: Ask, upstream: Upstream, model: str) -> None:
    await failure_of(ask(model, retries=3))
    assert len(await upstream.records(ended=1)) == 1


@pytest.mark.requirement("routing:no-hammering")
async def test_whoever_calls_hears_of_each_failed_try_and_may_forbid_the_next(ask: Ask, upstream: Upstream) -> None:
    heard: list[ProviderFailed] = []

    def again(failed: ProviderFailed) -> bool:
        heard.append(failed)
        return len(heard) < 2

    error = await failure_of(ask("limited?retry_after=0.1", retries=5, again=again))
    assert [(each.code, each.retry_after_s) for each in heard] == [(ErrorCode.UPSTREAM_LIMITED, 0.1)] * 2
    assert error is heard[-1]
    assert len(await upstream.records(ended=2)) == 2


@pytest.mark.parametrize(
    ("model", "expected"), [("unknown_model", True), ("ok?status=404", True), ("ok?status=400", False)]
)
async def test_a_model_that_is_missing_is_told_from_a_request_that_is_wrong(
    ask: Ask, model: str, *, expected: bool
) -> None:
    assert isinstance(await failure_of(ask(model)), ModelMissing) is expected


async def test_the_words_of_a_refusal_are_not_waited_for(ask: Ask, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_exchange, "TAIL_S", 0.2)

    async def refuse(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(status=400)
        await response.prepare(request)
        await asyncio.Event().wait()
        return response

    async with RawTestServer(refuse) as server:
        error = await failure_of(ask("ok", base_url=str(server.make_url("/v1")), first_token_timeout_s=30.0))
    assert error.code == ErrorCode.UPSTREAM_REFUSED


async def test_a_connection_that_is_never_taken_ends_with_its_timeout(ask: Ask) -> None:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen(0)
        url = f"http://{LOOPBACK}:{listener.getsockname()[1]}/v1"
        with ExitStack() as waiting:
            # Whoever comes while the queue is full is not heard at all.
            for _ in range(4):
                client = waiting.enter_context(socket.socket())
                client.settimeout(0)
                client.connect_ex(listener.getsockname())
            error = await failure_of(ask("ok", base_url=url, connect_timeout_s=0.2, first_token_timeout_s=30.0))
    assert error.code == ErrorCode.UPSTREAM_TIMEOUT


@pytest.mark.requirement("provider:retry-before-the-first-delta")
@pytest.mark.parametrize("model", ["stalled", "reset", "unterminated", "error", "garbage", "huge_line"])
async def test_nothing_is_tried_again_after_the_first_delta(
    ask: Ask, upstream: Upstream, said: Said, model: str
) -> None:
    await failure_of(ask(f"{model}?delay_ms=20", retries=3))
    assert len(await upstream.records(ended=1)) == 1
    assert said.first.is_set()


@pytest.mark.parametrize("model", ["slow_head", "stalled_first", "stalled", "ok?tokens=1000&delay_ms=20"])
async def test_cancelling_stops_the_upstream(ask: Ask, upstream: Upstream, model: str) -> None:
    task = ask(model, first_token_timeout_s=30.0, silence_timeout_s=30.0)
    await upstream.records(came=1)
    cancelled_s = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (record,) = await upstream.records(ended=1)
    assert record["end"] == "disconnected"
    assert record["end_at_s"] - cancelled_s < 2.0


async def test_one_connection_serves_call_after_call(ask: Ask, session: aiohttp.ClientSession) -> None:
    for _ in range(3):
        await ask("ok?tokens=2")
    assert session.connector is not None
    assert sum(map(len, session.connector._conns.values())) == 1


@pytest.mark.requirement("provider:keeps-secrets")
async def test_the_request_carries_the_catalogs_key_and_nothing_else_that_is_secret(
    ask: Ask, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_KEY", "sk-of-the-catalog")
    await ask("ok", api_key=Secret(env="STUB_KEY"), sampling=Sampling(temperature=0.5, max_tokens=9, stop=("END",)))
    (record,) = await upstream.records(ended=1)
    assert {name.lower(): value for name, value in record["headers"].items()} == {
        "host": upstream.url.removeprefix("http://").removesuffix("/v1"),
        "accept": "text/event-stream",
        "accept-encoding": "identity",
        "user-agent": "kitemesh",
        "authorization": "Bearer sk-of-the-catalog",
        "content-length": record["headers"]["Content-Length"],
        "content-type": "application/json",
    }
    assert record["body"] == {
        "model": "ok",
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "max_tokens": 9,
        "stop": ["END"],
    }


@pytest.mark.parametrize("key", ["", "two\nlines"])
async def test_a_key_that_cannot_be_sent_is_a_refusal_without_a_request(
    ask: Ask, upstream: Upstream, tmp_path: Path, key: str
) -> None:
    file = tmp_path / "key"
    file.write_text(key)
    error = await failure_of(ask("ok", api_key=Secret(file=file)))
    assert error.code == ErrorCode.UPSTREAM_REFUSED
    assert await upstream.records() == []
