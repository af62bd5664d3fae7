import pytest

from kitemesh_gateway.dialects.completions import Completions
from kitemesh_gateway.dialects.native import Native
from kitemesh_gateway.exchange import Endpoint, Exchange
from kitemesh_gateway.routing import Router

DIALECT, FALLBACK, NATIVE = Completions(), Completions(), Native()


async def handle(exchange: Exchange) -> None:
    raise AssertionError("routes are only looked up here")


ROUTER = Router(
    [
        Endpoint("POST", "/v1/chat", DIALECT, handle, "chat"),  # type: ignore[arg-type]
        Endpoint("GET", "/v1/models", DIALECT, handle, "models"),  # type: ignore[arg-type]
        Endpoint("GET", "/v1/models/{+id}", DIALECT, handle, "models"),  # type: ignore[arg-type]
        Endpoint("GET", "/v1/approvals", NATIVE, handle, "approvals"),  # type: ignore[arg-type]
        Endpoint("GET", "/v1/approvals/{id}", NATIVE, handle, "approvals"),  # type: ignore[arg-type]
        Endpoint("POST", "/v1/approvals/{id}/decide", NATIVE, handle, "approvals"),  # type: ignore[arg-type]
    ],
    fallback=FALLBACK,
)


@pytest.mark.parametrize(
    ("method", "path", "route", "tail"),
    [
        ("POST", "/v1/chat", "/v1/chat", ""),
        ("GET", "/v1/models", "/v1/models", ""),
        ("HEAD", "/v1/models", "/v1/models", ""),
        ("GET", "/v1/models/group:1", "/v1/models/{+id}", "group:1"),
        ("GET", "/v1/models/org/name:tag", "/v1/models/{+id}", "org/name:tag"),
        ("GET", "/v1/approvals", "/v1/approvals", ""),
        ("GET", "/v1/approvals/a-1", "/v1/approvals/{id}", "a-1"),
        ("HEAD", "/v1/approvals/a-1", "/v1/approvals/{id}", "a-1"),
        ("GET", "/v1/approvals/decide", "/v1/approvals/{id}", "decide"),
        ("POST", "/v1/approvals/a-1/decide", "/v1/approvals/{id}/decide", "a-1"),
    ],
)
def test_a_path_leads_to_its_endpoint(method: str, path: str, route: str, tail: str) -> None:
    found = ROUTER.find(method, path)
    assert found.endpoint is not None
    assert (found.endpoint.path, found.tail, found.label) == (route, tail, found.endpoint.label)


@pytest.mark.parametrize("path", ["/", "", "/v1", "/v1/chat/", "/v1/models/", "//v1/chat", "*"])
def test_an_unknown_path_leads_nowhere_and_is_refused_in_the_fallbacks_words(path: str) -> None:
    found = ROUTER.find("GET", path)
    assert (found.endpoint, found.allowed, found.label) == (None, (), "none")
    assert found.dialect is FALLBACK


def test_a_known_path_names_its_methods_to_the_wrong_one() -> None:
    found = ROUTER.find("DELETE", "/v1/models")
    assert found.endpoint is None
    assert (found.allowed, found.label) == (("GET", "HEAD"), "models")
    assert found.dialect is DIALECT


@pytest.mark.parametrize(
    "path",
    [
        "/v1/approvals/",
        "/v1/approvals/a/b",
        "/v1/approvals/a/",
        "/v1/approvals/a.b",
        "/v1/approvals/*",
        "/v1/approvals/a\n",
        "/v1/approvals/" + "a" * 65,
        "/v1/approvals//decide",
        "/v1/approvals/decide/",
        "/v1/approvals/a/b/decide",
        "/v1/approvals/a:b/decide",
        "/v1/approvals/ü/decide",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_is_no_id_leads_nowhere_and_is_refused_in_the_routes_own_words(method: str, path: str) -> None:
    found = ROUTER.find(method, path)
    assert (found.endpoint, found.allowed, found.tail, found.label) == (None, (), "", "none")
    assert found.dialect is NATIVE


def test_a_path_with_an_id_names_its_methods_to_the_wrong_one() -> None:
    found = ROUTER.find("GET", "/v1/approvals/a-1/decide")
    assert (found.endpoint, found.allowed, found.label) == (None, ("POST",), "approvals")
    assert ROUTER.find("POST", "/v1/approvals/a-1").allowed == ("GET", "HEAD")
