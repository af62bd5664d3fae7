"""Held answers, and `POST /v1/chat/resume`: the test plays the orchestrator on the real bus."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from integration.bus.rig import OwnServer
from integration.gateway.rig import ASK, KEY, TENANT, Rig, key_record, open_rig, post
from kitemesh_contracts import codec, subjects
from kitemesh_contracts.commands import ApplyHold, Mark
from kitemesh_contracts.content import AssistantMessage, CallResult, Step, ToolCall, Usage
from kitemesh_contracts.deltas import Frame, HoldRef, ReasoningDelta, TextDelta
from kitemesh_contracts.errors import ErrorCode, ErrorInfo
from kitemesh_contracts.ids import call_id, hold_id
from kitemesh_gateway.app import drain
from kitemesh_runtime import keyring
from kitemesh_runtime.holds import HeldCall, Hold, Verdict
from kitemesh_runtime.live_turns import Job, LiveTurn
from kitemesh_runtime.turns import TurnRecord

_numbers = itertools.count(1)
MODEL = "agent:helper"
CHATTER, STRANGER, CONFINED = (keyring.make(bytes(range(n, n + 40))) for n in (100, 110, 170))


@pytest.fixture
async def desk(rig: Rig) -> Rig:
    """A gateway whose key may decide, and two others that may not."""
    await rig.stores.keys.put(TENANT, key_record(CHATTER))
    await rig.stores.keys.put("rival", key_record(STRANGER, tenant="rival", scopes=("chat", "approve")))
    return rig


class Held:
    """A turn that is held on two calls of its first step."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.turn = f"01990000-0000-7000-9000-{next(_numbers):012x}"
        self.id = hold_id(self.turn, 1)
        self.calls = (call_id(self.turn, 1, 0), call_id(self.turn, 1, 1))
        self.step = Step(step=1, attempt=1, last=3, text="I will.")

    def hold(self, **fields: Any) -> Hold:
        held = tuple(
            HeldCall(
                id=call,
                name="delete",
                version="v",
                effect="once",
                arguments='{"path":"a"}',
                sha256="x",
                sentence="Delete a",
                shown='{"path":"a"}',
            )
            for call in self.calls
        )
        values = {"scope": "chat", "conversation": "conv-1", **fields}
        return Hold(id=self.id, tenant=TENANT, turn=self.turn, step=1, model=MODEL, calls=held, **values)

    async def store(self, about: dict[str, Any] | None = None, *, for_s: float = 600, **fields: Any) -> "Held":
        await self.rig.stores.holds.open(TENANT, self.hold(**fields), expires_after_s=for_s)
        turn = LiveTurn(
            id=self.turn,
            tenant=TENANT,
            version=1,
            status="held",
            model=MODEL,
            state=b"",
            hold=self.id,
            steps=(self.step,),
            **{"mode": "classic", **(about or {})},
        )
        assert await self.rig.stores.live_turns.insert(TENANT, turn)
        return self

    def body(self, *approved: int, **fields: Any) -> dict[str, Any]:
        ids = [self.calls[n] for n in approved]
        return {"model": MODEL, "approval_id": self.id, "approved_tool_execution_ids": ids, **fields}

    def request(self, *approved: int, key: str = KEY.text, **fields: Any) -> bytes:
        return post(self.body(*approved, **fields), path="/v1/chat/resume", key=key)

    async def verdicts(self) -> list[Verdict | None]:
        hold = await self.rig.stores.holds.get(TENANT, self.id)
        assert hold is not None
        return [call.verdict for call in hold.calls]

    @property
    def after(self) -> tuple[Step, ...]:
        """What the closing event says of the steps before the second one."""
        results = tuple(CallResult(call=call, text="done") for call in self.calls)
        return (msgspec.structs.replace(self.step, results=results),)


@pytest.fixture
async def held(desk: Rig) -> Held:
    return await Held(desk).store()


# What a held turn answers


