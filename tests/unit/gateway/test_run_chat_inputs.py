"""Arguments as they come in pieces: nothing that is secret is told, whatever its place, and all else is."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitemesh_gateway.dialects.run_chat_inputs import Arguments
from kitemesh_runtime.catalog import Catalog
from kitemesh_runtime.catalog_tools import Tool
from unit.gateway.holding import CATALOG, CATALOG_DATA

SECRET = "hunter2"


def tool(parameters: dict[str, Any]) -> Tool:
    data = {**CATALOG_DATA["tools"]["refund"], "parameters": parameters, "secret_arguments": ()}
    return Catalog.model_validate({**CATALOG_DATA, "tools": {"refund": data}, "policies": []}).tools["refund"]


OPEN = tool({"type": "object", "properties": {"city": {"type": "string"}}})


def told(arguments: Arguments, text: str, size: int = 1) -> str:
    return "".join(arguments.add(text[start : start + size]) for start in range(0, len(text), size))


@pytest.mark.parametrize("size", [1, 3, 100])
def test_arguments_without_a_secret_are_told_as_they_come(size: int) -> None:
    text = '{"city":"Oslo \\" \\\\","deep":[{"a":1}]}'
    arguments = Arguments(OPEN)
    assert told(arguments, text, size) == text
    assert arguments.complete() == json.loads(text)


@pytest.mark.requirement("run-chat:secrets-are-masked")
@pytest.mark.parametrize("size", [1, 2, 5, 100])
@pytest.mark.parametrize(
    "text",
    [
        '{"city":"Oslo","password":"hunter2"}',
        '{"deep":{"api_key" : "hunter2"},"city":"x"}',
        '{"pass\\u0077ord":"hunter2"}',
        '{"city":"a \\":\\"","token":"hunter2"}',
        '[{"secret":["hunter2"]}]',
    ],
)
def test_text_is_told_up_to_a_name_that_announces_a_secret(text: str, size: int) -> None:
    arguments = Arguments(OPEN)
    shown = told(arguments, text, size)
    assert SECRET not in shown
    assert text.startswith(shown)
    assert SECRET not in json.dumps(arguments.complete())


@pytest.mark.parametrize(
    "definition",
    [
        CATALOG.tools["refund"],
        tool({"type": "object", "properties": {"pin": {"type": "string", "writeOnly": True}}}),
        tool({"type": "object", "properties": {"pins": {"type": "array", "items": {"format": "password"}}}}),
        tool({"type": "object", "properties": {"pin": {"$ref": "#/$defs/pin"}}, "$defs": {"pin": {"writeOnly": True}}}),
    ],
    ids=["declared", "write-only", "password", "reference"],
)
def test_nothing_is_told_of_a_tool_that_declares_a_secret_before_it_is_masked(definition: Tool) -> None:
    arguments = Arguments(definition)
    assert told(arguments, '{"amount":5,"pin":"hunter2","pins":["hunter2"]}') == ""
    assert (arguments.complete() or {})["amount"] == 5


def test_a_tool_that_the_catalog_does_not_have_has_names_that_announce_secrets() -> None:
    arguments = Arguments(None)
    assert told(arguments, '{"a":1,"token":"hunter2"}') == '{"a":1,"token"'
    assert arguments.complete() == {"a": 1, "token": "***"}


@pytest.mark.parametrize("text", ["[]", "1", "{", '{"a":1}}', '{"a":"\\ud800"}', "[" * 100_000])
def test_what_is_no_object_is_none(text: str) -> None:
    arguments = Arguments(OPEN)
    arguments.add(text)
    assert arguments.complete() is None


def test_no_arguments_are_an_empty_object() -> None:
    assert Arguments(OPEN).complete() == {}


@pytest.mark.requirement("run-chat:told-once")
def test_what_comes_again_is_told_only_where_it_is_longer() -> None:
    arguments = Arguments(OPEN)
    assert arguments.add('{"city"') == '{"city"'
    arguments.restart()
    assert arguments.add("{") == ""
    assert arguments.add('"city":"Oslo"}') == ':"Oslo"}'
    assert arguments.complete() == {"city": "Oslo"}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=6,
)


@given(
    values=st.dictionaries(st.text(max_size=4), VALUES, max_size=3),
    name=st.sampled_from(["password", "apiKey", "x-auth"]),
    size=st.integers(1, 9),
)
def test_a_secret_is_never_told_wherever_it_stands(values: dict[str, Any], name: str, size: int) -> None:
    text = json.dumps({**values, name: SECRET})
    arguments = Arguments(OPEN)
    assert SECRET not in told(arguments, text, size)
    assert (arguments.complete() or {})[name] == "***"
