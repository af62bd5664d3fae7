"""Rules over tool calls: the first that matches decides, and only what is alike compares."""

from typing import Any

import pytest

from kitemesh_runtime.catalog_tools import Policy
from kitemesh_runtime.policies import first_rule


def matches(rule: dict[str, Any], arguments: dict[str, Any] | None = None, **call: str) -> bool:
    policy = Policy.model_validate({"then": "hold", **rule})
    about = {"tool": "pay", "agent": "clerk", "tenant": "acme", **call}
    return first_rule((policy,), about["tool"], about["agent"], about["tenant"], arguments or {}) is policy


def test_the_first_rule_that_matches_decides_and_without_one_there_is_none() -> None:
    allow = Policy(tools=("pay",), then="allow")
    hold = Policy(then="hold")
    assert first_rule((allow, hold), "pay", "clerk", "acme", {}) is allow
    assert first_rule((allow, hold), "delete", "clerk", "acme", {}) is hold
    assert first_rule((allow,), "delete", "clerk", "acme", {}) is None


@pytest.mark.parametrize(
    ("rule", "call", "matched"),
    [
        ({}, {}, True),
        ({"tools": ["pay"]}, {}, True),
        ({"tools": ["p?y", "x"]}, {}, True),
        ({"tools": ["PAY"]}, {}, False),
        ({"tools": ["pa"]}, {}, False),
        ({"tools": ["delete_*"]}, {"tool": "delete_record"}, True),
        ({"tools": ["[p]ay"]}, {}, False),
        ({"tools": ["[p]ay"]}, {"tool": "[p]ay"}, True),
        ({"agents": ["clerk"]}, {"agent": ""}, False),
        ({"agents": ["*"]}, {"agent": ""}, True),
        ({"tenants": ["ac*"]}, {}, True),
        ({"tenants": ["acme"]}, {"tenant": "acme\n"}, False),
        ({"tools": ["pay"], "tenants": ["other"]}, {}, False),
    ],
)
def test_a_rule_is_about_names_with_wildcards(rule: dict[str, Any], call: dict[str, str], *, matched: bool) -> None:
    assert matches(rule, **call) is matched


@pytest.mark.parametrize(
    ("op", "value", "given", "matched"),
    [
        ("eq", 1, 1, True),
        ("eq", 1, 1.0, True),
        ("eq", 1, True, False),
        ("eq", True, 1, False),
        ("eq", "1", 1, False),
        ("eq", "a", "a", True),
        ("ne", "a", "b", True),
        ("ne", "a", "a", False),
        ("ne", "a", None, True),
        ("ne", 1, True, True),
        ("lt", 10, 9.5, True),
        ("lt", 10, 10, False),
        ("le", 10, 10, True),
        ("gt", 10, "11", False),
        ("gt", 10, True, False),
        ("gt", "b", "c", True),
        ("ge", 10, 10, True),
        ("in", ["a", 1], 1, True),
        ("in", ["a", 1], True, False),
        ("in", ["a"], ["a"], False),
        ("not_in", ["a", "b"], "c", True),
        ("not_in", ["a", "b"], "a", False),
        ("not_in", ["a"], None, True),
        ("matches", "*.example", "a.example", True),
        ("matches", "*.example", "a.example\nb", False),
        ("matches", "*", 5, False),
        ("matches", "[a]", "a", False),
    ],
)
def test_a_condition_compares_what_is_alike(op: str, value: Any, given: Any, *, matched: bool) -> None:
    rule = {"when": [{"argument": "a", "op": op, "value": value}]}
    assert matches(rule, {"a": given}) is matched
    assert not matches(rule, {"b": given})


def test_a_condition_reaches_into_objects_and_all_of_them_must_hold() -> None:
    both = {"when": [{"argument": "to.city", "op": "eq", "value": "Oslo"}, {"argument": "n", "op": "gt", "value": 1}]}
    assert matches(both, {"to": {"city": "Oslo"}, "n": 2})
    assert not matches(both, {"to": {"city": "Oslo"}, "n": 1})
    assert not matches(both, {"to": "Oslo", "n": 2})
    assert not matches(both, {"to": [{"city": "Oslo"}], "n": 2})


def test_a_hostile_argument_takes_no_time_to_compare() -> None:
    rule = {"when": [{"argument": "a", "op": "matches", "value": "*a*a*a*a*a*b"}]}
    assert not matches(rule, {"a": "a" * 20_000})
