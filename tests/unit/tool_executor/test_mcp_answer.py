"""What a model sees of an MCP result, and what pins a tool."""

import pytest
from mcp.types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
)

from kitemesh_contracts.errors import ErrorCode
from kitemesh_runtime.mcp_pins import pin
from kitemesh_tool_executor.mcp_answer import read_result
from kitemesh_tool_executor.tool import CallFailed

IMAGE = ImageContent(data="aGk=", mime_type="image/png")
AUDIO = AudioContent(data="aGk=", mime_type="audio/wav")
LINK = ResourceLink(name="x", uri="file:///secret")
BLOB = EmbeddedResource(resource=BlobResourceContents(uri="file:///x", blob="aGk=", mime_type="application/pdf"))


def text(*words: str) -> list[TextContent]:
    return [TextContent(text=each) for each in words]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (CallToolResult(content=text("a", "b")), "a\nb"),
        (CallToolResult(content=[]), ""),
        (CallToolResult(content=[IMAGE, AUDIO]), "[image image/png, not shown]\n[audio audio/wav, not shown]"),
        (CallToolResult(content=[LINK, BLOB]), "[resource_link, not shown]\n[resource application/pdf, not shown]"),
        (CallToolResult(content=[], structured_content={"b": 1, "a": [2]}), '{"a":[2],"b":1}'),
        (CallToolResult(content=text("see"), structured_content={"a": 1}), 'see\n{"a":1}'),
        (CallToolResult(content=text('{ "a": 1 }'), structured_content={"a": 1}), '{ "a": 1 }'),
    ],
)
def test_text_and_structured_content_are_shown(result: CallToolResult, expected: str) -> None:
    assert read_result(result, max_bytes=1000) == expected


def test_a_tool_that_says_it_failed_is_a_failure_with_its_words() -> None:
    with pytest.raises(CallFailed) as caught:
        read_result(CallToolResult(content=text("no " + "x" * 5000), is_error=True), max_bytes=10)
    assert caught.value.code is ErrorCode.TOOL_FAILED
    assert caught.value.message == "no " + "x" * 1997
    assert (caught.value.sent, caught.value.answered, caught.value.again) == (True, True, False)


def test_a_failure_without_words_has_ours() -> None:
    with pytest.raises(CallFailed, match="The tool failed"):
        read_result(CallToolResult(content=[], is_error=True), max_bytes=10)


def test_a_result_has_a_bound_in_bytes() -> None:
    assert read_result(CallToolResult(content=text("éé")), max_bytes=4) == "éé"
    with pytest.raises(CallFailed, match="too large"):
        read_result(CallToolResult(content=text("éé")), max_bytes=3)


def test_a_pin_is_the_same_however_the_schema_is_written() -> None:
    one = pin("n", "d", {"type": "object", "properties": {"a": {"type": "string"}}})
    assert one == pin("n", "d", {"properties": {"a": {"type": "string"}}, "type": "object"})
    assert one == "302836bdac484b710f7772c0c1b266c1e28e55d07367d9896487a8b60e7b1596"


@pytest.mark.parametrize(
    ("name", "description", "schema"),
    [
        ("m", "d", {"type": "object"}),
        ("n", "d ", {"type": "object"}),
        ("n", "", {"type": "object"}),
        ("n", "d", {"type": "object", "description": "and this"}),
        ("n", "d", {"type": "object", "required": []}),
        ("n", "d", {}),
    ],
)
def test_a_pin_changes_with_every_word(name: str, description: str, schema: dict[str, object]) -> None:
    assert pin(name, description, schema) != pin("n", "d", {"type": "object"})


def test_a_schema_that_nests_without_end_has_no_pin() -> None:
    schema: dict[str, object] = {}
    for _ in range(100_000):
        schema = {"not": schema}
    with pytest.raises(ValueError, match="not JSON"):
        pin("n", "d", schema)