@pytest.mark.requirement("hold:shown-as-tool-calls")
async def test_a_held_turn_answers_with_the_calls_to_decide(desk: Rig) -> None:
    for stream in (False, True):
        client = desk.client()
        await client.send(post({**ASK, "stream": stream}))
        start = await desk.cluster.start()
        held = Held(desk)
        calls = tuple(ToolCall(id=call, name="delete", arguments='{"path":"a"}') for call in held.calls)
        reference = HoldRef(id=held.id, expires_at_ms=1_767_323_045_600)
        desk.cluster.end(start, "I will.", outcome="held", finish=None, calls=calls, hold=reference)
        answer = await client.answer()
        assert answer.status == 200
        told = answer.chunks[-1] if stream else answer.json()
        assert told["choices"][0]["finish_reason"] == "tool_calls"
        assert told["kitemesh"] == {
            "approval_id": held.id,
            "execution_id": start.turn,
            "expires_at": "2026-01-02T03:04:05.600Z",
            "request_id": answer.headers["x-request-id"],
            "conversation_id": start.conversation,
        }
        if stream:
            shown = [call for chunk in answer.chunks for call in chunk["choices"][0]["delta"].get("tool_calls", ())]
            assert answer.events[-1] == "[DONE]"
        else:
            assert told["choices"][0]["message"]["content"] is None
            shown = told["choices"][0]["message"]["tool_calls"]
        assert [call["id"] for call in shown] == list(held.calls)
    assert desk.cluster.cancels.empty()


@pytest.mark.requirement("stream:steps-are-one-text")
async def test_a_turn_of_several_steps_is_one_stream(rig: Rig) -> None:
    client = rig.client()
    await client.send(post({**ASK, "stream": True}))
    start = await rig.cluster.start()
    rig.cluster.frame(start, 1, "Let me look.")
    rig.cluster.frame(start, 1, "Sun", step=2, after=Mark(step=1, attempt=1, n=1))
    rig.cluster.frame(start, 2, "ny.", step=2)
    looked = Step(step=1, attempt=1, last=1, text="Let me look.")
    rig.cluster.end(start, "Sunny.", step=2, last=2, earlier=(looked,))
    assert (await client.answer()).text == "Let me look.\n\nSunny."


@pytest.mark.requirement("completions:client-tools", "tool:client-calls-are-returned")
async def test_client_tools_travel_with_the_turn_and_their_calls_come_back(rig: Rig) -> None:
    tool = {"type": "function", "function": {"name": "mine", "parameters": {"type": "object"}}}
    client = rig.client()
    await client.send(post({**ASK, "tools": [tool], "tool_choice": tool, "parallel_tool_calls": False}))
    start = await rig.cluster.start()
    assert ([each.name for each in start.tools], start.tool_choice, start.parallel_calls) == (
        ["mine"],
        "tool:mine",
        False,
    )
    call = ToolCall(id="c-1", name="mine", arguments='{"a":1}')
    rig.cluster.end(start, "", calls=(call,), finish="tool_calls")
    choice = (await client.answer()).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"] == [
        {"id": "c-1", "type": "function", "function": {"name": "mine", "arguments": '{"a":1}'}}
    ]


@pytest.mark.requirement("http:acted-turn-is-not-retried")
async def test_a_failure_after_a_tool_has_run_is_not_to_be_retried(rig: Rig) -> None:
    for stream in (False, True):
        client = rig.client()
        await client.send(post({**ASK, "stream": stream}))
        start = await rig.cluster.start()
        ran = (Step(step=1, results=(CallResult(call="c", text="done"),)),)
        error = ErrorInfo(code=ErrorCode.UPSTREAM_FAILED, message="No luck")
        rig.cluster.end(start, "", step=2, outcome="failed", finish=None, error=error, earlier=ran)
        answer = await client.answer()
        assert (answer.status, answer.headers["x-should-retry"]) == (502, "false")


@pytest.mark.requirement("hold:named-where-it-is-in-the-way")
async def test_a_conversation_that_is_held_names_its_approval(rig: Rig) -> None:
    client = rig.client()
    await client.send(post({**ASK, "metadata": {"conversation_id": "conv-1"}}))
    error = {"approval": "h-1", "expires_at_ms": 1_767_323_045_600}
    rig.cluster.fail(await rig.cluster.start(), ErrorCode.CONVERSATION_HELD, "It is held", **error)
    answer = await client.answer()
    assert (answer.status, answer.headers["x-should-retry"], answer.error["code"]) == (
        409,
        "false",
        "conversation.held",
    )
    assert answer.error["kitemesh"] == {"approval_id": "h-1", "expires_at": "2026-01-02T03:04:05.600Z"}


