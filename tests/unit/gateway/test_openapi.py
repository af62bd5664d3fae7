import ast
import inspect
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from msgspec import Struct
from pydantic import create_model

from kitemesh_contracts.errors import MEANINGS, ErrorCode
from kitemesh_gateway import app
from kitemesh_gateway.advice import ADVICE
from kitemesh_gateway.dialects.completions_models import ChatRequest
from kitemesh_gateway.dialects.completions_resume import ResumeRequest
from kitemesh_gateway.dialects.native_bodies import BackgroundRequest
from kitemesh_gateway.dialects.run_completions_models import RunCompletionRequest
from kitemesh_gateway.docs_page import SECURITY_POLICY, render
from kitemesh_gateway.openapi import document
from kitemesh_gateway.openapi_bodies import content
from kitemesh_gateway.openapi_schemas import with_schemas

DOCUMENT = document("1.2.3")


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_every_reference_leads_somewhere() -> None:
    names = {reference.removeprefix("#/components/schemas/") for reference in references(DOCUMENT)}
    assert names <= set(DOCUMENT["components"]["schemas"])
    assert {"ChatRequest", "Completion", "Chunk", "CompletionsErrorEnvelope", "ModelList", "ModelOut"} <= names


@pytest.mark.requirement("openapi:described-by-what-validates")
def test_the_request_is_described_by_the_model_that_validates_it() -> None:
    described = DOCUMENT["components"]["schemas"]["ChatRequest"]
    assert set(described["properties"]) == set(ChatRequest.model_fields)
    assert described["required"] == ["model", "messages"]


@pytest.mark.requirement("openapi:described-by-what-validates")
def test_every_refusal_of_a_chat_is_listed_and_says_when_to_come_back() -> None:
    answers = DOCUMENT["paths"]["/v1/chat/completions"]["post"]["responses"]
    assert {int(status) for status in answers} == {200, *(m.status for m in MEANINGS.values())} - {405}
    for status in ("429", "503"):
        assert "Retry-After" in answers[status]["headers"]


def test_what_is_there_for_the_sake_of_its_errors_alone_is_not_offered() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert not [name for name in schemas if name.startswith("Unknown")]


def test_no_name_says_where_in_the_code_it_comes_from() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert [name for name in schemas if not re.fullmatch(r"[A-Za-z0-9]+", name)] == []
    assert {"CompletionsCallOut", "NativeCallOut"} <= set(schemas)


class One(Struct):
    """A struct that has the name of a model."""


def test_a_model_and_a_struct_of_one_name_are_not_taken_for_each_other() -> None:
    model = create_model("One")
    with pytest.raises(ValueError, match="One"):
        with_schemas({"/": {**content("a", model), **content("b", One)}})


def served() -> set[tuple[str, str]]:
    """Return the routes that the composition root names."""
    tree = ast.parse(inspect.getsource(app))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "Endpoint"]
    return {(ast.literal_eval(call.args[0]), ast.literal_eval(call.args[1]).replace("{+", "{")) for call in calls}


