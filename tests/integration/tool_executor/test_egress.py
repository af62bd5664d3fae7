"""P21: a corpus of hostile addresses against every way out; canaries on loopback must never hear a connection."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from integration.tool_executor.http_rig import LOOPBACK, call, catalog
from kitemesh_contracts.errors import ErrorCode
from kitemesh_runtime.clock import SystemClock
from kitemesh_tool_executor.tool import CallFailed, Kind, Tool
from kitemesh_tool_executor.tool_http import HttpKind
from kitemesh_tool_executor.tool_mcp import McpKind
from kitemesh_tool_executor.tool_webhook import WebhookKind
from mcp_stub import NOTE
from tool_stub import ToolStub, start_tool_stub

NAMES = {
    "loopback.example": ["127.0.0.1"],
    "loopback6.example": ["::1"],
    "both.example": ["127.0.0.1", "::1"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "nat64.example": ["64:ff9b::7f00:1"],
    "sixtofour.example": ["2002:7f00:1::"],
    "metadata.example": ["169.254.169.254"],
    "zero.example": ["0.0.0.0"],
    "odd.example": ["0x7f.1"],
    "name.example": ["localhost"],
    "private.example": ["10.0.0.1", "192.168.0.1", "fd00::1"],
    "local.example.": ["127.0.0.1"],
}
HOSTS = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "2130706433",
    "0177.0.0.1",
    "017700000001",
    "0x7f.0.0.1",
    "0x7f000001",
    "0",
    "0.0.0.0",
    "localhost",
    "localhost.",
    "LOCALHOST",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[fec0::1]",
    "[fe80::1]",
    "①②⑦.⓪.⓪.①",
    "public.example@127.0.0.1",
    "127.0.0.1\\@public.example",
    "127.0.0.1#@public.example",
    *NAMES,
]


class Canaries:
    """Listeners on both loopback addresses at one port.

    Attributes:
        heard: Connections so far.

    """

    def __init__(self) -> None:
        self.heard = 0
        self.port = 0

    def on_connect(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard += 1
        writer.close()


class Resolver(AbstractResolver):
    """Knows the corpus' names, and sends everything else to loopback, as a hostile one would."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in NAMES.get(host, ["127.0.0.1", "::1"])
        ]

    async def close(self) -> None:
        pass


@pytest.fixture
async def canaries() -> AsyncIterator[Canaries]:
    canaries = Canaries()
    four = await asyncio.start_server(canaries.on_connect, "127.0.0.1", 0)
    canaries.port = four.sockets[0].getsockname()[1]
    six = await asyncio.start_server(canaries.on_connect, "::1", canaries.port)
    async with four, six:
        yield canaries


WAYS = ("http", "mcp", "webhook")


def kind_of(way: str) -> Kind:
    resolver = Resolver()
    return (
        {"http": HttpKind, "mcp": McpKind}[way](resolver) if way != "webhook" else WebhookKind(SystemClock(), resolver)
    )


def made(kind: Kind, way: str, url: str, networks: list[str]) -> Tool:
    if way == "http":
        return kind.tool("t", catalog(tools={"t": {"kind": "http", "url": url, "allow_networks": networks}}))
    if way == "mcp":
        tools = {"t": {"kind": "mcp", "server": "s", **NOTE}}
        return kind.tool("t", catalog(tools=tools, servers={"s": {"url": url, "allow_networks": networks}}))
    hook = {"url": url, "events": ["turn.failed"], "secret": {"env": "HOOK_SECRET"}, "allow_networks": networks}
    return kind.tool("webhook_w", catalog(webhooks={"w": hook}))


async def failure_of(tool: Tool) -> CallFailed:
    async with asyncio.timeout(20):
        with pytest.raises(CallFailed) as caught:
            await tool.run(call('{"text":"x"}', timeout_s=10))
    return caught.value


@pytest.mark.parametrize("way", WAYS)
async def test_nothing_connects_to_an_address_that_is_not_allowed(
    canaries: Canaries, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_SECRET", "s")
    codes: dict[str, ErrorCode] = {}
    for scheme in ("https", "http"):
        for networks in ([], ["10.99.0.0/16", "fd99::/16"]):
            async with kind_of(way) as kind:
                for host in HOSTS:
                    url = f"{scheme}://{host}:{canaries.port}/x"
                    failed = await failure_of(made(kind, way, url, networks))
                    assert not failed.sent, url
                    codes[url] = failed.code
    assert canaries.heard == 0
    assert set(codes.values()) <= {ErrorCode.TOOL_BLOCKED, ErrorCode.TOOL_FAILED}
    for host in ("127.0.0.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "localhost", "both.example"):
        assert codes[f"https://{host}:{canaries.port}/x"] is ErrorCode.TOOL_BLOCKED, host


@pytest.mark.parametrize("way", WAYS)
async def test_the_canaries_hear_what_is_allowed(canaries: Canaries, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", "s")
    async with kind_of(way) as kind:
        failed = await failure_of(made(kind, way, f"http://both.example:{canaries.port}/x", LOOPBACK))
    assert failed.code is ErrorCode.TOOL_FAILED
    assert canaries.heard > 0


@pytest.mark.parametrize("way", WAYS)
async def test_a_definition_profits_from_no_other_ones_networks(
    canaries: Canaries, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_SECRET", "s")
    url = f"http://both.example:{canaries.port}/x"
    async with kind_of(way) as kind:
        await failure_of(made(kind, way, url, LOOPBACK))
        heard = canaries.heard
        failed = await failure_of(made(kind, way, url, ["10.0.0.0/8"]))
    assert failed.code is ErrorCode.TOOL_BLOCKED
    assert canaries.heard == heard


@pytest.mark.parametrize("way", WAYS)
async def test_a_redirect_to_a_private_address_is_not_followed(
    canaries: Canaries, way: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_SECRET", "s")
    with start_tool_stub(tmp_path_factory.mktemp("redirect")) as stub:
        for target in (f"http://127.0.0.1:{canaries.port}/", f"//[::1]:{canaries.port}/", "/elsewhere"):
            async with kind_of(way) as kind:
                failed = await failure_of(made(kind, way, f"{stub.url}/x?mode=redirect&to={target}", LOOPBACK))
            assert failed.code is ErrorCode.TOOL_FAILED
            assert "canary" not in failed.message
            assert str(canaries.port) not in failed.message
        assert {line["path"].partition("?")[0] for line in stub.effects()} == {"/x"}
    assert canaries.heard == 0


@pytest.mark.parametrize("way", WAYS)
async def test_no_proxy_of_the_environment_is_used(
    canaries: Canaries, way: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_SECRET", "s")
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{canaries.port}")
    with start_tool_stub(tmp_path_factory.mktemp("proxy")) as stub:
        async with kind_of(way) as kind:
            await _ran(made(kind, way, f"{stub.url}/x?mode=404", LOOPBACK), stub)
    assert canaries.heard == 0


async def _ran(tool: Tool, stub: ToolStub) -> None:
    await failure_of(tool)
    assert stub.effects()
