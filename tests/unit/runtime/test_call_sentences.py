"""A call as people are shown it: nothing secret, nothing that moves a cursor, nothing read as a template."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitemesh_contracts.canonical import canonical
from kitemesh_runtime.call_sentences import MASK, SENTENCE_CHARS, Described, describe_call, mask_arguments
from kitemesh_runtime.catalog_tools import PythonTool

SECRET = "s3cret-value"


def tool(**changes: Any) -> PythonTool:
    return PythonTool.model_validate({"kind": "python", "entry_point": "x", **changes})


def describe(arguments: dict[str, Any], **changes: Any) -> Described:
    return describe_call("act", tool(**changes), canonical(msgspec.json.encode(arguments).decode()))


def object_of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def test_a_sentence_is_the_template_with_the_arguments_in_it() -> None:
    said = describe({"id": "42", "n": 3, "on": True, "of": ["a"]}, sentence="Do {{id}} {{n}}x: {{on}} {{of}} {{gone}}")
    assert said.sentence == 'Do 42 3x: true ["a"] (none)'
    assert said.shown == '{"id":"42","n":3,"of":["a"],"on":true}'


def test_without_a_template_the_call_is_written_out_in_a_form_that_no_text_can_break() -> None:
    assert describe({"b": 1, "a": 'x", b="2'}).sentence == 'act(a="x\\", b=\\"2", b=1)'
    assert describe({}) == Described("act()", "{}")


def test_a_value_is_never_read_as_a_template() -> None:
    assert describe({"a": "{{b}}", "b": "x"}, sentence="{{a}}").sentence == "{{b}}"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\u2028b\u2029", "a\\u2028b\\u2029"),
        ("\u202eevil\u2066\u2069\u200f", "evil"),
        ("\u200b\ufeff", "\\u200b\\ufeff"),
        ("\U000e0041", "\\U000e0041"),
        ("né 日本 🙂", "né 日本 🙂"),
        ("x" * 201, "x" * 199 + "…"),
        ("x" * 200, "x" * 200),
    ],
)
def test_hostile_text_stays_on_its_line_and_short(value: str, shown: str) -> None:
    assert describe({"a": value}, sentence="{{a}}").sentence == shown
    assert "\x1b" not in describe({"a": value, value[:9]: 1}).sentence


def test_a_sentence_has_an_end() -> None:
    many = {f"argument{number}": "x" * 1000 for number in range(100)}
    assert len(describe(many).sentence) == SENTENCE_CHARS


SECRETS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"parameters": object_of(a={"type": "string", "writeOnly": True})}, {"a": SECRET}),
    ({"parameters": object_of(a={"type": "string", "format": "password"})}, {"a": SECRET}),
    ({"secret_arguments": ["a"]}, {"a": SECRET}),
    ({"secret_arguments": ["a"]}, {"a": {"deep": [SECRET]}}),
    ({"parameters": object_of(a=object_of(b={"writeOnly": True}))}, {"a": {"b": SECRET}}),
    ({"parameters": object_of(a={"items": {"writeOnly": True}})}, {"a": [SECRET, SECRET]}),
    ({"parameters": object_of(a={"prefixItems": [{}, {"writeOnly": True}]})}, {"a": ["x", SECRET]}),
    ({"parameters": object_of(a={"anyOf": [{"type": "null"}, {"writeOnly": True}]})}, {"a": SECRET}),
    ({"parameters": {"allOf": [object_of(a={"format": "password"})]}}, {"a": SECRET}),
    ({"parameters": {"additionalProperties": {"writeOnly": True}}}, {"a": SECRET}),
    ({"parameters": {"patternProperties": {"^a": {"writeOnly": True}}}}, {"a": SECRET}),
    ({"parameters": {"if": {}, "then": object_of(a={"writeOnly": True})}}, {"a": SECRET}),
    ({"parameters": {**object_of(a={"$ref": "#/$defs/x~1y"}), "$defs": {"x/y": {"writeOnly": True}}}}, {"a": SECRET}),
    ({"parameters": object_of(a={"$ref": "#named"})}, {"a": SECRET}),
    ({"parameters": object_of(a={"$ref": "#/$defs/nowhere"})}, {"a": SECRET}),
    ({}, {"password": SECRET}),
    ({}, {"dbPassword": SECRET}),
    ({}, {"accessToken": {"value": SECRET}}),
    ({}, {"X-API-Key": SECRET}),
    ({}, {"a": [{"client_secret": SECRET}]}),
    ({}, {"headers": {"Authorization": SECRET}}),
]


@pytest.mark.parametrize(("definition", "arguments"), SECRETS)
def test_a_secret_is_in_neither_form(definition: dict[str, Any], arguments: dict[str, Any]) -> None:
    for sentence in (None, "Use {{" + next(iter(arguments)) + "}}"):
        said = describe(arguments, **definition, sentence=sentence)
        assert SECRET not in said.sentence + said.shown
        assert MASK in said.sentence
        assert MASK in said.shown
        assert msgspec.json.decode(said.shown).keys() == arguments.keys()


@pytest.mark.parametrize("name", ["id", "city", "max_tokens", "author", "key", "tokenizer", "monkey"])
def test_what_is_no_secret_is_shown(name: str) -> None:
    assert describe({name: "x"}).shown == f'{{"{name}":"x"}}'


def test_a_schema_that_refers_to_itself_is_followed_as_far_as_the_arguments_go() -> None:
    schema = {
        "type": "object",
        "properties": {"next": {"$ref": "#"}, "pin": {"writeOnly": True}},
        "allOf": [{"$ref": "#"}],
    }
    said = describe({"next": {"next": {"pin": SECRET, "x": 1}}}, parameters=schema)
    assert said.shown == '{"next":{"next":{"pin":"***","x":1}}}'


def test_what_is_masked_is_only_what_is_shown() -> None:
    assert mask_arguments(tool(), '{"a":1.5,"token":5}') == '{"a":1.5,"token":"***"}'
    assert mask_arguments(tool(), '{"a":1.5,"b":null}') == '{"a":1.5,"b":null}'


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=10), JSON, max_size=4))
def test_whatever_is_asked_is_one_printable_line_with_the_same_arguments(arguments: dict[str, Any]) -> None:
    said = describe(arguments, sentence="{{a}} {{b}}", parameters=object_of(a={"writeOnly": True}))
    assert said.sentence.replace("\u200c", "").replace("\u200d", "").isprintable()
    assert msgspec.json.decode(said.shown).keys() == arguments.keys()
    assert canonical(said.shown) == said.shown
