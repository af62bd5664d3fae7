"""Which tool bears a name, and when that is decided anew."""

import structlog

from kitemesh_runtime.catalog import Catalog
from kitemesh_tool_executor.registry import Registry
from kitemesh_tool_executor.tool_webhook import webhook_definition
from unit.tool_executor.doubles import OneTool, Source, ToldTool, catalog_of


def registry(source: Source, *kinds: str) -> tuple[Registry, OneTool]:
    kind = OneTool(ToldTool())
    return Registry(source, dict.fromkeys(kinds, kind), webhook_definition), kind


def test_a_tool_is_made_once_for_each_catalog() -> None:
    source = Source()
    tools, kind = registry(source, "http", "webhook")
    first = tools.find("once")
    assert first is not None
    assert tools.find("once") is first
    assert kind.made == ["once"]
    source.current = catalog_of(description="another")
    second = tools.find("once")
    assert second is not None
    assert second.version != first.version
    assert kind.made == ["once", "once"]


def test_a_tool_is_what_its_definition_says() -> None:
    tools, kind = registry(Source(timeout_s=7), "http")
    entry = tools.find("keyed")
    assert entry is not None
    assert (entry.kind, entry.effect, entry.timeout_s, entry.persistent) == ("http", "keyed", 7, False)
    assert entry.tool is kind.only


def test_a_webhook_is_a_keyed_tool_that_nobody_judged() -> None:
    tools, _ = registry(Source(), "webhook")
    entry = tools.find("webhook_ops")
    assert entry is not None
    assert (entry.kind, entry.effect, entry.version, entry.persistent) == ("webhook", "keyed", None, True)


def test_names_that_are_none_are_not_kept() -> None:
    tools, _ = registry(Source(), "http", "webhook")
    for number in range(100):
        assert tools.find(f"made-up-{number}") is None
        assert tools.find(f"webhook_{number}") is None
    assert tools._entries == {}


def test_a_tool_of_a_kind_that_is_not_here_or_with_a_bad_schema_is_none_and_the_operator_is_told() -> None:
    tools, _ = registry(Source())
    with structlog.testing.capture_logs() as logs:
        assert tools.find("once") is None
    assert [line["event"] for line in logs] == ["tool.refused"]
    source = Source()
    definition = source.current.tools["once"].model_copy(update={"parameters": {"type": "strnig"}})
    source.current = Catalog.model_construct(tools={"once": definition}, webhooks={})
    tools, _ = registry(source, "http")
    with structlog.testing.capture_logs() as logs:
        assert tools.find("once") is None
        assert tools.find("once") is None
    assert [line["event"] for line in logs] == ["tool.refused"]
