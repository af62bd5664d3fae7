"""Schemas of tools: what fits, what is told of what does not, and which schemas are refused."""

import time
from typing import Any

import pytest

from kitemesh_runtime import schemas
from kitemesh_runtime.schemas import PROBLEM_MAX_CHARACTERS, PROBLEMS_MAX, check, problems

ORDER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 1},
        "days": {"type": "integer", "maximum": 7},
        "unit": {"enum": ["c", "f"]},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["city"],
    "additionalProperties": False,
}
NODE = {
    "anyOf": [
        {"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#"}}},
        {"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#"}, "b": {}}},
        {"type": "string"},
    ]
}


def test_arguments_that_fit_have_no_problems() -> None:
    assert problems(ORDER, {"city": "Oslo", "days": 3, "unit": "c", "tags": ["a"]}) == []


def test_every_mistake_is_told_with_its_place_and_without_its_value() -> None:
    found = problems(ORDER, {"days": 9, "unit": "s3cret", "tags": ["a", 1], "more": 1})
    assert len(found) == 5
    assert 'tags.1: the value is not of type "string"' in found
    assert '"city" is a required property' in found
    assert any("more" in each for each in found)
    assert "s3cret" not in " ".join(found)


def test_there_are_few_problems_and_each_is_short() -> None:
    many = problems({"items": {"type": "string"}}, [1] * 1000)
    assert len(many) == PROBLEMS_MAX
    (long,) = problems({"required": ["x" * 1000]}, {})
    assert len(long) == PROBLEM_MAX_CHARACTERS


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "https://example.com/schema"},
        {"$ref": "file:///etc/passwd"},
        {"$id": "file:///tmp/", "properties": {"a": {"$ref": "x.json"}}},
        {"$dynamicRef": "http://example.com/x"},
        {"$schema": "https://example.com/meta"},
        {"$schema": "file:///etc/passwd"},
        {"$ref": "#/$defs/absent"},
        {"type": "strnig"},
        {"properties": []},
        {"pattern": "(?=lookahead)"},
        {"pattern": "(a)\\1"},
        {"pattern": "(a{1000}){1000}"},
        {"pattern": "("},
        {"description": "x" * 200_000},
        {"default": object()},
    ],
)
def test_a_schema_that_is_wrong_or_refers_elsewhere_is_refused_in_one_short_sentence(schema: dict[str, Any]) -> None:
    (sentence,) = check(schema)
    assert 0 < len(sentence) <= PROBLEM_MAX_CHARACTERS
    with pytest.raises(schemas.SchemaRefused):
        problems(schema, {})


def test_a_schema_that_nests_too_deep_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(200):
        schema = {"not": schema}
    assert check(schema) == ["the schema nests too deep"]


def test_references_that_multiply_are_refused() -> None:
    schema: dict[str, Any] = {"$defs": {"a20": {"type": "string"}}, "$ref": "#/$defs/a0"}
    for i in range(20):
        schema["$defs"][f"a{i}"] = {"anyOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 4}
    assert check(schema) == ["the schema's references amount to more than can be checked in time"]


@pytest.mark.parametrize(
    "schema", [ORDER, NODE, {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}, {}]
)
def test_a_usable_schema_has_nothing_wrong(schema: dict[str, Any]) -> None:
    assert check(schema) == []


def test_a_draft_that_is_named_is_used() -> None:
    old = {"$schema": "http://json-schema.org/draft-07/schema#", "dependencies": {"a": ["b"]}}
    assert problems(old, {"a": 1})
    assert problems({"dependentRequired": {"a": ["b"]}}, {"a": 1})


def test_a_pattern_takes_linear_time() -> None:
    began_s = time.perf_counter()
    assert problems({"pattern": "^(a+)+$"}, "a" * 100_000 + "b")
    assert time.perf_counter() - began_s < 1


def test_a_schema_that_contains_itself_is_answered_fast_though_without_details() -> None:
    value: Any = 1
    for _ in range(30):
        value = {"a": value}
    began_s = time.perf_counter()
    assert problems(NODE, value) == ["the arguments do not satisfy the schema"]
    assert time.perf_counter() - began_s < 1
    assert problems(NODE, {"a": {"a": "x"}}) == []


def test_a_schema_is_compiled_once() -> None:
    assert schemas.compiled(ORDER) is schemas.compiled(dict(reversed(ORDER.items())))