# What resuming answers


@pytest.mark.requirement("completions:seeds-examples", "resume:same-continuation")
async def test_a_whole_answer_begins_behind_the_hold(desk: Rig, held: Held) -> None:
    client = desk.client()
    message = {"role": "user", "content": "You can continue."}
    await client.send(
        held.request(0, messages=[message], denied_tools=[{"tool_execution_id": held.calls[1], "reason": "No"}])
    )
    order = await desk.cluster.apply()
    assert order == ApplyHold(turn=held.turn, tenant=TENANT, hold=held.id, gateway=desk.life.replica)
    yes, no = await held.verdicts()
    assert yes is not None
    assert no is not None
    assert (yes.approved, no.approved, no.reason, yes.by, yes.origin) == (True, False, "No", KEY.id, "127.0.0.1")
    decided = await desk.stores.holds.get(TENANT, held.id)
    assert decided is not None
    assert decided.texts == ("You can continue.",)
    desk.cluster.end(order, "Done.", step=2, earlier=held.after)
    answer = await client.answer()
    assert answer.status == 200
    assert answer.json()["choices"][0]["message"] == {"role": "assistant", "content": "Done."}
    assert answer.json()["model"] == MODEL
    assert answer.json()["kitemesh"] == {
        "execution_id": held.turn,
        "request_id": answer.headers["x-request-id"],
        "conversation_id": "conv-1",
    }
    assert (answer.headers["x-execution-id"], answer.headers["x-conversation-id"]) == (held.turn, "conv-1")


async def test_what_is_in_neither_list_is_denied(desk: Rig, held: Held) -> None:
    client = desk.client()
    await client.send(held.request())
    order = await desk.cluster.apply()
    assert [verdict.approved for verdict in await held.verdicts() if verdict] == [False, False]
    desk.cluster.end(order, "Fine.", step=2, earlier=held.after)
    assert (await client.answer()).status == 200


@pytest.mark.requirement("resume:only-what-follows")
async def test_a_streamed_answer_opens_at_once_and_shows_what_follows_the_hold(desk: Rig, held: Held) -> None:
    client = desk.client()
    await client.send(held.request(0, 1, stream=True, stream_options={"include_usage": True}))
    order = await desk.cluster.apply()
    assert order.stream
    status, headers = await client.head()
    assert (status, headers["x-execution-id"]) == (200, held.turn)
    assert b'"role":"assistant"' in await client.piece()
    desk.cluster.frame(order, 1, "Do", step=2, after=Mark(step=1, attempt=1, n=3))
    assert b'{"content":"Do"}' in await client.piece()
    desk.cluster.frame(order, 2, "ne.", step=2)
    assert b'{"content":"ne."}' in await client.piece()
    desk.cluster.end(order, "Done.", step=2, last=2, earlier=held.after)
    last = await client.piece()
    assert b'"total_tokens":5' in last
    assert last.endswith(b"data: [DONE]\n\n")


