"""What is to become of the calls that a model asked for. Pure: the catalog, and what checks arguments, are given.

A model's output has no authority: a call runs, or is held, only if the agent has the tool, the arguments fit its
schema, a rule of the catalog allows it, and the turn may still make calls.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from kitemesh_contracts import canonical
from kitemesh_contracts.commands import StartTurn
from kitemesh_contracts.content import ToolCall, ToolSpec
from kitemesh_contracts.errors import BadRequest, ErrorCode, ErrorInfo
from kitemesh_orchestrator.happenings import Ruling
from kitemesh_orchestrator.states import Asked, Limits
from kitemesh_runtime.call_sentences import describe_call
from kitemesh_runtime.catalog import Agent, Catalog
from kitemesh_runtime.catalog_tools import Policy, Tool
from kitemesh_runtime.policies import first_rule

HOLD_CLASSIC_S: Final = 600.0
HOLD_DURABLE_S: Final = 86_400.0
_SCOPES: Final = ("chat", "approve", "admin")

ARGUMENTS_MAX_CHARS: Final = 256 * 1024
STEP_MAX_CHARS: Final = 1024 * 1024
TOO_LONG: Final = ErrorInfo(code=ErrorCode.TOOL_ARGUMENTS, message="The arguments are too long")
NOBODY: Final = ErrorInfo(
    code=ErrorCode.TOOL_DENIED, message="The call needs a person's approval, and nobody can approve it here"
)
ONE_AT_A_TIME: Final = ErrorInfo(code=ErrorCode.TOOL_DENIED, message="Only one call at a time is allowed here")

Check = Callable[[Mapping[str, Any], Mapping[str, Any]], Sequence[str]]
"""Takes a JSON Schema and arguments and returns what is wrong with them, for the model."""


class Terms(NamedTuple):
    """How the calls of a step are held.

    Attributes:
        together: One answer must decide them all.

    """

    expires_after_s: float
    scope: str
    together: bool


class Judgement(NamedTuple):
    """A step's calls, judged.

    Attributes:
        terms: `None` when nothing is held.

    """

    rulings: tuple[Ruling, ...]
    terms: Terms | None


def limits_of(agent: Agent | None) -> Limits:
    """Return what a turn of an agent may begin."""
    return Limits(steps=agent.limits.steps, tokens=agent.limits.tokens) if agent is not None else Limits()


def offer(start: StartTurn, agent: Agent | None, catalog: Catalog) -> tuple[ToolSpec, ...]:
    """List the tools that a turn's model is told of: the agent's, then the caller's own."""
    if agent is None or not agent.tools:
        return start.tools
    mine = tuple(catalog.specs[name] for name in agent.tools)
    taken = {tool.name for tool in mine}
    return (*mine, *(tool for tool in start.tools if tool.name not in taken))


def judge(
    asked: Sequence[ToolCall], start: StartTurn, agent: Agent | None, catalog: Catalog, *, made: int, check: Check
) -> Judgement:
    """Judge a step's calls, in order.

    Args:
        asked: What the model wrote; ids are execution ids.
        start: The turn.
        agent: Its rules; `None` for a bare model, which has no tools but the caller's.
        catalog: The tools and the policies.
        made: Calls of the turn so far.
        check: Tells what is wrong with arguments.

    """
    tools = _tools_of(agent, catalog)
    theirs = {tool.name for tool in start.tools}
    rulings: list[Ruling] = []
    rules: list[Policy] = []
    ours = size = 0
    for place, call in enumerate(asked):
        tool = tools.get(call.name)
        if place and start.parallel_calls is False:
            rulings.append(_told(call, ONE_AT_A_TIME))
            continue
        size += len(call.arguments)
        if len(call.arguments) > ARGUMENTS_MAX_CHARS or size > STEP_MAX_CHARS:
            rulings.append(_told(call, TOO_LONG))
            continue
        if tool is None:
            rulings.append(_client(call) if call.name in theirs else _told(call, _unknown(call.name)))
            continue
        ours += 1
        ruling, rule = _judge_one(call, tool, start, catalog, check)
        if ruling.answer is None and agent is not None:
            if ours > agent.limits.parallel:
                ruling = _told(call, ErrorInfo(code=ErrorCode.TOOL_DENIED, message="Too many calls in one step"))
            elif made + ours > agent.limits.calls:
                ruling = _told(call, ErrorInfo(code=ErrorCode.TOOL_DENIED, message="The turn has no calls left"))
        if ruling.asked.do == "hold" and rule is not None:
            rules.append(rule)
        rulings.append(ruling)
    return Judgement(tuple(rulings), _terms(rules, start) if rules else None)


