"""Turns to test with: states and events of one second step, small enough to be read."""

from typing import Any, Final

import msgspec

from contract.messages import TURN
from kitemesh_contracts import canonical
from kitemesh_contracts.commands import Route, StartTurn
from kitemesh_contracts.content import CallResult, Step, TextPart, ToolCall, Usage, UserMessage
from kitemesh_contracts.errors import ErrorCode, ErrorInfo
from kitemesh_contracts.events import CallsReturned, StepGenerated, StepTimings
from kitemesh_orchestrator.happenings import Answered, Command, Event, HoldAnswered, Publish, Ruling, StepAnswered
from kitemesh_orchestrator.states import Asked, Calling, Generating, State
from kitemesh_orchestrator.turn import decide
from kitemesh_runtime.live_turns import Job

HOLD: Final = "hold-2"
IDS: Final[dict[str, Any]] = {"turn": TURN, "tenant": "acme", "step": 2, "attempt": 2}
ERROR: Final = ErrorInfo(code=ErrorCode.UPSTREAM_FAILED, message="The model failed")
UNKNOWN: Final = ErrorInfo(code=ErrorCode.TOOL_UNKNOWN, message="There is no tool 'rm'")


def spoken(text: str) -> UserMessage:
    return UserMessage(parts=(TextPart(text=text),))


START: Final = StartTurn(
    turn=TURN,
    tenant="acme",
    gateway="gateway-1",
    mode="classic",
    route=Route(requested="agent:helper", models=("a",), pool="fast", agent="helper"),
    input=(spoken("Hi"),),
    accepted_at_ms=1_790_000_000_000,
    budget_s=600.0,
    conversation="c-1",
)
FIRST: Final = Step(
    step=1,
    attempt=1,
    last=3,
    model="a",
    calls=(ToolCall(id="c0", name="read", arguments="{}"),),
    results=(CallResult(call="c0", text="42"),),
)
GENERATING: Final = Generating(
    start=START,
    ordinal=3,
    steps=(FIRST,),
    usage=Usage(input_tokens=10, output_tokens=5),
    spent_s=1.0,
    timings=StepTimings(queued_ms=1.0, first_token_ms=20.0, total_ms=400.0),
    shown=(spoken("Hi"),),
    calls_made=1,
    step=2,
    attempt=2,
)


def call(name: str, arguments: str = "{}", number: int = 1) -> ToolCall:
    """Return a call whose id is the tool's name and a number."""
    return ToolCall(id=f"{name}{number}", name=name, arguments=arguments)


def ruled(wish: ToolCall, do: str, pool: str = "default") -> Ruling:
    """Return what was judged of a call; `refused` is one of a tool that does not exist."""
    if do == "refused":
        return Ruling(asked=Asked(id=wish.id, name=wish.name, do="done"), answer=UNKNOWN)
    if do == "client":
        return Ruling(asked=Asked(id=wish.id, name=wish.name, do="client"))
    asked = Asked(
        id=wish.id,
        name=wish.name,
        do="hold" if do == "hold" else "run",
        arguments=wish.arguments,
        sha256=canonical.sha256(wish.arguments),
        version="v1",
        pool=pool,
        sentence=f"{wish.name}()" if do == "hold" else "",
        shown=wish.arguments if do == "hold" else "",
    )
    return Ruling(asked=asked)


def generated(text: str = "", calls: tuple[ToolCall, ...] = (), **more: Any) -> StepGenerated:
    """Return a model's answer, 100 ms of work and one token long."""
    return StepGenerated(
        **{
            **IDS,
            "model": "a",
            "finish": "tool_calls" if calls else "stop",
            "text": text,
            "calls": calls,
            "usage": Usage(output_tokens=1),
            "last": 4,
            "timings": StepTimings(total_ms=100.0),
            **more,
        }
    )


def answered(*rulings: tuple[ToolCall, Ruling], text: str = "Let me see.", **more: Any) -> StepAnswered:
    """Return a judged answer to a turn that was offered tools."""
    step = generated(text, tuple(wish for wish, _ in rulings), **more)
    return StepAnswered(
        generated=step, rulings=tuple(ruling for _, ruling in rulings), hold=f"hold-{step.step}", offered=True
    )


def asks(do: str, name: str, arguments: str = "{}", number: int = 1, pool: str = "default") -> tuple[ToolCall, Ruling]:
    """Return a call and how it was judged, for `answered`."""
    wish = call(name, arguments, number)
    return wish, ruled(wish, do, pool)


def calling(*rulings: tuple[ToolCall, Ruling], jobs: tuple[Job, ...] = (), **more: Any) -> Calling:
    """Return the state that follows when a model makes such calls, with the jobs that are given."""
    held = any(ruling.asked.do == "hold" for _, ruling in rulings)
    state = Calling(
        start=START,
        ordinal=3,
        durable=held,
        held=held,
        steps=(FIRST,),
        usage=Usage(input_tokens=10, output_tokens=6),
        spent_s=1.1,
        timings=StepTimings(queued_ms=1.0, first_token_ms=20.0, total_ms=500.0),
        shown=(spoken("Hi"),),
        calls_made=1 + sum(ruling.asked.do in {"run", "hold"} for _, ruling in rulings),
        said=Step(
            step=2,
            attempt=2,
            last=4,
            model="a",
            text="Let me see.",
            calls=tuple(wish for wish, _ in rulings),
            results=tuple(
                CallResult(call=wish.id, error=ruling.answer) for wish, ruling in rulings if ruling.answer is not None
            ),
        ),
        asked=tuple(ruling.asked for _, ruling in rulings),
        jobs=jobs,
        jobs_made=len(jobs),
        hold=HOLD if held else None,
    )
    return msgspec.structs.replace(state, **more)


def tool_job(*calls: str, index: int = 0, attempt: int = 1, pool: str = "default") -> Job:
    return Job(kind="tool", step=2, index=index, attempt=attempt, pool=pool, calls=calls)


def returned(*results: CallResult, **more: Any) -> CallsReturned:
    """Return what a job of the step brought, after 200 ms."""
    return CallsReturned(**{**IDS, "results": results, "total_ms": 200.0, **more})


def decided(**verdicts: Answered) -> HoldAnswered:
    return HoldAnswered(hold=HOLD, answers=tuple(verdicts.values()))


def verdict(of: str, *, approved: bool, arguments: str = "{}", **more: Any) -> Answered:
    """Return what a person decided of a call that was held with such arguments, of the tool that its id names."""
    tool = {"name": of.rstrip("0123456789"), "version": "v1"}
    return Answered(**{"call": of, "approved": approved, "sha256": canonical.sha256(arguments), **tool, **more})


def run(state: State, *events: Event) -> tuple[State, list[Command]]:
    """Return where events lead and all that follows on the way."""
    followed: list[Command] = []
    for event in events:
        state, commands = decide(state, event)
        followed += commands
    return state, followed


def led_to_calling(*events: Event) -> Calling:
    state, _ = run(GENERATING, *events)
    assert isinstance(state, Calling)
    return state


def jobs_of(followed: list[Command]) -> list[Job]:
    return [command.job for command in followed if isinstance(command, Publish)]


def text(name: str, words: str = "42") -> CallResult:
    return CallResult(call=name, text=words)
