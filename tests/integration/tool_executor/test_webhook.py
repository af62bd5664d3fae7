"""Webhooks against a real server: what is told, how it is signed, and what is told again."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from aiohttp import web

from integration.tool_executor.http_rig import LOOPBACK, call, catalog
from kitemesh_cli import servers
from kitemesh_contracts.errors import ErrorCode
from kitemesh_runtime.catalog_tools import Webhook
from kitemesh_tool_executor.tool import CallFailed, Tool
from kitemesh_tool_executor.tool_webhook import WebhookKind, sign, webhook_definition
from tool_stub import ToolStub, start_tool_stub


class Noon:
    """A clock that stands still."""

    def monotonic(self) -> float:
        return 0.0

    def now_ms(self) -> int:
        return 1_700_000_000_999

    def new_id(self) -> str:
        return "id"


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToolStub]:
    with start_tool_stub(tmp_path_factory.mktemp("webhook-stub")) as stub:
        yield stub


@pytest.fixture
async def kind(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[WebhookKind]:
    monkeypatch.setenv("HOOK_SECRET", "a secret")
    async with WebhookKind(Noon()) as kind:
        yield kind


def hook(url: str, **more: Any) -> dict[str, Any]:
    secret = {"env": "HOOK_SECRET"}
    return {"url": url, "events": ["turn.failed"], "secret": secret, "allow_networks": LOOPBACK, **more}


def tool(kind: WebhookKind, url: str, **more: Any) -> Tool:
    return kind.tool("webhook_w", catalog(webhooks={"w": hook(url, **more)}))


async def failure_of(tool: Tool, *, timeout_s: float = 5.0) -> CallFailed:
    async with asyncio.timeout(20):
        with pytest.raises(CallFailed) as caught:
            await tool.run(call('{"a":1}', effect="keyed", timeout_s=timeout_s))
    return caught.value


async def test_a_webhook_tells_its_arguments_signed_with_the_time(kind: WebhookKind) -> None:
    seen: asyncio.Queue[tuple[web.Request, bytes]] = asyncio.Queue()

    async def receive(request: web.Request) -> web.Response:
        seen.put_nowait((request, await request.read()))
        return web.Response(status=202, text="ignored")

    app = web.Application()
    app.router.add_post("/hook", receive)
    runner = web.AppRunner(app)
    await runner.setup()
    port = servers.free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        async with asyncio.timeout(10):
            made = tool(kind, f"http://127.0.0.1:{port}/hook?k=1")
            assert await made.run(call('{"a":"é"}', id="hook-1", effect="keyed")) == ""
            request, body = await seen.get()
    finally:
        await runner.cleanup()
    assert request.raw_path == "/hook?k=1"
    assert body == '{"a":"é"}'.encode()
    headers = request.headers
    assert headers["Content-Type"] == "application/json"
    assert headers["Idempotency-Key"] == headers["x-kitemesh-execution-id"] == "hook-1"
    assert headers["x-kitemesh-timestamp"] == "1700000000"
    digest = hmac.new(b"a secret", b"1700000000." + body, hashlib.sha256).hexdigest()
    assert headers["x-kitemesh-signature"] == f"sha256={digest}"


def test_a_signature_is_the_documented_one() -> None:
    assert sign("key", "1700000000", b'{"a":1}') == (
        "sha256=" + hmac.new(b"key", b'1700000000.{"a":1}', "sha256").hexdigest()
    )


@pytest.mark.parametrize(
    ("mode", "again", "retry_after_s"),
    [
        ("404", True, None),
        ("500", True, None),
        ("503&retry_after=9", True, 9.0),
        ("redirect&to=/x", True, None),
        ("drop", True, None),
    ],
)
async def test_a_webhook_that_failed_is_told_again(
    kind: WebhookKind, stub: ToolStub, mode: str, again: bool, retry_after_s: float | None
) -> None:
    failed = await failure_of(tool(kind, f"{stub.url}/hook?mode={mode}"))
    assert (failed.code, failed.sent) == (ErrorCode.TOOL_FAILED, True)
    assert (failed.again, failed.retry_after_s) == (again, retry_after_s)
    assert "own words" not in failed.message


async def test_a_receiver_that_has_gone_for_good_is_told_nothing_more(kind: WebhookKind, stub: ToolStub) -> None:
    failed = await failure_of(tool(kind, f"{stub.url}/hook?mode=410"))
    assert (failed.message, failed.again) == ("The tool answered 410", False)


async def test_a_receiver_that_hangs_is_told_again(kind: WebhookKind, stub: ToolStub) -> None:
    failed = await failure_of(tool(kind, f"{stub.url}/hook?mode=hang"), timeout_s=0.3)
    assert (failed.code, failed.sent, failed.again) == (ErrorCode.TOOL_TIMEOUT, True, True)


async def test_without_its_secret_nothing_is_told_until_it_is_there(kind: WebhookKind, stub: ToolStub) -> None:
    before = len(stub.effects())
    failed = await failure_of(tool(kind, f"{stub.url}/hook", secret={"env": "NO_SUCH_VARIABLE"}))
    assert (failed.message, failed.sent, failed.again) == ("The tool is not configured", False, True)
    assert len(stub.effects()) == before


async def test_without_allowed_networks_only_public_addresses_are_told(kind: WebhookKind, stub: ToolStub) -> None:
    before = len(stub.effects())
    failed = await failure_of(tool(kind, f"{stub.url}/hook", allow_networks=[]))
    assert (failed.code, failed.sent, failed.again) == (ErrorCode.TOOL_BLOCKED, False, False)
    assert len(stub.effects()) == before


async def test_a_large_answer_to_a_webhook_is_not_read(kind: WebhookKind, stub: ToolStub) -> None:
    assert await tool(kind, f"{stub.url}/hook?mode=huge").run(call(effect="keyed")) == ""


def test_a_webhook_is_defined_like_any_tool() -> None:
    def version(**more: Any) -> str:
        return webhook_definition(Webhook.model_validate({**hook("https://a.example/"), **more})).version()

    defined = webhook_definition(Webhook.model_validate(hook("https://a.example/", timeout_s=3, pool="p")))
    assert (defined.kind, defined.effects(), defined.pool, defined.timeout_s) == ("webhook", "keyed", "p", 3)
    assert defined.parameters == {"type": "object"}
    assert version() == version(events=["turn.finished"], tenants=["x"], pool="other")
    assert version() != version(url="https://b.example/")
    assert json.dumps(defined.parameters)