def shortened(asked: Sequence[ToolCall]) -> tuple[ToolCall, ...]:
    """Return a step's calls as they are kept: arguments that are too long to run are too long to keep."""
    kept: list[ToolCall] = []
    size = 0
    for call in asked:
        size += len(call.arguments)
        long = len(call.arguments) > ARGUMENTS_MAX_CHARS or size > STEP_MAX_CHARS
        kept.append(ToolCall(id=call.id, name=call.name, arguments="{}") if long else call)
    return tuple(kept)


def _judge_one(
    call: ToolCall, tool: Tool, start: StartTurn, catalog: Catalog, check: Check
) -> tuple[Ruling, Policy | None]:
    try:
        arguments = canonical.canonical(call.arguments or "{}")
    except BadRequest as exc:
        return _told(call, exc.info()), None
    values: Mapping[str, Any] = msgspec.json.decode(arguments)
    problems = check(tool.parameters, values)
    if problems:
        words = "The arguments do not fit: " + "; ".join(problems)
        return _told(call, ErrorInfo(code=ErrorCode.TOOL_ARGUMENTS, message=words)), None
    rule = first_rule(catalog.policies, call.name, start.route.agent or "", start.tenant, values)
    then = rule.then if rule is not None else "allow"
    if then == "deny":
        words = rule.reason if rule is not None and rule.reason else "A rule of this installation forbids the call"
        return _told(call, ErrorInfo(code=ErrorCode.TOOL_DENIED, message=words)), rule
    if then == "hold" and start.denies_holds:
        return _told(call, NOBODY), rule
    described = describe_call(call.name, tool, arguments) if then == "hold" else None
    asked = Asked(
        id=call.id,
        name=call.name,
        do="hold" if described is not None else "run",
        arguments=arguments,
        sha256=canonical.sha256(arguments),
        version=tool.version(),
        effect=tool.effects(),
        pool=tool.pool,
        sentence=described.sentence if described is not None else "",
        shown=described.shown if described is not None else "",
    )
    return Ruling(asked=asked), rule


def _terms(rules: Sequence[Policy], start: StartTurn) -> Terms:
    """Put the terms of several rules together, the strictest of each."""
    usual_s = HOLD_DURABLE_S if start.mode == "durable" else HOLD_CLASSIC_S
    return Terms(
        min(usual_s if rule.expires_after_s is None else rule.expires_after_s for rule in rules),
        max((rule.scope for rule in rules), key=_SCOPES.index),
        any(rule.decide == "batch" for rule in rules),
    )


def _tools_of(agent: Agent | None, catalog: Catalog) -> dict[str, Tool]:
    return {name: catalog.tools[name] for name in agent.tools} if agent is not None else {}


def _client(call: ToolCall) -> Ruling:
    return Ruling(asked=Asked(id=call.id, name=call.name, do="client"))


def _told(call: ToolCall, answer: ErrorInfo) -> Ruling:
    return Ruling(asked=Asked(id=call.id, name=call.name, do="done"), answer=answer)


def _unknown(name: str) -> ErrorInfo:
    return ErrorInfo(code=ErrorCode.TOOL_UNKNOWN, message=f"There is no tool {name[:64]!r}")
