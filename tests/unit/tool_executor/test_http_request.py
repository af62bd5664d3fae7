"""From a templated URL and hostile arguments to a request whose origin and path are the definition's."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitemesh_tool_executor.http_request import BadTemplate, Template, Unfit


def url(template: str, arguments: dict[str, Any], method: str = "POST", query: tuple[str, ...] = ()) -> str:
    return str(Template(template).render(method, query, arguments).url)


@pytest.mark.parametrize(
    ("template", "arguments", "expected"),
    [
        ("https://a.example", {}, "https://a.example/"),
        ("https://a.example:8443/x", {}, "https://a.example:8443/x"),
        ("https://[2606:4700::1]/x", {}, "https://[2606:4700::1]/x"),
        ("https://a.example/u/{{id}}", {"id": "7"}, "https://a.example/u/7"),
        ("https://a.example/u/{{id}}/x", {"id": "a b"}, "https://a.example/u/a%20b/x"),
        ("https://a.example/u/{{id}}", {"id": "a/b?c#d%e"}, "https://a.example/u/a%2Fb%3Fc%23d%25e"),
        ("https://a.example/u/{{id}}", {"id": "@evil.example"}, "https://a.example/u/%40evil.example"),
        ("https://a.example/u/{{id}}", {"id": "…"}, "https://a.example/u/%E2%80%A6"),
        ("https://a.example/u/{{id}}", {"id": 3}, "https://a.example/u/3"),
        ("https://a.example/u/{{id}}", {"id": True}, "https://a.example/u/true"),
        ("https://a.example/u/{{id}}", {"id": "..."}, "https://a.example/u/..."),
        ("https://a.example/{{a}}-{{b}}", {"a": "x", "b": "y"}, "https://a.example/x-y"),
        ("https://a.example/s?q={{q}}&k=1", {"q": "a&b=c #"}, "https://a.example/s?q=a%26b%3Dc%20%23&k=1"),
        ("https://a.example/s?q={{q}}", {"q": ""}, "https://a.example/s?q="),
        ("https://a.example?q={{q}}", {"q": "x"}, "https://a.example/?q=x"),
        ("https://a.example/%2e%2e/x", {}, "https://a.example/%2e%2e/x"),
    ],
)
def test_an_argument_fills_one_place(template: str, arguments: dict[str, Any], expected: str) -> None:
    assert url(template, arguments) == expected


@pytest.mark.parametrize(
    "value",
    [
        *("", ".", "..", "../admin", "a/../..", "..\\admin", "%2e%2e", "%2E.", "x/%2e%2e/y"),
        *("\n", "a\r\nX: y", "\x00", None, [], {}, ["a"], {"a": 1}),
    ],
)
def test_an_argument_that_could_change_the_path_is_refused(value: Any) -> None:
    with pytest.raises(Unfit):
        url("https://a.example/u/{{id}}/delete", {"id": value})


def test_dots_may_not_come_together_from_the_definition_and_an_argument() -> None:
    with pytest.raises(Unfit):
        url("https://a.example/u/.{{id}}", {"id": "."})
    with pytest.raises(Unfit):
        url("https://a.example/u/%2e{{id}}", {"id": "."})
    with pytest.raises(Unfit):
        url("https://a.example/u/{{a}}{{b}}", {"a": ".", "b": "."})


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(Unfit, match="The argument id is missing"):
        url("https://a.example/u/{{id}}", {})


@given(st.text())
def test_no_text_escapes_its_segment(text: str) -> None:
    try:
        rendered = Template("https://a.example/u/{{id}}/x?k=1").render("GET", (), {"id": text}).url
    except Unfit:
        return
    assert rendered.host == "a.example"
    assert rendered.raw_path.count("/") == 3
    assert rendered.raw_path.startswith("/u/")
    assert rendered.raw_path.endswith("/x")
    assert rendered.raw_query_string == "k=1"
    assert rendered.path_safe.split("/")[2] not in {".", ".."}


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.booleans() | st.none()))
def test_no_argument_reaches_the_authority_or_the_path(arguments: dict[str, Any]) -> None:
    rendered = Template("https://a.example/u").render("GET", (), arguments).url
    assert (rendered.host, rendered.raw_path, rendered.raw_fragment) == ("a.example", "/u", "")


@pytest.mark.parametrize(
    ("method", "query", "arguments", "expected", "body"),
    [
        ("GET", (), {"b": 1, "a": "x y"}, "https://a.example/7?a=x%20y&b=1", None),
        ("GET", ("b",), {"b": 1, "a": 2}, "https://a.example/7?b=1&a=2", None),
        ("GET", (), {"a": ["x", 2], "b": None}, "https://a.example/7?a=x&a=2", None),
        ("GET", (), {"a": {"k": 1}}, "https://a.example/7?a=%7B%22k%22%3A1%7D", None),
        ("POST", (), {}, "https://a.example/7", b"{}"),
        ("POST", ("q",), {"q": "x", "b": 1, "a": None}, "https://a.example/7?q=x", b'{"a":null,"b":1}'),
        ("DELETE", (), {}, "https://a.example/7", None),
        ("DELETE", (), {"why": "x"}, "https://a.example/7", b'{"why":"x"}'),
    ],
)
def test_what_the_url_does_not_use_goes_into_the_query_or_the_body(
    method: str, query: tuple[str, ...], arguments: dict[str, Any], expected: str, body: bytes | None
) -> None:
    request = Template("https://a.example/{{id}}").render(method, query, {"id": 7, **arguments})
    assert (str(request.url), request.body) == (expected, body)


def test_an_address_has_a_bound() -> None:
    with pytest.raises(Unfit, match="too long"):
        url("https://a.example/{{id}}", {"id": "x" * 9000})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.example/x",
        "ftp://a.example/",
        "https:///x",
        "https://user@a.example/",
        "https://user:secret@a.example/",
        "https://a.example@127.0.0.1/",
        "https://{{host}}/",
        "https://a.{{host}}/",
        "https://a.example:{{port}}/",
        "https://a.example{{x}}/",
        "https://a.example:99999/",
        "https://a.example\\@evil.example/",
        "https://a.example/x#y",
        "https://a.example/\\x",
        "https://a.example/{{x y}}",
        "https://a.example/{x}",
        "https://a.example/{{x}",
        "https://a.example/a b",
        "https://a.example/\n",
        "https://a.example/x\nHost: evil",
        "https://[::1/x",
        "https://a.example /x",
    ],
)
def test_a_url_that_is_no_fixed_origin_is_refused(text: str) -> None:
    with pytest.raises(BadTemplate):
        Template(text)


def test_a_template_knows_whether_it_is_plain() -> None:
    assert Template("http://a.example/").plain
    assert not Template("https://a.example/").plain
