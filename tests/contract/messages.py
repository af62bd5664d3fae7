"""One example of every message that travels, whole and smallest; their bytes are kept in `golden/v1`."""

from typing import Final

import msgspec

from kitemesh_contracts import codec
from kitemesh_contracts.beats import Beat, Queue
from kitemesh_contracts.commands import (
    ApplyHold,
    CallOrder,
    CancelTurn,
    Generate,
    Mark,
    Parcel,
    Route,
    RunCalls,
    StartTurn,
)
from kitemesh_contracts.content import (
    Alternative,
    AssistantMessage,
    CallResult,
    FilePart,
    Logprob,
    Message,
    ResponseFormat,
    Sampling,
    Step,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    ToolSpec,
    TopLogprob,
    Usage,
    UserMessage,
)
from kitemesh_contracts.deltas import (
    CallDelta,
    Frame,
    HoldRef,
    ReasoningDelta,
    TextDelta,
    TurnEnded,
    result_delta,
)
from kitemesh_contracts.errors import ErrorCode, ErrorInfo
from kitemesh_contracts.events import (
    CallsReturned,
    StepCancelled,
    StepFailed,
    StepGenerated,
    StepReleased,
    StepTimings,
)
from kitemesh_contracts.news import NewsItem

TURN: Final = "01990000-0000-7000-8000-000000000001"
CALL: Final = "1fb2fd25-8f78-412a-a0b8-7976e3700fc4"
HOLD: Final = "0d0f2f4e-1c8a-5b52-9f0e-3a1d5c6b7e80"
SHA256: Final = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"

_messages: tuple[Message, ...] = (
    SystemMessage(text="Be brief."),
    UserMessage(parts=(TextPart(text='Grüße, 世界 \n"quoted"'),)),
    AssistantMessage(text="Hello.", reasoning="A greeting.", calls=(ToolCall(id=CALL, name="f", arguments="{}"),)),
    ToolMessage(call=CALL, text="42"),
)
_sampling = Sampling(
    temperature=0.5,
    top_p=0.9,
    max_tokens=100,
    stop=("END",),
    seed=7,
    presence_penalty=0.1,
    frequency_penalty=-0.1,
    logit_bias={"50256": -100.0},
    reasoning_effort="low",
    user="u1",
)
_error = ErrorInfo(code=ErrorCode.UPSTREAM_LIMITED, message="The model is busy", retry_after_s=2.0)
_usage = Usage(input_tokens=10, output_tokens=5, cached_tokens=3, reasoning_tokens=2)
_timings = StepTimings(queued_ms=1.5, first_token_ms=20.25, total_ms=400.0)
_carry = msgspec.Raw(b'{"any":["state",1]}')
_tools = (
    ToolSpec(
        name="get_weather",
        parameters=msgspec.Raw(b'{"type":"object","properties":{"city":{"type":"string"}}}'),
        description="Tell the weather in a city.",
    ),
    ToolSpec(name="now", parameters=msgspec.Raw(b'{"type":"object"}')),
)
_steps = (
    Step(
        step=1,
        attempt=2,
        last=3,
        model="a",
        text="One moment.",
        reasoning="Two calls.",
        calls=(ToolCall(id=CALL, name="f", arguments="{}"), ToolCall(id="c2", name="g", arguments="{}")),
        results=(CallResult(call=CALL, text="42"), CallResult(call="c2", blob="b-1")),
        texts=("You can continue.",),
    ),
    Step(step=2),
)
_seen = UserMessage(
    parts=(
        TextPart(text="What is this?"),
        FilePart(media_type="image/png", name="a.png", blob="b-2", size=67, detail="low"),
        FilePart(media_type="", url="https://example.org/b.jpg"),
    )
)
_choosy = Sampling(
    choices=2,
    logprobs=True,
    top_logprobs=1,
    response_format=ResponseFormat(
        kind="json_schema",
        name="person",
        description="A person.",
        schema=msgspec.Raw(b'{"type":"object","properties":{"name":{"type":"string"}}}'),
        strict=True,
    ),
)
_results = (CallResult(call=CALL, text="42"), CallResult(call="c2", error=_error))
_logprob = Logprob(
    token="Hi", logprob=-0.5, bytes=(72, 105), top=(TopLogprob(token="Ho", logprob=-1.5, bytes=(72, 111)),)
)
_alternatives = (
    Alternative(
        index=1,
        finish="tool_calls",
        text="Ho",
        reasoning="Why not.",
        calls=(ToolCall(id=CALL, name="f", arguments="{}"),),
        logprobs=(Logprob(token="Ho", logprob=-1.5),),
    ),
)
_ids = {"turn": TURN, "tenant": "acme", "step": 1, "attempt": 2}

