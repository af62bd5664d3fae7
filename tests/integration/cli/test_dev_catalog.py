from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from kitemesh_cli import dev_catalog
from kitemesh_cli.dev_catalog import prepare


class Endpoint:
    """An OpenAI-compatible endpoint that lists models, or fails to."""

    def __init__(self) -> None:
        self.answer: Callable[[], web.Response] = web.Response
        self.credentials: list[str | None] = []
        self.base_url = ""

    async def models(self, request: web.Request) -> web.Response:
        self.credentials.append(request.headers.get("Authorization"))
        return self.answer()


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    endpoint = Endpoint()
    app = web.Application()
    app.add_routes([web.get("/v1/models", endpoint.models)])
    async with TestServer(app) as server:
        endpoint.base_url = str(server.make_url("/v1"))
        yield endpoint


@pytest.mark.requirement("start:openai-needs-no-configuration")
async def test_every_usable_model_that_is_listed_is_offered(endpoint: Endpoint, tmp_path: Path) -> None:
    listing = {"object": "list", "data": [{"id": "m-1"}, {"id": "a b"}, {"id": "m-2"}]}
    endpoint.answer = lambda: web.json_response(listing)
    environ = {"OPENAI_API_KEY": "sk-secret", "OPENAI_BASE_URL": endpoint.base_url + "/"}
    found = await prepare(None, tmp_path / "catalog.yaml", environ)
    assert set(found.catalog.models) == {"scripted", "m-1", "m-2"}
    assert endpoint.credentials == ["Bearer sk-secret"]
    assert "sk-secret" not in found.path.read_text()
    assert endpoint.base_url in found.note
    assert found.real_model == found.catalog.default_model == "m-1"
    assert found.catalog.resolve("agent:assistant").models == ("m-1",)


async def test_the_model_that_is_named_is_chosen_and_what_does_not_chat_is_left_out(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    ids = ["text-embedding-3-small", "gpt-4o-mini", "tts-1", "mine"]
    endpoint.answer = lambda: web.json_response({"data": [{"id": each} for each in ids]})
    environ = {"OPENAI_API_KEY": "sk-secret", "OPENAI_BASE_URL": endpoint.base_url}
    found = await prepare(None, tmp_path / "catalog.yaml", environ)
    assert set(found.catalog.models) == {"scripted", "gpt-4o-mini", "mine"}
    assert found.real_model == "gpt-4o-mini"
    named = await prepare(None, tmp_path / "catalog.yaml", {**environ, "OPENAI_MODEL": "mine"})
    assert named.catalog.default_model == named.real_model == "mine"


async def test_an_endpoint_without_a_model_that_chats_leaves_the_scripted_one_and_says_so(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.answer = lambda: web.json_response({"data": [{"id": "text-embedding-3-small"}]})
    found = await prepare(None, tmp_path / "catalog.yaml", {"OPENAI_BASE_URL": endpoint.base_url})
    assert set(found.catalog.models) == {"scripted"}
    assert found.real_model is None
    assert "OPENAI_MODEL" in found.note


async def test_an_endpoint_that_needs_no_key_is_asked_without_one(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.answer = lambda: web.json_response({"data": [{"id": "local"}]})
    found = await prepare(None, tmp_path / "catalog.yaml", {"OPENAI_BASE_URL": endpoint.base_url})
    assert "local" in found.catalog.models
    assert endpoint.credentials == [None]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda: web.Response(status=401), "status 401"),
        (lambda: web.Response(text="<html>"), "not a list of models"),
        (lambda: web.json_response({"models": []}), "not a list of models"),
    ],
)
async def test_where_models_are_not_listed_one_is_assumed_and_that_is_said(
    endpoint: Endpoint, tmp_path: Path, answer: Callable[[], web.Response], said: str
) -> None:
    endpoint.answer = answer
    environ = {"OPENAI_API_KEY": "sk-secret", "OPENAI_BASE_URL": endpoint.base_url}
    found = await prepare(None, tmp_path / "catalog.yaml", environ)
    assert set(found.catalog.models) == {"scripted", dev_catalog.FALLBACK_MODEL}
    assert said in found.note
    named = await prepare(None, tmp_path / "catalog.yaml", {**environ, "OPENAI_MODEL": "mine"})
    assert set(named.catalog.models) == {"scripted", "mine"}


async def test_an_endpoint_that_is_not_there_does_not_prevent_the_start(tmp_path: Path) -> None:
    found = await prepare(None, tmp_path / "catalog.yaml", {"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"})
    assert dev_catalog.FALLBACK_MODEL in found.catalog.models
    assert "did not list" in found.note
    assert "ssl" not in found.note
