"""The values that an agent's prompt wants, and what a model can: what the catalog may say of them."""

from typing import Any

import pytest
import yaml

from kitemesh_runtime.catalog import CatalogError, History, parse

SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def catalog(model: dict[str, Any] | None = None, **agent: Any) -> str:
    return yaml.safe_dump(
        {
            "providers": {"p": {"kind": "scripted"}},
            "models": {"m": {"provider": "p", **(model or {})}},
            "agents": {"a": {"model": "m", **agent}},
        }
    )


def problems(text: str) -> list[str]:
    with pytest.raises(CatalogError) as caught:
        parse(text)
    return caught.value.problems


def test_a_prompt_may_have_places_for_what_its_schema_names() -> None:
    agent = parse(catalog(prompt="You speak to {{name}}.", headers_schema=SCHEMA)).agents["a"]
    assert agent.headers_schema == SCHEMA


def test_without_a_schema_braces_are_text() -> None:
    assert parse(catalog(prompt="Write {{ like this }} and {{x}}")).agents["a"].headers_schema is None


@pytest.mark.requirement("catalog:prompt-places")
@pytest.mark.parametrize(
    ("agent", "problem"),
    [
        ({"prompt": "Hi {{nobody}}"}, "agents.a.prompt: 'nobody' is no property of headers_schema"),
        ({"prompt": "Hi {{ name }}"}, "agents.a.prompt: every {{ needs a value's name and }}, without blanks"),
        ({"headers_schema": {"type": "array"}}, "agents.a.headers_schema: type must be object"),
        ({"headers_schema": {"properties": {}}}, "agents.a.headers_schema: type must be object"),
    ],
)
def test_a_place_that_nothing_fills_is_a_mistake(agent: dict[str, Any], problem: str) -> None:
    assert problem in problems(catalog(**{"headers_schema": SCHEMA, **agent}))


def test_what_is_no_schema_or_refers_to_the_outside_is_a_mistake() -> None:
    for schema in ({"type": "object", "properties": 7}, {"type": "object", "$ref": "file:///etc/passwd"}):
        (problem,) = problems(catalog(headers_schema=schema))
        assert problem.startswith("agents.a.headers_schema: not a JSON Schema: ")


def test_a_model_can_everything_unless_the_catalog_says_what() -> None:
    assert parse(catalog()).can("m", "images")
    able = parse(catalog({"can": ["tools", "images"]}))
    assert (able.can("m", "images"), able.can("m", "files")) == (True, False)
    assert not parse(catalog({"can": []})).can("m", "tools")


def test_what_no_model_can_is_a_mistake_and_so_is_saying_it_twice() -> None:
    assert any(problem.startswith("models.m.can.0: ") for problem in problems(catalog({"can": ["fly"]})))
    assert "models.m: can 'tools' twice" in problems(catalog({"can": ["tools", "tools"]}))


def test_a_history_is_bounded_by_turns_and_characters_and_as_one_likes_by_messages_and_tokens() -> None:
    assert parse(catalog()).agents["a"].history == History(turns=20, characters=200_000, messages=None, tokens=None)
    bounded = parse(catalog(history={"messages": 10, "tokens": 2000})).agents["a"].history
    assert (bounded.messages, bounded.tokens) == (10, 2000)