START: Final = StartTurn(
    turn=TURN,
    tenant="acme",
    gateway="gateway-1",
    mode="classic",
    route=Route(requested="group:123e4567-e89b-12d3-a456-426614174000", models=("a", "b"), pool="fast", agent="helper"),
    input=_messages,
    accepted_at_ms=1_790_000_000_000,
    budget_s=600.0,
    key="AbCd1234",
    request="req_demo_001",
    conversation="c-1",
    fresh=True,
    sampling=_sampling,
    stream=True,
)
GENERATE: Final = Generate(
    **_ids,
    gateway="gateway-1",
    mode="classic",
    models=("a", "b"),
    messages=_messages,
    budget_s=600.0,
    sampling=_sampling,
    stream=True,
    carry=_carry,
)

RUN_STORED: Final = RunCalls(
    **_ids,
    gateway="gateway-1",
    mode="durable",
    calls=(
        CallOrder(id=CALL, name="measure_text", arguments='{"text":"x"}', sha256=SHA256, version="v1"),
        CallOrder(id="c2", name="now", arguments="{}"),
    ),
    budget_s=30.0,
    job=1,
    stored=True,
)

EXAMPLES: Final[dict[str, tuple[msgspec.json.Decoder[object], msgspec.Struct]]] = {
    "turn.start.with_dialect": (
        codec.START,
        msgspec.structs.replace(START, mode="durable", dialect="completions", include_usage=True),
    ),
    "step.generate.with_timings": (
        codec.GENERATE,
        msgspec.structs.replace(GENERATE, timings=StepTimings(start_queued_ms=0.75, orchestrator_ms=1.5)),
    ),
    "step.generated.with_timings": (
        codec.EVENT,
        StepGenerated(
            **_ids,
            model="a",
            finish="stop",
            timings=StepTimings(
                queued_ms=1.5,
                first_token_ms=20.25,
                total_ms=400.0,
                start_queued_ms=0.75,
                orchestrator_ms=1.5,
                runner_ms=2.5,
            ),
        ),
    ),
    "turn.start": (codec.START, START),
    "turn.start.with_client_ids": (
        codec.START,
        msgspec.structs.replace(
            START,
            fresh=False,
            creates=True,
            prompt="You speak to Ada.",
            denies_holds=True,
            message="msg_1",
            row=129,
            details='{"source":"web"}',
        ),
    ),
    "turn.start.with_files": (
        codec.START,
        msgspec.structs.replace(
            START,
            input=(_seen,),
            sampling=_choosy,
            tools=(msgspec.structs.replace(_tools[1], strict=True),),
        ),
    ),
    "turn.start.with_priority": (codec.START, msgspec.structs.replace(START, priority="batch", max_wait_s=20.0)),
    "turn.start.smallest": (
        codec.START,
        StartTurn(
            turn=TURN,
            tenant="acme",
            gateway="gateway-1",
            mode="durable",
            route=Route(requested="a", models=("a",), pool="default"),
            input=(),
            accepted_at_ms=0,
            budget_s=1.0,
        ),
    ),
    "turn.start.with_tools": (
        codec.CONTROL,
        msgspec.structs.replace(START, tools=_tools, tool_choice="tool:get_weather", parallel_calls=False),
    ),
    "step.generate": (codec.GENERATE, GENERATE),
    "step.generate.with_results": (
        codec.GENERATE,
        msgspec.structs.replace(GENERATE, messages=(_seen,), sampling=_choosy, results=_results),
    ),
    "step.generate.with_max_wait": (codec.GENERATE, msgspec.structs.replace(GENERATE, max_wait_s=12.5)),
    "step.generate.stored": (
        codec.JOB,
        Generate(
            **_ids,
            gateway="gateway-1",
            mode="durable",
            models=("a",),
            messages=(),
            budget_s=600.0,
            tools=_tools,
            tool_choice="required",
            parallel_calls=True,
            stored=True,
            after=Mark(step=0, attempt=1, n=17),
        ),
    ),
    "calls.run": (
        codec.RUN_CALLS,
        RunCalls(
            **_ids,
            gateway="gateway-1",
            mode="classic",
            calls=(CallOrder(id=CALL, name="measure_text", arguments='{"text":"x"}'),),
            budget_s=30.0,
            carry=_carry,
        ),
    ),
    "calls.run.stored": (codec.JOB, RUN_STORED),
    "hold.apply": (
        codec.CONTROL,
        ApplyHold(turn=TURN, tenant="acme", hold=HOLD, gateway="gateway-2", stream=True),
    ),
    "hold.apply.smallest": (codec.CONTROL, ApplyHold(turn=TURN, tenant="acme", hold=HOLD)),
    "turn.cancel": (
        codec.CANCEL,
        CancelTurn(turn=TURN, tenant="acme", reason="the client went away", conversation="c-1"),
    ),
    "turn.cancel.disconnect": (
        codec.CONTROL,
        CancelTurn(turn=TURN, tenant="acme", reason="the client went away", disconnect=True),
    ),
    "parcel": (codec.START, Parcel(tenant="acme", blob="b-1", size=300_000)),
    "step.generated.with_choices": (
        codec.EVENT,
        StepGenerated(
            **_ids, model="a", finish="stop", text="Hi", alternatives=_alternatives, logprobs=(_logprob,), carry=_carry
        ),
    ),
    "step.generated": (
        codec.EVENT,
        StepGenerated(
            **_ids,
            model="a",
            finish="stop",
            text="Hello.",
            reasoning="A greeting.",
            calls=(ToolCall(id=CALL, name="f", arguments="{}"),),
            usage=_usage,
            last=4,
            timings=_timings,
            carry=_carry,
        ),
    ),
    "step.failed": (
        codec.EVENT,
        StepFailed(**_ids, error=_error, model="a", text="Hel", usage=_usage, last=1, timings=_timings, carry=_carry),
    ),
    "step.cancelled": (
        codec.EVENT,
        StepCancelled(
            **_ids,
            reason="the client went away",
            model="a",
            text="Hel",
            usage=_usage,
            last=1,
            timings=_timings,
            carry=_carry,
        ),
    ),
    "step.released": (
        codec.EVENT,
        StepReleased(**_ids, reason="the worker stops", job=msgspec.Raw(codec.encode(GENERATE))),
    ),
    "step.released.calls": (
        codec.EVENT,
        StepReleased(**_ids, reason="the worker stops", job=msgspec.Raw(codec.encode(RUN_STORED))),
    ),
    "call.returned.stored": (
        codec.EVENT,
        CallsReturned(
            **_ids,
            results=(
                CallResult(call=CALL, blob="b-1"),
                CallResult(call="c2", error=ErrorInfo(code=ErrorCode.TOOL_UNCERTAIN, message="Nobody knows")),
            ),
            job=1,
            total_ms=12.5,
            cancelled="somebody asked",
        ),
    ),
    "call.returned": (
        codec.EVENT,
        CallsReturned(
            **_ids,
            results=(CallResult(call=CALL, text="42"), CallResult(call="c2", error=_error)),
            carry=_carry,
        ),
    ),
    "frame": (
        codec.RELAYED,
        Frame(
            n=3,
            offset=17,
            items=(
                TextDelta(text="Hello"),
                ReasoningDelta(text="thinking"),
                CallDelta(index=0, id=CALL, name="f", arguments='{"a":'),
                CallDelta(index=0, arguments="1}"),
            ),
        ),
    ),
    "frame.results": (
        codec.RELAYED,
        Frame(
            n=1,
            offset=0,
            items=(*map(result_delta, _results), TextDelta(text="Hi", logprobs=(_logprob,))),
            after=Mark(step=1, attempt=2, n=17),
        ),
    ),
    "frame.alive": (codec.RELAYED, Frame(n=3, offset=17, items=())),
    "frame.after": (
        codec.RELAYED,
        Frame(n=1, offset=0, items=(TextDelta(text="Hello"),), after=Mark(step=1, attempt=2, n=17)),
    ),
    "turn.ended": (
        codec.RELAYED,
        TurnEnded(
            **_ids,
            outcome="completed",
            last=4,
            model="a",
            text="Hello.",
            reasoning="A greeting.",
            calls=(ToolCall(id=CALL, name="f", arguments="{}"),),
            finish="stop",
            usage=_usage,
            stored=False,
            timings=_timings,
        ),
    ),
    "turn.ended.failed": (
        codec.RELAYED,
        TurnEnded(**_ids, outcome="failed", error=_error),
    ),
    "turn.ended.held": (
        codec.RELAYED,
        TurnEnded(
            **_ids,
            outcome="held",
            calls=(ToolCall(id=CALL, name="f", arguments="{}"),),
            finish="tool_calls",
            earlier=_steps,
            hold=HoldRef(id=HOLD, expires_at_ms=1_790_000_600_000),
        ),
    ),
    "turn.ended.with_step_calls": (
        codec.RELAYED,
        TurnEnded(
            **_ids,
            outcome="held",
            calls=(ToolCall(id=CALL, name="f", arguments="{}"),),
            finish="tool_calls",
            step_calls=(ToolCall(id="c-0", name="now", arguments="{}"), ToolCall(id=CALL, name="f", arguments="{}")),
            hold=HoldRef(id=HOLD, expires_at_ms=1_790_000_600_000),
        ),
    ),
    "turn.ended.with_choices": (
        codec.RELAYED,
        TurnEnded(
            **_ids,
            outcome="completed",
            text="Hi",
            finish="stop",
            results=_results,
            alternatives=_alternatives,
            logprobs=(_logprob,),
        ),
    ),
    "turn.ended.refused": (
        codec.RELAYED,
        TurnEnded(
            **_ids,
            outcome="failed",
            error=ErrorInfo(
                code=ErrorCode.CONVERSATION_HELD,
                message="The conversation waits for a decision",
                approval=HOLD,
                expires_at_ms=1_790_000_600_000,
            ),
        ),
    ),
    "turn.ended.with_ended_at_ms": (
        codec.RELAYED,
        TurnEnded(**_ids, outcome="completed", text="Hello.", finish="stop", ended_at_ms=1_790_000_005_000),
    ),
    "turn.ended.with_store_ms": (
        codec.RELAYED,
        TurnEnded(**_ids, outcome="completed", text="Hello.", finish="stop", store_ms=2.5),
    ),
    "news.turn": (
        codec.NEWS,
        NewsItem(
            type="turn.ended",
            id=f"turn.ended:{TURN}",
            execution_id=TURN,
            status="completed",
            mode="classic",
            model="a",
            at_ms=1_790_000_000_000,
        ),
    ),
    "news.approval": (
        codec.NEWS,
        NewsItem(
            type="approval.decided",
            id=f"approval.decided:{HOLD}:2",
            execution_id=TURN,
            status="open",
            mode="durable",
            model="agent:helper",
            at_ms=1_790_000_000_000,
            conversation_id="c-1",
            approval_id=HOLD,
        ),
    ),
    "beat": (codec.BEAT, Beat(service="gateway", replica="gateway-1", version="0.1.0", load=3)),
    "beat.with_queues": (
        codec.BEAT,
        Beat(
            service="model-runner",
            replica="model-runner-1",
            version="0.2.0",
            load=16,
            slots=16,
            queues=(Queue(stream="KM_MODEL", pool="default", waiting=40, done=1234),),
            health={"gpt": "down", "llama": "degraded"},
        ),
    ),
    "beat.with_clock": (
        codec.BEAT,
        Beat(service="gateway", replica="gateway-1", version="0.3.0", load=3, up_s=61.5, now_ms=1_790_000_000_000),
    ),
}
