"""What goes wrong at the edges: providers, clients, people, webhooks, the catalog file, and releases."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from cluster import GROUP
from observed.catalog import ALONE, FALLING, FIRST, MISTAKEN
from observed.fault import Fault, beside, keep
from observed.load import CHAT, Client, chat
from observed.stage import Stage, target
from tool_cluster import calling, make_keys

SLOW_CLIENTS: Final = 8
OTHER_RELEASE: Final = "999.0.0"
LEAK_BYTES: Final = 1024 * 1024
LEAK_EVERY_S: Final = 0.1
LEAK_MAX: Final = 700
HELD_S: Final = 30.0
AGAIN_S: Final = 0.5

_METADATA: Final = "Metadata-Version: 2.1\nName: kitemesh-runtime\nVersion: {version}\n"
_LEAK: Final = """\
import threading, time
kept = []
def leak():
    while len(kept) < {most}:
        kept.append(bytearray(b"x") * {size})
        time.sleep({every_s})
threading.Thread(target=leak, daemon=True).start()
"""


@contextlib.asynccontextmanager
async def provider_fails(stage: Stage, client: Client) -> AsyncIterator[None]:
    """Answer 500 to every call of two models; another model of one's group answers in its place."""
    models = (FIRST, ALONE)
    for model in models:
        await stage.upstream.plan("broken", model=f"ok?mark={model}")
    try:
        async with beside(
            keep(lambda: client.call(CHAT, chat("Hello", FALLING)), every_s=0.15),
            keep(lambda: client.call(CHAT, chat("Hello", ALONE)), every_s=0.15),
        ):
            yield
    finally:
        for model in models:
            await stage.upstream.plan("", model=f"ok?mark={model}")


@contextlib.asynccontextmanager
async def provider_is_slow(_stage: Stage, client: Client) -> AsyncIterator[None]:
    """Begin streams whose model thinks for a dozen seconds before its first word."""
    async with beside(keep(lambda: client.call(CHAT, chat("@first_ms 11000\n@echo late", stream=True)), every_s=0.8)):
        yield


@contextlib.asynccontextmanager
async def clients_do_not_read(stage: Stage, _client: Client) -> AsyncIterator[None]:
    """Ask for long streams and read none of them."""
    at = urlsplit(stage.cluster.origin)
    assert at.hostname
    body = json.dumps(chat("@tokens 100000\n@delay_ms 0", GROUP, stream=True)).encode()
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: observed\r\nAuthorization: Bearer {stage.cluster.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with contextlib.ExitStack() as stack:
        for _ in range(SLOW_CLIENTS):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect((at.hostname, at.port))
            sock.sendall(head.encode() + body)
        yield


def pay(client: Client) -> dict[str, Any]:
    """Return a chat body whose call is held."""
    return chat(calling(("pay", {"id": client.name()})), "agent:clerk")


@contextlib.asynccontextmanager
async def nobody_decides(_stage: Stage, client: Client) -> AsyncIterator[None]:
    """Leave a hold open."""
    # What else goes wrong at the same time may cost this turn, too: then another one is asked for.
    async with asyncio.timeout(HELD_S):
        held = await client.call(CHAT, pay(client))
        while "kitemesh" not in held:
            await asyncio.sleep(AGAIN_S)
            held = await client.call(CHAT, pay(client))
    yield
    await client.call(f"/v1/executions/{held['kitemesh']['execution_id']}/cancel", {})


@contextlib.asynccontextmanager
async def webhook_leads_astray(stage: Stage, client: Client) -> AsyncIterator[None]:
    """Have a turn of the tenant whose webhook leads to an address that is not allowed."""
    (key,) = await asyncio.to_thread(make_keys, stage.cluster, (MISTAKEN, ("chat",)))
    mine = {"Authorization": f"Bearer {key}"}
    async with beside(keep(lambda: client.call(CHAT, chat("Hello"), **mine), every_s=1.0)):
        yield


@contextlib.asynccontextmanager
async def catalog_is_broken(stage: Stage, _client: Client) -> AsyncIterator[None]:
    """Have a mistake in the catalog file."""
    text = stage.catalog.read_text()
    stage.catalog.write_text(text + "nonsense: true\n")
    try:
        yield
    finally:
        stage.catalog.write_text(text)


@contextlib.asynccontextmanager
async def another_release_runs(stage: Stage, _client: Client) -> AsyncIterator[None]:
    """Run a tool-executor for which another release is installed: that is what its metadata say."""
    folder = stage.folder / "other-release"
    installed = folder / f"kitemesh_runtime-{OTHER_RELEASE}.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text(_METADATA.format(version=OTHER_RELEASE))
    async with _one_more(stage, "tool-executor", "other-release", folder):
        yield


@contextlib.asynccontextmanager
async def memory_leaks(stage: Stage, _client: Client) -> AsyncIterator[None]:
    """Run a tool-executor with a module beside it that leaks ten megabytes a second."""
    folder = stage.folder / "leak"
    folder.mkdir()
    leak = _LEAK.format(size=LEAK_BYTES, every_s=LEAK_EVERY_S, most=LEAK_MAX)
    (folder / "sitecustomize.py").write_text(leak)
    async with _one_more(stage, "tool-executor", "leaking", folder):
        yield


@contextlib.asynccontextmanager
async def _one_more(stage: Stage, service: str, name: str, path: Path) -> AsyncIterator[None]:
    """Have another replica, scraped, that finds Python modules in a folder before it finds the installed ones."""
    stage.replicas.start(name, service, PYTHONPATH=str(path), KITEMESH_SLOTS="1")
    try:
        with stage.watching(target(service, stage.replicas.health_port(name), name)):
            yield
    finally:
        stage.replicas.end(name)


FAULTS: Final = (
    Fault(
        "a provider fails",
        ("KitemeshUpstreamDown", "KitemeshFallbacks", "KitemeshErrorRate", "KitemeshTurnsFail"),
        provider_fails,
    ),
    Fault("a provider is slow", ("KitemeshFirstTokenSlow",), provider_is_slow),
    Fault("clients do not read", ("KitemeshStreamsCut",), clients_do_not_read),
    Fault("nobody decides", ("KitemeshHoldsOld",), nobody_decides),
    Fault("a webhook leads astray", ("KitemeshWebhooksGivenUp",), webhook_leads_astray),
    Fault("the catalog is broken", ("KitemeshCatalogRefused",), catalog_is_broken),
    Fault("another release runs", ("KitemeshVersionMix",), another_release_runs),
    Fault("memory leaks", ("KitemeshMemoryGrows",), memory_leaks),
)