@pytest.mark.requirement("reattach:same-bytes", "resume:only-what-follows")
@pytest.mark.parametrize("usage", [True, False])
async def test_a_continuation_is_gone_on_with_by_the_same_bytes_as_it_was_asked_for(
    desk: Rig, gateway_server: OwnServer, tmp_path: Path, usage: bool
) -> None:
    # What the turn was first asked with is not what its continuation is asked with.
    about = {"mode": "durable", "conversation": "conv-1", "request": "r-1", "include_usage": not usage}
    held = await Held(desk).store(about)
    client = desk.client()
    await client.send(held.request(0, 1, stream=True, stream_options={"include_usage": usage}))
    order = await desk.cluster.apply()
    live = await desk.stores.live_turns.get(TENANT, held.turn)
    assert isinstance(live, LiveTurn)
    job = Job(kind="model", step=2, pool="p")
    live = msgspec.structs.replace(live, version=2, status="running", steps=held.after, jobs=(job,))
    await desk.stores.live_turns.save(TENANT, live)
    items = [(ReasoningDelta(text="hm"),), (TextDelta(text="Do"),), (TextDelta(text="n"), TextDelta(text="e."))]
    for n, (offset, each) in enumerate(zip((0, 0, 2), items, strict=True), start=1):
        after = Mark(step=1, attempt=1, n=3) if n == 1 else None
        frame = codec.encode(Frame(n=n, offset=offset, items=each, after=after))
        desk.cluster.bus.post(subjects.out_frame(subjects.out(order.gateway, held.turn, 2, 1), n), frame)
    assert await desk.cluster.bus.posted(timeout_s=5)
    record = TurnRecord(
        id=held.turn,
        tenant=TENANT,
        status="completed",
        model=MODEL,
        answer=AssistantMessage(text="Done.", reasoning="hm"),
        steps=held.after,
        finish="stop",
        usage=Usage(input_tokens=3, output_tokens=2),
        attempt=1,
        last=3,
        **about,
    )
    async with open_rig(
        gateway_server.url, tmp_path, replica=f"gw-r{next(_numbers)}", is_worked=False, shared=desk.stores
    ) as other:
        late = other.client()
        first = f"{held.turn}:1.0.0.0.0-00000000~1{'u' if usage else ''}"
        await late.send(post(b"", path="/v1/chat/resume", Last_Event_ID=first))
        assert (await late.head())[0] == 200
        await desk.stores.live_turns.finish(TENANT, record, version=2)
        desk.cluster.end(order, "Done.", step=2, last=3, reasoning="hm", earlier=held.after)
        told = (await client.answer()).body.split(b"\n\n")
        assert told[0].startswith(b"id: " + first.encode())
        assert (len(told), b'"total_tokens":5' in told[-3]) == (8 + usage, usage)
        rest = [await late.piece()]
        while not rest[-1].endswith(b"[DONE]\n\n"):
            rest.append(await late.piece())
        assert b"".join(rest) == b"\n\n".join(told[1:])
        for cut, event in enumerate(told[:-1]):
            last = event.split(b"\n")[0].removeprefix(b"id: ").decode()
            for path in ("/v1/chat/resume", "/v1/chat/completions"):
                again = await other.ask(post(b"", path=path, Last_Event_ID=last))
                assert (again.status, again.body) == (200, b"\n\n".join(told[cut + 1 :]))


@pytest.mark.requirement("resume:may-hold-again")
async def test_the_answer_may_hold_again(desk: Rig, held: Held) -> None:
    for stream in (False, True):
        client = desk.client()
        await client.send(held.request(0, stream=stream))
        order = await desk.cluster.apply()
        call = ToolCall(id=call_id(held.turn, 2, 0), name="delete", arguments="{}")
        reference = HoldRef(id=hold_id(held.turn, 2), expires_at_ms=1)
        desk.cluster.end(
            order, "And", step=2, outcome="held", finish=None, calls=(call,), hold=reference, earlier=held.after
        )
        answer = await client.answer()
        told = answer.chunks[-1] if stream else answer.json()
        assert told["choices"][0]["finish_reason"] == "tool_calls"
        assert told["kitemesh"]["approval_id"] == reference.id


@pytest.mark.requirement("resume:same-continuation")
async def test_the_same_decision_again_gives_the_same_continuation(desk: Rig, held: Held) -> None:
    first = desk.client()
    await first.send(held.request(0))
    order = await desk.cluster.apply()
    second = desk.client()
    await second.send(held.request(0, stream=True))
    again = await desk.cluster.apply()
    assert (again.hold, again.stream) == (held.id, True)
    assert (await second.head())[0] == 200
    assert b'"role":"assistant"' in await second.piece()
    desk.cluster.end(order, "Done.", step=2, earlier=held.after)
    assert (await first.answer()).json()["choices"][0]["message"]["content"] == "Done."
    assert b'{"content":"Done."}' in await second.piece()


