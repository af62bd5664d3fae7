import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from kitemesh_cli.servers import LOOPBACK, free_port
from kitemesh_contracts.content import CallResult
from kitemesh_runtime.driver_mongo import open_database
from kitemesh_runtime.ledger import LedgerRow
from kitemesh_runtime.stores_mongo import open_stores

Run = Callable[..., Any]


def row(number: int, tenant: str = "a") -> LedgerRow:
    return LedgerRow(
        id=f"call-{tenant}-{number}",
        tenant=tenant,
        turn="turn-1",
        tool="delete_record",
        effect="once",
        state="dispatched",
        by="me",
        args_sha256="0" * 64,
    )


async def give_up() -> None:
    """Leave calls behind: one finished, one unknown, one unknown with a late result, and one of another tenant."""
    async with (
        open_database(os.environ["KITEMESH_MONGO_URL"], name=os.environ["KITEMESH_MONGO_DATABASE"]) as database,
        open_stores(database) as stores,
    ):
        for each in (row(1), row(2), row(3), row(4, "b")):
            dispatched = await stores.ledger.dispatch(each.tenant, each)
            if each.id == "call-a-1":
                await stores.ledger.finish("a", each.id, "me", CallResult(call=each.id, text="done"))
            else:
                await stores.ledger.give_up(each.tenant, dispatched)
        await stores.ledger.finish("a", "call-a-3", "me", CallResult(call="call-a-3", text="late"))


def test_calls_whose_outcome_is_unknown_are_listed(run: Run) -> None:
    assert run("tools", "unknown", "--tenant", "a").out == "tenant a has no call whose outcome is unknown\n"
    asyncio.run(give_up())
    listed = run("tools", "unknown", "--tenant", "a").out.splitlines()
    assert listed[0].split() == ["CALL", "DISPATCHED", "TOOL", "EFFECT", "EXECUTION", "LATE"]
    assert {(line.split()[0], line.split()[-1]) for line in listed[1:]} == {("call-a-2", "-"), ("call-a-3", "yes")}
    told = json.loads(run("tools", "unknown", "--tenant", "a", "--json").out)
    assert {each["id"]: each.get("result", {}).get("text") for each in told} == {"call-a-2": None, "call-a-3": "late"}
    assert len(json.loads(run("tools", "unknown", "--tenant", "b", "--json").out)) == 1


def test_without_a_tenant_the_calls_are_the_anonymous_ones(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--tenant" in run("tools", "unknown").err
    monkeypatch.setenv("KITEMESH_ANONYMOUS_TENANT", "nobody")
    assert run("tools", "unknown").out == "tenant nobody has no call whose outcome is unknown\n"


SERVER = """
import sys
from mcp.server.mcpserver import MCPServer

server = MCPServer("docs")

@server.tool()
def search(query: str) -> str:
    \"\"\"Search the documentation.\"\"\"
    return query

@server.tool(name="add-up")
def add(a: int, b: int) -> int:
    return a + b

server.run(**({"transport": "streamable-http", "port": int(sys.argv[1])} if sys.argv[1:] else {}))
"""


@pytest.fixture
def own_server(tmp_path: Path) -> Path:
    file = tmp_path / "docs_server.py"
    file.write_text(SERVER)
    return file


def offer_it(server: dict[str, Any], **more: Any) -> None:
    content = {
        "providers": {"p": {"kind": "scripted"}},
        "models": {"a": {"provider": "p"}},
        "mcp_servers": {"docs": server},
        **more,
    }
    Path(os.environ["KITEMESH_CATALOG"]).write_text(yaml.safe_dump(content))


def test_what_a_server_offers_is_printed_for_the_catalog_and_then_it_is_the_same(run: Run, own_server: Path) -> None:
    command = {"command": [sys.executable, str(own_server)]}
    offer_it(command)
    listed = run("tools", "list", "docs")
    assert listed.code == 0, listed.err
    tools = yaml.safe_load(listed.out)["tools"]
    assert tools["search"]["description"] == "Search the documentation."
    assert tools["search"]["parameters"]["required"] == ["query"]
    assert tools.keys() == {"search", "add-up"}
    tools["search"]["parameters"]["required"] = []
    tools["gone"] = {"kind": "mcp", "server": "docs"}
    offer_it(command, tools=tools)
    told = json.loads(run("tools", "list", "--json").out)
    assert {each["name"]: each["state"] for each in told["tools"]} == {"search": "changed", "add-up": "same"}
    assert told["gone"] == ["gone"]


def test_a_server_that_is_reached_by_http_is_asked_as_the_executor_would(run: Run, own_server: Path) -> None:
    port = free_port()
    process = subprocess.Popen([sys.executable, str(own_server), str(port)], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        while "running on" not in (line := process.stderr.readline()):
            assert line, "the server ended"
        offer_it({"url": f"http://{LOOPBACK}:{port}/mcp", "allow_networks": ["127.0.0.0/8"]})
        listed = run("tools", "list")
        assert listed.code == 0, listed.err
        assert yaml.safe_load(listed.out)["tools"].keys() == {"search", "add-up"}
        offer_it({"url": f"http://{LOOPBACK}:{port}/mcp", "allow_networks": ["10.0.0.0/8"]})
        refused = run("tools", "list")
        assert refused.code == 1
        assert "MCP server docs cannot be asked" in refused.err
    finally:
        process.terminate()
        process.communicate()


def test_a_server_that_nobody_knows_is_told_with_those_that_are(run: Run, own_server: Path) -> None:
    offer_it({"command": [sys.executable, str(own_server)]})
    assert "it has: docs" in run("tools", "list", "other").err
    assert "must begin with https://" in run("tools", "list", "ftp://x").err
    offer_it({"command": ["/nowhere/to/be/found"]})
    refused = run("tools", "list")
    assert (refused.code, refused.out) == (1, "")
    assert "MCP server docs" in refused.err
