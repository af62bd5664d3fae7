"""Tools through the runner: what the provider is offered, what is called, what the frames say."""

from collections.abc import AsyncIterator

import aiohttp
import pytest
from msgspec import Raw

from integration.bus.rig import OwnServer
from integration.model_runner.rig import Rig, job_of, running
from kitemesh_contracts.commands import Mark
from kitemesh_contracts.content import AssistantMessage, TextPart, ToolCall, ToolMessage, ToolSpec, UserMessage
from kitemesh_contracts.deltas import CallDelta, Delta
from kitemesh_contracts.errors import ErrorCode
from kitemesh_contracts.events import StepFailed, StepGenerated
from kitemesh_contracts.ids import call_id
from kitemesh_model_runner import attempt as attempt_module
from upstream import Upstream

TOOL = ToolSpec(name="look", description="Look something up.", parameters=Raw(b'{"type":"object"}'))
AFTER = Mark(step=1, attempt=2, n=9)


@pytest.fixture
async def rig(nats: OwnServer, upstream: Upstream, session: aiohttp.ClientSession) -> AsyncIterator[Rig]:
    async with running(nats.url, upstream, session, {"calls": "calls", "ok": "ok"}) as ready:
        yield ready


async def items_of(rig: Rig, event: StepGenerated) -> list[Delta]:
    """Return what the frames held, having seen that the first of them alone says what came before."""
    frames = [await rig.frame() for _ in range(event.last)]
    assert [frame.after for frame in frames] == [AFTER] + [None] * (event.last - 1)
    return [item for frame in frames for item in frame.items]


async def test_tools_are_offered_and_the_calls_get_ids_of_ours(rig: Rig, upstream: Upstream) -> None:
    job = await rig.send(
        job_of(models=("calls",), step=2, tools=(TOOL,), tool_choice="tool:look", parallel_calls=False, after=AFTER)
    )
    event = await rig.event()
    assert isinstance(event, StepGenerated)
    (record,) = await upstream.records(came=1)
    function = {"name": "look", "description": "Look something up.", "parameters": {"type": "object"}}
    assert record["body"]["tools"] == [{"type": "function", "function": function}]
    assert record["body"]["tool_choice"] == {"type": "function", "function": {"name": "look"}}
    assert record["body"]["parallel_tool_calls"] is False
    assert event.finish == "tool_calls"
    assert event.calls == (
        ToolCall(id=call_id(job.turn, 2, 0), name="look", arguments='{"q": 1}'),
        ToolCall(id=call_id(job.turn, 2, 1), name="count", arguments="{}"),
    )
    items = [item for item in await items_of(rig, event) if isinstance(item, CallDelta)]
    for place, call in enumerate(event.calls):
        ours = [item for item in items if item.index == place]
        assert [(item.id, item.name) for item in ours] == [(call.id, call.name)] + [("", "")] * (len(ours) - 1)
        assert "".join(item.arguments for item in ours) == call.arguments


async def test_without_tools_the_request_is_what_it_was(rig: Rig, upstream: Upstream) -> None:
    await rig.send(job_of(models=("ok",)))
    await rig.event()
    (record,) = await upstream.records(came=1)
    assert set(record["body"]) == {"model", "messages", "stream", "stream_options"}


async def test_a_script_calls_several_tools_and_goes_on_with_their_results(rig: Rig) -> None:
    text = '@call get_weather {"city":"Paris"}\n@call nobody\n@then\n@roles'
    first = await rig.send(job_of(text, step=1, after=AFTER))
    event = await rig.event()
    assert isinstance(event, StepGenerated)
    assert (event.finish, event.text) == ("tool_calls", "")
    assert [(call.id, call.name, call.arguments) for call in event.calls] == [
        (call_id(first.turn, 1, 0), "get_weather", '{"city":"Paris"}'),
        (call_id(first.turn, 1, 1), "nobody", "{}"),
    ]
    items = await items_of(rig, event)
    assert "".join(item.arguments for item in items if isinstance(item, CallDelta)) == '{"city":"Paris"}{}'
    results = tuple(ToolMessage(call=call.id, text="Sunny") for call in event.calls)
    messages = (*first.messages, AssistantMessage(calls=event.calls), *results, _user("You can continue."))
    await rig.send(job_of(turn=first.turn, step=2, messages=messages))
    event = await rig.event()
    assert isinstance(event, StepGenerated)
    assert (event.finish, event.text) == ("stop", "user assistant tool tool user")


async def test_a_step_without_an_end_of_its_arguments_is_stopped(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt_module, "MAX_CHARACTERS", 1000)
    await rig.send(job_of("@call f " + "x" * 1001))
    event = await rig.event()
    assert isinstance(event, StepFailed)
    assert event.error.code == ErrorCode.UPSTREAM_FAILED


def _user(text: str) -> UserMessage:
    return UserMessage(parts=(TextPart(text=text),))