@pytest.mark.requirement("resume:same-continuation")
async def test_a_turn_that_has_ended_meanwhile_is_answered_from_the_store(desk: Rig, held: Held) -> None:
    client = desk.client()
    await client.send(held.request(0))
    order = await desk.cluster.apply()
    client.close()
    await desk.stores.holds.applied(TENANT, held.id, version=2)
    record = TurnRecord(
        id=held.turn,
        tenant=TENANT,
        status="completed",
        mode="classic",
        model=MODEL,
        answer=AssistantMessage(text="Done."),
        steps=held.after,
        finish="stop",
    )
    await desk.stores.live_turns.finish(TENANT, record, version=1)
    assert order.hold == held.id
    for stream in (False, True):
        answer = await desk.ask(held.request(0, stream=stream))
        assert answer.status == 200
        assert (answer.text if stream else answer.json()["choices"][0]["message"]["content"]) == "Done."
    assert desk.cluster.decided.empty()


@pytest.mark.requirement("resume:another-gateway")
async def test_another_gateway_hears_what_is_told_to_the_first(
    desk: Rig, held: Held, gateway_server: OwnServer, tmp_path: Path
) -> None:
    async with open_rig(gateway_server.url, tmp_path, replica=f"gw-r{next(_numbers)}", is_worked=False) as other:
        await other.stores.holds.open(TENANT, held.hold(), expires_after_s=600)
        await other.stores.holds.decide(TENANT, held.id, {call: Verdict(approved=True) for call in held.calls})
        await other.stores.holds.applied(TENANT, held.id, version=2)
        client = other.client()
        await client.send(held.request(0, 1, stream=True))
        assert (await client.head())[0] == 200
        assert b'"role":"assistant"' in await client.piece()
        address = ApplyHold(turn=held.turn, tenant=TENANT, hold=held.id, gateway=desk.life.replica)
        desk.cluster.frame(address, 1, "Done.", step=2)
        assert b'{"content":"Done."}' in await client.piece()
        desk.cluster.end(address, "Done.", step=2, last=1, earlier=held.after)
        assert (await client.piece()).endswith(b"data: [DONE]\n\n")


@pytest.mark.requirement("resume:durable")
async def test_a_client_that_goes_away_stops_nothing_and_leaves_nothing_behind(desk: Rig) -> None:
    tasks = len(asyncio.all_tasks())
    for stream in (False, True):
        held = await Held(desk).store()
        client = desk.client()
        await client.send(held.request(0, stream=stream))
        await desk.cluster.apply()
        client.close()
    async with asyncio.timeout(5):
        while len(asyncio.all_tasks()) > tasks or len(desk.gateway.relay):
            await desk.cluster.bus.barrier()
    assert desk.cluster.cancels.empty()


@pytest.mark.requirement("resume:durable")
async def test_a_drain_ends_a_resumed_stream_with_an_explicit_error_and_stops_nothing(desk: Rig, held: Held) -> None:
    client = desk.client()
    await client.send(held.request(0, stream=True))
    await desk.cluster.apply()
    await client.head()
    desk.life.signal()
    async with asyncio.timeout(5):
        await drain(desk.gateway, desk.life, 0.1)
    assert b'"role":"assistant"' in await client.piece()
    assert b'"code":"service.draining"' in await client.piece()
    assert desk.cluster.cancels.empty()


async def test_a_failure_behind_a_hold_is_not_to_be_retried(desk: Rig, held: Held) -> None:
    client = desk.client()
    await client.send(held.request(0))
    order = await desk.cluster.apply()
    desk.cluster.fail(order, ErrorCode.UPSTREAM_FAILED)
    answer = await client.answer()
    assert (answer.status, answer.headers["x-should-retry"]) == (502, "false")


# What is refused


async def refused(held: Held, status: int, code: str, body: dict[str, Any], *, key: str = KEY.text) -> dict[str, Any]:
    answer = await held.rig.ask(post(body, path="/v1/chat/resume", key=key))
    assert (answer.status, answer.error["code"]) == (status, code)
    return answer.error


