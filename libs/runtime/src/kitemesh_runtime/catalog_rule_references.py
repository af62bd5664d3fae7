"""What the rules over tool calls say of the rest of a catalog. Pure; see `catalog_references`.

A rule that matches nothing is a mistake: it looks like protection and is none.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from kitemesh_runtime.catalog_parts import names_of, parts, texts, twice
from kitemesh_runtime.policies import is_any

_ANY: Final = ("*",)
_OF_A_HOLD: Final[Mapping[str, object]] = {"expires_after_s": None, "scope": "approve", "decide": "each"}
_OPEN: Final = ("$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "if", "patternProperties", "dependentSchemas")


def find_broken_rules(content: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each mistake in the rules, beginning with its place."""
    rules = content.get("policies")
    return list(_in_rules(content, rules)) if isinstance(rules, list | tuple) else []


def _in_rules(content: Mapping[str, Any], rules: list[Any] | tuple[Any, ...]) -> Iterator[str]:
    takes_all: str | None = None
    for number, rule in enumerate(rules):
        if not isinstance(rule, Mapping):
            continue
        place = f"policies.{number}"
        if takes_all is not None:
            yield f"{place}: is never reached, since {takes_all} takes every call"
        yield from _in_names(place, rule, "tools", names_of(content, "tools"))
        yield from _in_names(place, rule, "agents", names_of(content, "agents"))
        yield from (f"{place}.tenants: {each!r} twice" for each in twice(texts(rule.get("tenants"))))
        yield from _in_conditions(place, rule, content)
        if rule.get("then") in {"allow", "deny"}:
            odd = [field for field, default in _OF_A_HOLD.items() if rule.get(field, default) != default]
            yield from (f"{place}.{field}: means nothing without then: hold" for field in odd)
        if takes_all is None and _takes_all(rule):
            takes_all = place


def _in_names(place: str, rule: Mapping[str, Any], kind: str, known: set[str] | None) -> Iterator[str]:
    patterns = texts(rule.get(kind, _ANY))
    yield from (f"{place}.{kind}: {each!r} twice" for each in twice(patterns))
    for pattern in dict.fromkeys(patterns):
        if known is not None and pattern != "*" and not any(is_any((pattern,), name) for name in known):
            yield f"{place}.{kind}: {pattern!r} matches no {kind.removesuffix('s')}"


def _in_conditions(place: str, rule: Mapping[str, Any], content: Mapping[str, Any]) -> Iterator[str]:
    patterns = texts(rule.get("tools", _ANY))
    tools = [tool for name, tool in parts(content, "tools") if is_any(patterns, name)]
    conditions = rule.get("when")
    for number, condition in enumerate(conditions if isinstance(conditions, list | tuple) else ()):
        argument = condition.get("argument") if isinstance(condition, Mapping) else None
        if isinstance(argument, str) and tools and not any(_may_have(tool, argument) for tool in tools):
            yield f"{place}.when.{number}: none of its tools has an argument {argument!r}"


def _may_have(tool: Mapping[str, Any], argument: str) -> bool:
    schema: Any = tool.get("parameters")
    for name in argument.split("."):
        if not isinstance(schema, Mapping) or any(key in schema for key in _OPEN):
            return True
        properties = schema.get("properties")
        if not isinstance(properties, Mapping):
            return schema.get("additionalProperties") is not False
        if name not in properties:
            return False
        schema = properties[name]
    return True


def _takes_all(rule: Mapping[str, Any]) -> bool:
    return not rule.get("when") and all("*" in texts(rule.get(kind, _ANY)) for kind in ("tools", "agents", "tenants"))
