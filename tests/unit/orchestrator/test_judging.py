"""What becomes of a model's calls: rules, arguments, tools it has not, bounds, and the terms of a hold."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import pytest

from kitemesh_contracts import canonical
from kitemesh_contracts.content import ToolCall, ToolSpec
from kitemesh_contracts.errors import ErrorCode
from kitemesh_orchestrator import judging
from kitemesh_orchestrator.happenings import Ruling
from kitemesh_orchestrator.judging import Judgement, Terms
from kitemesh_orchestrator.states import Asked, Limits
from kitemesh_runtime import schemas
from kitemesh_runtime.catalog import Agent
from unit.orchestrator.catalogs import TOOLS, catalog, client_tool, helper
from unit.orchestrator.turns import START, call

change: Final = msgspec.structs.replace
PAY: Final = call("pay", '{"amount":5}')
UNRULED: Final = {"tools": ["format_disk"], "then": "deny"}


def judge(*asked: ToolCall, rules: Sequence[dict[str, Any]] = (), made: int = 0, **start: Any) -> Judgement:
    offered = catalog(*rules)
    turn = change(START, **start)
    return judging.judge(asked, turn, helper(offered), offered, made=made, check=schemas.problems)


def fates(judged: Judgement) -> list[str]:
    return [ruling.asked.do for ruling in judged.rulings]


def told(judged: Judgement) -> list[tuple[ErrorCode, str]]:
    return [(ruling.answer.code, ruling.answer.message) for ruling in judged.rulings if ruling.answer is not None]


def test_a_call_that_no_rule_matches_runs_exactly_as_it_was_judged() -> None:
    judged = judge(call("pay", '{ "card_token": "t", "amount": 5 }'), rules=[UNRULED])
    tool = catalog().tools["pay"]
    (ruling,) = judged.rulings
    text = '{"amount":5,"card_token":"t"}'
    assert ruling == Ruling(
        asked=Asked(
            id="pay1",
            name="pay",
            do="run",
            arguments=text,
            sha256=canonical.sha256(text),
            version=tool.version(),
            effect="once",
            pool="default",
        )
    )
    assert judged.terms is None


def test_a_held_call_is_described_for_people_without_its_secrets() -> None:
    (ruling,) = judge(call("pay", '{"card_token":"4711","amount":5}')).rulings
    assert ruling.asked.do == "hold"
    assert ruling.asked.sentence == "Pay 5"
    assert ruling.asked.shown == '{"amount":5,"card_token":"***"}'
    assert "4711" in ruling.asked.arguments


@pytest.mark.parametrize(
    ("tool", "effect", "pool"), [("read", "safe", "slow"), ("pay", "once", "default"), ("drop", "keyed", "default")]
)
def test_effect_and_pool_are_the_tools_own(tool: str, effect: str, pool: str) -> None:
    (ruling,) = judge(call(tool, '{"amount":5}'), rules=[UNRULED]).rulings
    assert (ruling.asked.effect, ruling.asked.pool) == (effect, pool)


@pytest.mark.parametrize(
    ("rules", "start", "fate"),
    [
        ([{"then": "hold"}], {}, "hold"),
        ([{"then": "deny"}], {}, "done"),
        ([{"tools": ["pa?"], "then": "allow"}, {"then": "deny"}], {}, "run"),
        ([{"tools": ["pa?"], "then": "deny"}, {"then": "allow"}], {}, "done"),
        ([{"tools": ["p*"], "then": "hold"}], {}, "hold"),
        ([{"tools": ["drop"], "then": "deny"}], {}, "run"),
        ([{"agents": ["helper"], "then": "hold"}], {}, "hold"),
        ([{"agents": ["other"], "then": "hold"}], {}, "run"),
        ([{"tenants": ["acme"], "then": "hold"}], {}, "hold"),
        ([{"tenants": ["acme"], "then": "hold"}], {"tenant": "umbrella"}, "run"),
        ([{"when": [{"argument": "amount", "op": "gt", "value": 4}], "then": "hold"}], {}, "hold"),
        ([{"when": [{"argument": "amount", "op": "gt", "value": 5}], "then": "hold"}], {}, "run"),
        (
            [
                {"when": [{"argument": "amount", "op": "gt", "value": 100}], "then": "deny"},
                {"when": [{"argument": "amount", "op": "le", "value": 5}], "then": "allow"},
                {"then": "hold"},
            ],
            {},
            "run",
        ),
    ],
)
def test_the_first_rule_that_matches_decides(rules: list[dict[str, Any]], start: dict[str, Any], fate: str) -> None:
    assert fates(judge(PAY, rules=rules, **start)) == [fate]


@pytest.mark.parametrize(
    ("reason", "words"),
    [({"reason": "Not on a Sunday"}, "Not on a Sunday"), ({}, "A rule of this installation forbids the call")],
)
def test_a_forbidden_call_is_a_result_with_the_rules_reason(reason: dict[str, str], words: str) -> None:
    judged = judge(PAY, rules=[{"then": "deny", **reason}])
    assert told(judged) == [(ErrorCode.TOOL_DENIED, words)]
    assert judged.terms is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ('{"amount":', "The arguments are not JSON"),
        ("pay him", "The arguments are not JSON"),
        (" ", "The arguments are not JSON"),
        ("[1]", "The arguments are not a JSON object"),
        ("null", "The arguments are not a JSON object"),
        ('{"amount":1,"amount":2}', "The arguments hold an object that has the same name twice"),
        ('{"amount":NaN}', "The arguments hold a number that is not finite"),
        ('{"amount":1,"card_token":"\\ud800"}', "The arguments hold half of a surrogate pair"),
        ('{"amount":' + "[" * 40 + "]" * 40 + "}", "The arguments nest too deep"),
    ],
)
def test_malformed_arguments_are_a_result_and_run_nothing(arguments: str, words: str) -> None:
    judged = judge(call("pay", arguments))
    assert fates(judged) == ["done"]
    assert told(judged) == [(ErrorCode.TOOL_ARGUMENTS, words)]


def test_arguments_that_do_not_fit_are_a_result_that_says_what_is_wrong() -> None:
    judged = judge(call("pay", '{"amount":"4711"}'), call("pay", "{}", 2))
    assert fates(judged) == ["done", "done"]
    (code, words), (_, other) = told(judged)
    assert code is ErrorCode.TOOL_ARGUMENTS
    assert words.startswith("The arguments do not fit: amount: ")
    assert "4711" not in words
    assert "amount" in other


def test_every_problem_is_told() -> None:
    def check(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> list[str]:
        assert (schema["type"], arguments) == ("object", {"amount": 5})
        return ["a is wrong", "b is missing"]

    offered = catalog()
    judged = judging.judge([PAY], START, helper(offered), offered, made=0, check=check)
    assert told(judged) == [(ErrorCode.TOOL_ARGUMENTS, "The arguments do not fit: a is wrong; b is missing")]


def test_no_arguments_are_an_empty_object() -> None:
    (ruling,) = judge(call("read", "")).rulings
    assert (ruling.asked.do, ruling.asked.arguments) == ("run", "{}")


@pytest.mark.parametrize("name", ["rm", "launch", "Read", "read ", "", "x" * 200])
def test_a_tool_that_the_agent_has_not_is_a_result(name: str) -> None:
    judged = judge(ToolCall(id="c1", name=name, arguments="{}"))
    assert fates(judged) == ["done"]
    assert told(judged) == [(ErrorCode.TOOL_UNKNOWN, f"There is no tool {name[:64]!r}")]


def test_a_bare_model_has_no_tools_but_the_callers() -> None:
    turn = change(START, tools=(client_tool("draw"),))
    judged = judging.judge([call("read"), call("draw")], turn, None, catalog(), made=0, check=schemas.problems)
    assert fates(judged) == ["done", "client"]


def test_the_callers_tools_are_left_to_the_caller_and_never_hide_the_agents() -> None:
    tools = (client_tool("draw"), client_tool("pay"))
    judged = judge(call("draw", "not even JSON"), PAY, tools=tools)
    assert fates(judged) == ["client", "hold"]
    assert judged.rulings[0] == Ruling(asked=Asked(id="draw1", name="draw", do="client"))


def many(count: int, name: str = "read") -> list[ToolCall]:
    return [call(name, "{}", number) for number in range(count)]


def bounded(asked: list[ToolCall], made: int = 0, **limits: int) -> Judgement:
    offered = catalog(UNRULED, **limits)
    return judging.judge(asked, START, helper(offered), offered, made=made, check=schemas.problems)


def test_calls_of_one_step_are_bounded_and_the_first_ones_run() -> None:
    judged = bounded(many(4), parallel=2)
    assert fates(judged) == ["run", "run", "done", "done"]
    assert told(judged) == [(ErrorCode.TOOL_DENIED, "Too many calls in one step")] * 2


@pytest.mark.parametrize(("made", "run"), [(0, 3), (1, 2), (3, 0), (9, 0)])
def test_calls_of_the_turn_are_bounded(made: int, run: int) -> None:
    judged = bounded(many(3), made=made, calls=3)
    assert fates(judged) == ["run"] * run + ["done"] * (3 - run)
    assert told(judged) == [(ErrorCode.TOOL_DENIED, "The turn has no calls left")] * (3 - run)


def test_a_call_beyond_the_bound_is_not_held_either() -> None:
    offered = catalog(calls=0)
    judged = judging.judge([PAY], START, helper(offered), offered, made=0, check=schemas.problems)
    assert fates(judged) == ["done"]
    assert judged.terms is None


def test_the_callers_own_calls_and_unknown_ones_use_up_nothing() -> None:
    offered = catalog(UNRULED, parallel=1)
    asked = [call("draw"), call("rm"), call("read"), call("draw", number=2)]
    turn = change(START, tools=(client_tool("draw"),))
    judged = judging.judge(asked, turn, helper(offered), offered, made=0, check=schemas.problems)
    assert fates(judged) == ["client", "done", "run", "client"]


def test_one_call_at_a_time_is_one_whoever_runs_it() -> None:
    tools = (client_tool("draw"),)
    asked = [call("read"), call("draw"), call("pay", '{"amount":5}'), call("rm")]
    judged = judge(*asked, rules=[UNRULED], parallel_calls=False, tools=tools)
    assert fates(judged) == ["run", "done", "done", "done"]
    assert told(judged) == [(ErrorCode.TOOL_DENIED, judging.ONE_AT_A_TIME.message)] * 3
    assert fates(judge(*asked[:3], rules=[UNRULED], parallel_calls=True, tools=tools)) == ["run", "client", "run"]
    assert fates(judge(*asked[1::-1], rules=[UNRULED], parallel_calls=False, tools=tools)) == ["client", "done"]


def held(*terms: dict[str, Any], mode: str = "classic") -> Terms:
    """Return the terms of a step that holds one call under each rule."""
    rules = [
        {"then": "hold", "when": [{"argument": "amount", "op": "eq", "value": number}], **each}
        for number, each in enumerate(terms)
    ]
    asked = [call("pay", f'{{"amount":{number}}}', number) for number in range(len(terms))]
    judged = judge(*asked, rules=rules, mode=mode)
    assert judged.terms is not None
    return judged.terms


@pytest.mark.parametrize(
    ("terms", "mode", "expected"),
    [
        ([{}], "classic", Terms(600.0, "approve", together=False)),
        ([{}], "durable", Terms(86_400.0, "approve", together=False)),
        ([{"expires_after_s": 60}], "classic", Terms(60.0, "approve", together=False)),
        ([{"expires_after_s": 7200}], "classic", Terms(7200.0, "approve", together=False)),
        ([{"expires_after_s": 7200}, {}], "classic", Terms(600.0, "approve", together=False)),
        ([{"expires_after_s": 7200}, {}], "durable", Terms(7200.0, "approve", together=False)),
        ([{"scope": "chat"}], "classic", Terms(600.0, "chat", together=False)),
        ([{"scope": "chat"}, {}], "classic", Terms(600.0, "approve", together=False)),
        ([{"scope": "admin"}, {"scope": "chat"}], "classic", Terms(600.0, "admin", together=False)),
        ([{}, {"decide": "batch"}], "classic", Terms(600.0, "approve", together=True)),
    ],
)
def test_a_hold_has_the_strictest_terms_of_its_rules(terms: list[dict[str, Any]], mode: str, expected: Terms) -> None:
    assert held(*terms, mode=mode) == expected


def test_a_rule_of_a_call_that_is_not_held_after_all_sets_no_terms() -> None:
    rules: list[dict[str, Any]] = [
        {"tools": ["drop"], "then": "hold", "decide": "batch", "expires_after_s": 1, "scope": "admin"},
        {"tools": ["pay"], "then": "hold"},
    ]
    offered = catalog(*rules, parallel=1)
    judged = judging.judge([PAY, call("drop")], START, helper(offered), offered, made=0, check=schemas.problems)
    assert fates(judged) == ["hold", "done"]
    assert judged.terms == Terms(600.0, "approve", together=False)


def test_a_model_is_told_of_the_agents_tools_and_then_of_the_callers() -> None:
    offered = catalog()
    specs = judging.offer(change(START, tools=(client_tool("draw"),)), helper(offered), offered)
    assert [spec.name for spec in specs] == [*TOOLS, "draw"]
    assert specs[1] == ToolSpec(name="pay", description="Pay somebody.", parameters=specs[1].parameters)
    assert msgspec.json.decode(specs[1].parameters) == offered.tools["pay"].parameters
    assert judging.offer(START, None, offered) == ()
    assert judging.offer(START, Agent(model="a"), offered) == ()


def test_a_callers_tool_that_is_named_like_one_of_the_agents_is_left_out() -> None:
    offered = catalog()
    turn = change(START, tools=(client_tool("pay"), client_tool("draw"), client_tool("launch")))
    specs = judging.offer(turn, helper(offered), offered)
    assert [spec.name for spec in specs] == [*TOOLS, "draw", "launch"]
    assert specs[1].description == "Pay somebody."
    assert [spec.name for spec in judging.offer(turn, None, offered)] == ["pay", "draw", "launch"]


def test_limits_are_the_agents() -> None:
    assert judging.limits_of(helper(catalog(steps=3, tokens=1000))) == Limits(steps=3, tokens=1000)
    assert judging.limits_of(None) == Limits(steps=25, tokens=None)


def long_call(number: int, size: int) -> ToolCall:
    text = msgspec.json.encode({"amount": number, "note": ""}).decode()
    padded = text[:-2] + "x" * (size - len(text)) + text[-2:]
    assert len(padded) == size
    return call("read", padded, number)


def test_arguments_may_be_as_long_as_the_bound_and_no_longer() -> None:
    bound = judging.ARGUMENTS_MAX_CHARS
    judged = judge(long_call(1, bound), long_call(2, bound + 1))
    assert [ruling.answer == judging.TOO_LONG for ruling in judged.rulings] == [False, True]


def test_the_arguments_of_a_step_have_a_bound_together() -> None:
    size = judging.ARGUMENTS_MAX_CHARS
    many = judging.STEP_MAX_CHARS // size
    judged = judge(*(long_call(number, size) for number in range(1, many + 1)), long_call(many + 1, 100))
    assert [ruling.answer == judging.TOO_LONG for ruling in judged.rulings] == [False] * many + [True]


def test_arguments_that_are_too_long_to_run_are_not_kept_either() -> None:
    asked = (
        ToolCall(id="a", name="look", arguments='{"x":1}'),
        ToolCall(id="b", name="look", arguments='"' + "x" * judging.ARGUMENTS_MAX_CHARS + '"'),
    )
    assert [call.arguments for call in judging.shortened(asked)] == ['{"x":1}', "{}"]


def test_where_nobody_can_approve_a_call_that_needs_a_person_is_denied_and_others_run() -> None:
    rules = [{"tools": ["pay"], "then": "hold"}]
    judged = judge(PAY, call("read", '{"q":"x"}'), rules=rules, denies_holds=True)
    assert fates(judged) == ["done", "run"]
    assert told(judged) == [
        (ErrorCode.TOOL_DENIED, "The call needs a person's approval, and nobody can approve it here")
    ]
    assert judged.terms is None
    assert fates(judge(PAY, rules=rules)) == ["hold"]
