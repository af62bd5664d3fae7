"""Which rule a tool call falls under: the first that matches. Pure; it judges, and neither holds nor runs anything."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from kitemesh_runtime.catalog_tools import Condition, Policy


def first_rule(
    policies: Iterable[Policy], tool: str, agent: str, tenant: str, arguments: Mapping[str, Any]
) -> Policy | None:
    """Return the first rule that matches a call."""
    for policy in policies:
        if concerns(policy, tool, agent, tenant) and all(_holds(each, arguments) for each in policy.when):
            return policy
    return None


def concerns(policy: Policy, tool: str, agent: str, tenant: str) -> bool:
    """Say whether the rule is about such a call, whatever its arguments."""
    return is_any(policy.tools, tool) and is_any(policy.agents, agent) and is_any(policy.tenants, tenant)


def is_any(patterns: Iterable[str], text: str) -> bool:
    """Say whether a text is what one of the patterns describes; only `*` and `?` are special in one."""
    return any(_is_like(text, pattern) for pattern in patterns)


def _is_like(text: str, pattern: str) -> bool:
    return pattern == "*" or fnmatchcase(text, pattern.replace("[", "[[]"))


def _holds(condition: Condition, arguments: Mapping[str, Any]) -> bool:
    found: Any = arguments
    for name in condition.argument.split("."):
        if not isinstance(found, Mapping) or name not in found:
            return False
        found = found[name]
    wanted = condition.value
    match condition.op:
        case "eq":
            return _same(found, wanted)
        case "ne":
            return not _same(found, wanted)
        case "in":
            return isinstance(wanted, tuple) and any(_same(found, each) for each in wanted)
        case "not_in":
            return isinstance(wanted, tuple) and not any(_same(found, each) for each in wanted)
        case "matches":
            return isinstance(found, str) and isinstance(wanted, str) and _is_like(found, wanted)
        case "lt" | "le" | "gt" | "ge":
            return _compares(condition.op, found, wanted)


def _same(found: object, wanted: object) -> bool:
    # True is 1 to Python, and to nobody who writes a rule.
    return isinstance(found, bool) == isinstance(wanted, bool) and found == wanted


def _compares(op: str, found: object, wanted: object) -> bool:
    numbers = _is_number(found) and _is_number(wanted)
    if not numbers and not (isinstance(found, str) and isinstance(wanted, str)):
        return False
    left: Any = found
    right: Any = wanted
    return bool({"lt": left < right, "le": left <= right, "gt": left > right, "ge": left >= right}[op])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