@pytest.mark.requirement("resume:answers-are-checked")
async def test_every_mistake_in_an_answer_is_refused_and_decides_nothing(held: Held) -> None:
    body = held.body(0)
    error = await refused(held, 400, "request.invalid", {**body, "approval_id": "h-1"})
    assert error["param"] == "approval_id"
    await refused(held, 400, "request.invalid", {"model": MODEL, "approved_tool_execution_ids": []})
    unknown = [*body["approved_tool_execution_ids"], "x"]
    error = await refused(
        held,
        400,
        "request.invalid",
        {
            **body,
            "model": "scripted",
            "approved_tool_execution_ids": unknown,
            "denied_tools": [{"tool_execution_id": "y"}],
        },
    )
    assert error["message"] == (
        "model: is not the one that the approval belongs to; "
        "approved_tool_execution_ids: 'x' is not a call of this approval; "
        "denied_tools: 'y' is not a call of this approval"
    )
    both = {**body, "denied_tools": [{"tool_execution_id": held.calls[0]}]}
    assert (await refused(held, 400, "request.invalid", both))["param"] == "denied_tools.0.tool_execution_id"
    assert await held.verdicts() == [None, None]
    assert held.rig.cluster.decided.empty()


@pytest.mark.requirement("approvals:foreign-is-missing")
async def test_an_approval_of_a_model_that_is_not_the_keys_is_as_unknown_as_one_that_does_not_exist(
    held: Held,
) -> None:
    await held.rig.stores.keys.put(TENANT, key_record(CONFINED, models=("agent:other",)))
    missing = {**held.body(0), "approval_id": hold_id(held.turn, 9)}
    bodies = (missing, held.body(0), held.body(0, model="x"))
    told = [await refused(held, 404, "approval.unknown", body, key=CONFINED.text) for body in bodies]
    first, *others = [{**each, "request_id": ""} for each in told]
    assert others == [first, first]
    assert await held.verdicts() == [None, None]


@pytest.mark.requirement("approvals:foreign-is-missing")
async def test_anothers_approval_is_as_unknown_as_one_that_does_not_exist(held: Held) -> None:
    missing = {**held.body(0), "approval_id": hold_id("another", 1)}
    first = await refused(held, 404, "approval.unknown", missing)
    second = await refused(held, 404, "approval.unknown", held.body(0), key=STRANGER.text)
    assert {**first, "request_id": ""} == {**second, "request_id": ""}
    assert await held.verdicts() == [None, None]


@pytest.mark.requirement("http:credential-scope")
async def test_who_may_decide_is_what_the_hold_says(desk: Rig) -> None:
    held = await Held(desk).store(scope="approve")
    await refused(held, 403, "permission.denied", held.body(0), key=CHATTER.text)
    assert await held.verdicts() == [None, None]


@pytest.mark.requirement("resume:decided-once")
async def test_an_approval_decided_otherwise_names_the_decision(desk: Rig, held: Held) -> None:
    await desk.stores.holds.decide(
        TENANT, held.id, {held.calls[0]: Verdict(approved=True, by="k-1"), held.calls[1]: Verdict(approved=False)}
    )
    answer = await desk.ask(held.request(0, 1))
    assert (answer.status, answer.headers["x-should-retry"], answer.error["code"]) == (
        409,
        "false",
        "approval.decided",
    )
    assert f"{held.calls[1]} was denied" in answer.error["message"]
    assert len(desk.gateway.relay) == 0


@pytest.mark.requirement("resume:decided-once")
async def test_an_approval_that_is_over_is_gone(desk: Rig) -> None:
    expired = await Held(desk).store(for_s=0)
    await refused(expired, 410, "approval.gone", expired.body(0))
    cancelled = await Held(desk).store()
    await desk.stores.holds.cancel(TENANT, cancelled.id, "superseded")
    await refused(cancelled, 410, "approval.gone", cancelled.body(0))
    assert len(desk.gateway.relay) == 0


@pytest.fixture
async def full(gateway_server: OwnServer, tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_rig(gateway_server.url, tmp_path, replica=f"gw-r{next(_numbers)}", max_streams=1) as rig:
        yield rig


async def test_a_gateway_that_is_full_or_without_its_store_decides_nothing(full: Rig) -> None:
    held = await Held(full).store()
    busy = full.client()
    await busy.send(post(ASK))
    start = await full.cluster.start()
    await refused(held, 429, "queue_full", held.body(0))
    full.cluster.end(start, "x")
    await busy.answer()
    full.store_state.mark_down("gone")
    await refused(held, 503, "store.down", held.body(0))
    assert await held.verdicts() == [None, None]