@pytest.mark.requirement("openapi:every-route")
def test_every_route_is_described_and_nothing_else_is() -> None:
    described = {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert described == served()


def test_every_operation_has_a_name_of_its_own_and_a_family() -> None:
    operations = [operation for methods in DOCUMENT["paths"].values() for operation in methods.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    assert {tag for operation in operations for tag in operation["tags"]} == {tag["name"] for tag in DOCUMENT["tags"]}


@pytest.mark.requirement("openapi:every-route")
def test_every_variable_part_of_a_path_is_described() -> None:
    for path, methods in DOCUMENT["paths"].items():
        for operation in methods.values():
            named = {each["name"] for each in operation.get("parameters", []) if each["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path))


@pytest.mark.requirement("openapi:described-by-what-validates")
def test_a_run_completion_is_described_with_the_errors_of_its_own() -> None:
    operation = DOCUMENT["paths"]["/run/v1/chat/completions"]["post"]
    described = DOCUMENT["components"]["schemas"]["RunCompletionRequest"]
    assert set(described["properties"]) == set(RunCompletionRequest.model_fields)
    assert described["required"] == ["model", "messages"]
    bodies = {
        status: {media: next(references(each)).rsplit("/", 1)[-1] for media, each in answer["content"].items()}
        for status, answer in operation["responses"].items()
    }
    problem = {"application/problem+json": "Problem"}
    assert bodies.pop("200") == {"application/json": "Completion", "text/event-stream": "Chunk"}
    assert bodies.pop("400") == {"application/json": "InvalidOut"}
    assert bodies.pop("404") == {"application/json": "MissingOut"}
    assert bodies.pop("500") == {"application/json": "FailedOut"}
    assert dict.fromkeys(bodies, problem) == bodies
    assert {"401", "403", "409", "422", "429", "503"} <= bodies.keys()
    assert "`conflict`" in operation["responses"]["409"]["description"]


@pytest.mark.requirement("openapi:described-by-what-validates")
def test_a_background_run_is_described_by_what_validates_it() -> None:
    operation = DOCUMENT["paths"]["/v1/executions"]["post"]
    assert set(DOCUMENT["components"]["schemas"]["BackgroundRequest"]["properties"]) == set(
        BackgroundRequest.model_fields
    )
    assert {"Location", "Idempotency-Replayed"} < set(operation["responses"]["202"]["headers"])
    assert {int(status) for status in operation["responses"]} == {
        *(202, 400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503),
    }


@pytest.mark.requirement("openapi:described-by-what-validates")
@pytest.mark.parametrize(
    ("method", "path", "names"),
    [
        ("post", "/v1/chat/completions", {"Idempotency-Key", "Last-Event-ID"}),
        ("post", "/v1/chat/resume", {"Idempotency-Key", "Last-Event-ID"}),
        ("post", "/v1/executions", {"Idempotency-Key"}),
        ("get", "/v1/executions", {"status", "conversation_id", "cursor", "limit"}),
        ("get", "/v1/executions/{id}/stream", {"id", "Last-Event-ID"}),
        ("get", "/v1/events", {"types", "Last-Event-ID"}),
    ],
)
def test_what_a_request_says_beside_its_body_is_described(method: str, path: str, names: set[str]) -> None:
    assert {each["name"] for each in DOCUMENT["paths"][path][method]["parameters"]} == names


@pytest.mark.requirement("openapi:described-by-what-validates")
def test_every_event_of_an_execution_is_described_with_its_type() -> None:
    answer = DOCUMENT["paths"]["/v1/executions/{id}/stream"]["get"]["responses"]["200"]
    data = answer["content"]["text/event-stream"]["schema"]["properties"]["data"]
    names = [each["$ref"].rsplit("/", 1)[-1] for each in data["contentSchema"]["oneOf"]]
    types = {DOCUMENT["components"]["schemas"][name]["properties"]["type"]["enum"][0] for name in names}
    assert types == {
        *("turn.started", "text.delta", "reasoning.delta", "call.requested", "turn.held", "turn.ended", "error"),
    }


@pytest.mark.requirement("openapi:described-by-what-validates")
def test_resuming_is_described_with_what_may_become_of_an_approval() -> None:
    operation = DOCUMENT["paths"]["/v1/chat/resume"]["post"]
    described = DOCUMENT["components"]["schemas"]["ResumeRequest"]
    assert set(described["properties"]) == set(ResumeRequest.model_fields)
    assert described["required"] == ["model", "approval_id", "approved_tool_execution_ids"]
    for status in ("404", "409", "410"):
        assert "approval." in operation["responses"][status]["description"]
    assert "x-should-retry" in operation["responses"]["409"]["headers"]


def test_fields_carry_what_the_code_says_of_them() -> None:
    kitemesh = DOCUMENT["components"]["schemas"]["KitemeshOut"]
    assert kitemesh["description"] == "This server's own words."
    assert kitemesh["properties"]["conversation_id"]["description"] == "Absent when none is kept."


def test_the_document_is_json() -> None:
    assert json.loads(json.dumps(DOCUMENT))["openapi"] == "3.1.0"


class Page(HTMLParser):
    """What a browser would load or follow."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given: dict[str, Any] = dict(attrs)
        self.anchors.add(given.get("id", ""))
        self.links += [given[name] for name in ("href", "src") if name in given]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def page() -> Page:
    parsed = Page()
    parsed.feed(render(DOCUMENT))
    return parsed


@pytest.mark.requirement("openapi:docs-page-is-inert")
def test_the_page_loads_nothing_and_runs_nothing(page: Page) -> None:
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert all(link == "/openapi.json" or link.removeprefix("#") in page.anchors for link in page.links)
    assert "unsafe" not in SECURITY_POLICY


def test_the_page_names_every_route_and_field(page: Page) -> None:
    for path in DOCUMENT["paths"]:
        assert path in page.text
    for schema in DOCUMENT["components"]["schemas"].values():
        for field in schema.get("properties", {}):
            assert field in page.text


def test_the_style_is_the_one_that_the_policy_allows() -> None:
    assert re.fullmatch(r"default-src 'none'; style-src 'sha256-[\w+/=]{44}'; .*", SECURITY_POLICY)


@pytest.mark.requirement("openapi:docs-page-is-inert")
def test_text_of_the_document_cannot_become_markup() -> None:
    hostile = json.loads(json.dumps(DOCUMENT))
    hostile["info"]["title"] = "<script>alert(1)</script>"
    assert "<script>" not in render(hostile)


def test_whoever_has_only_the_page_can_begin(page: Page) -> None:
    assert "http://localhost:8002/v1" in page.text
    assert 'curl http://localhost:8002/v1/chat/completions \\\n  -H "Authorization: Bearer $KEY"' in page.text
    for header in ("x-request-id", "x-execution-id", "x-conversation-id", "Server-Timing", "Retry-After"):
        assert header in page.text


def test_every_operation_has_a_name_of_its_own_and_is_in_the_index(page: Page) -> None:
    names = [operation["operationId"] for methods in DOCUMENT["paths"].values() for operation in methods.values()]
    assert len(set(names)) == len(names)
    assert {f"#{name}" for name in names} <= set(page.links)


def test_every_code_that_a_client_may_be_told_comes_with_advice_and_its_name_in_the_logs(page: Page) -> None:
    assert set(ErrorCode) - set(ADVICE) == {ErrorCode.STALE, ErrorCode.DUPLICATE}
    assert "model_not_found404model.unknown" + ADVICE[ErrorCode.MODEL_UNKNOWN].replace("`", "") in page.text
    assert "request.invalid400" + ADVICE[ErrorCode.REQUEST_INVALID].replace("`", "") in page.text


def test_no_value_is_shown_that_is_never_sent() -> None:
    assert "<code></code>" not in render(DOCUMENT)
    schemas = DOCUMENT["components"]["schemas"]
    assert schemas["DeltaOut"]["properties"]["role"] == {"enum": ["assistant"]}
