"""MCP tools against a real server of the official SDK: by HTTP, in both eras of the protocol, and by pipes."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from integration.tool_executor.http_rig import LOOPBACK, call, catalog, until_effect
from kitemesh_cli import servers
from kitemesh_contracts.errors import ErrorCode
from kitemesh_tool_executor import mcp_life, mcp_sessions
from kitemesh_tool_executor.tool import CallFailed, Tool
from kitemesh_tool_executor.tool_mcp import McpKind
from mcp_stub import LOOK, NOTE, SECRET_WORDS, McpStub, start_mcp_stub

WAYS = ("http", "legacy", "stdio")


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, McpStub]]:
    with ExitStack() as stack:
        folders = {way: tmp_path_factory.mktemp(f"mcp-{way}") for way in WAYS}
        yield {
            "http": stack.enter_context(start_mcp_stub(folders["http"])),
            "legacy": stack.enter_context(start_mcp_stub(folders["legacy"], legacy=True)),
            "stdio": McpStub(0, folders["stdio"]),
        }


@pytest.fixture
def stub(stubs: dict[str, McpStub], way: str) -> Iterator[McpStub]:
    stub = stubs[way]
    stub.switch.write_text("")
    yield stub
    stub.switch.write_text("quiet")


@pytest.fixture
async def kind() -> AsyncIterator[McpKind]:
    before = asyncio.all_tasks()
    async with McpKind() as kind:
        yield kind
    assert asyncio.all_tasks() - before == {asyncio.current_task()}


def server_of(stub: McpStub, way: str) -> dict[str, Any]:
    return {"command": stub.command} if way == "stdio" else {"url": stub.url, "allow_networks": LOOPBACK}


def tool(kind: McpKind, stub: McpStub, way: str, name: str = "note", **more: Any) -> Tool:
    says = NOTE if name == "note" else LOOK
    definition = {"kind": "mcp", "server": "s", **says, **more}
    return kind.tool(name, catalog(tools={name: definition}, servers={"s": server_of(stub, way)}))


def asking(mode: str) -> str:
    return json.dumps({"mode": mode, "text": "x"})


async def failure_of(tool: Tool, arguments: str = '{"text":"x"}', **more: Any) -> CallFailed:
    async with asyncio.timeout(20):
        with pytest.raises(CallFailed) as caught:
            await tool.run(call(arguments, **more))
    return caught.value


async def until(tool: Tool, *, fails: bool) -> CallFailed | None:
    """Call it until it fails, or no longer does; return how it failed then."""
    while True:
        failed = None
        try:
            await tool.run(call('{"text":"again"}'))
        except CallFailed as exc:
            failed = exc
        if (failed is not None) == fails:
            return failed
        # A call that is refused at once lets nothing else happen.
        await asyncio.to_thread(lambda: None)


@pytest.mark.parametrize("way", WAYS)
async def test_a_tool_runs_once_under_its_execution_id(kind: McpKind, stub: McpStub, way: str) -> None:
    made = tool(kind, stub, way)
    async with asyncio.timeout(20):
        assert await made.run(call('{"text":"hi"}', id=f"mcp-{way}")) == "noted hi"
    assert [line["path"] for line in stub.effects(f"mcp-{way}")] == ["note"]


@pytest.mark.parametrize("way", WAYS)
async def test_calls_run_at_the_same_time_on_one_session(kind: McpKind, stub: McpStub, way: str) -> None:
    made = tool(kind, stub, way)
    async with asyncio.timeout(20):
        await made.run(call('{"text":"first"}'))
        began = asyncio.get_running_loop().time()
        texts = await asyncio.gather(*(made.run(call(asking("slow"), id=f"slow-{way}-{n}")) for n in range(8)))
    assert texts == ["noted x"] * 8
    assert asyncio.get_running_loop().time() - began < 8 * 0.3
    assert len(kind._sessions["s"][1]._lives) == 1


@pytest.mark.parametrize("way", WAYS)
async def test_what_a_tool_answers_is_text_or_a_failure(kind: McpKind, stub: McpStub, way: str) -> None:
    made = tool(kind, stub, way)
    async with asyncio.timeout(20):
        assert await made.run(call(asking("mixed"))) == 'see:\n[image image/png, not shown]\n{"a":[2],"b":1}'
        assert await made.run(call(asking("twice"))) == '{"a": 1}'
    failed = await failure_of(made, asking("error"))
    assert failed.message.startswith("it went wrong xxx")
    assert len(failed.message) == 2000
    assert (failed.code, failed.sent, failed.answered) == (ErrorCode.TOOL_FAILED, True, True)
    failed = await failure_of(made, asking("refuse"))
    assert failed.message == f"The tool's server refused the call: {SECRET_WORDS}"
    failed = await failure_of(made, asking("huge"))
    assert (failed.message, failed.sent) == ("The tool's answer is too large", True)
    assert await made.run(call('{"text":"still"}')) == "noted still"


@pytest.mark.parametrize("way", ["http", "legacy"])
async def test_an_answer_beyond_all_measure_ends_the_call_and_not_the_session(
    kind: McpKind, stub: McpStub, way: str
) -> None:
    made = tool(kind, stub, way)
    failed = await failure_of(made, asking("monstrous"))
    assert (failed.code, failed.sent) == (ErrorCode.TOOL_FAILED, True)
    async with asyncio.timeout(20):
        assert await made.run(call('{"text":"still"}')) == "noted still"


@pytest.mark.parametrize("way", WAYS)
async def test_a_tool_that_hangs_is_given_up_and_others_go_on(kind: McpKind, stub: McpStub, way: str) -> None:
    made = tool(kind, stub, way)
    async with asyncio.timeout(20):
        await made.run(call('{"text":"first"}'))
    failed = await failure_of(made, asking("hang"), id=f"hang-{way}", timeout_s=0.5)
    assert (failed.code, failed.sent, failed.again) == (ErrorCode.TOOL_TIMEOUT, True, True)
    assert len(stub.effects(f"hang-{way}")) == 1
    async with asyncio.timeout(20):
        assert await made.run(call('{"text":"after"}')) == "noted after"


@pytest.mark.parametrize("way", WAYS)
async def test_being_cancelled_stops_a_call_at_once(kind: McpKind, stub: McpStub, way: str) -> None:
    made = tool(kind, stub, way)
    running = asyncio.create_task(made.run(call(asking("hang"), id=f"cancelled-{way}", timeout_s=60)))
    async with asyncio.timeout(20):
        await until_effect(stub, f"cancelled-{way}")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert await made.run(call('{"text":"after"}')) == "noted after"


@pytest.mark.parametrize(
    "more", [{"description": "Something else."}, {"parameters": {"type": "object"}}, {"tool": "no_such_tool"}]
)
@pytest.mark.parametrize("way", ["http"])
async def test_a_tool_that_is_not_the_pinned_one_does_not_run(
    kind: McpKind, stub: McpStub, way: str, more: dict[str, Any]
) -> None:
    before = len(stub.effects())
    failed = await failure_of(tool(kind, stub, way, **more))
    assert (failed.code, failed.sent, failed.again) == (ErrorCode.TOOL_CHANGED, False, False)
    assert failed.message == "The tool's definition changed at its server and awaits acceptance"
    assert len(stub.effects()) == before


@pytest.mark.parametrize(("way", "word"), [("http", "description"), ("legacy", "schema"), ("stdio", "gone")])
async def test_a_tool_that_changes_under_an_open_session_stops_running_and_comes_back(
    kind: McpKind, stub: McpStub, way: str, word: str
) -> None:
    made = tool(kind, stub, way)
    async with asyncio.timeout(30):
        await made.run(call('{"text":"first"}'))
        stub.switch.write_text(word)
        failed = await until(made, fails=True)
        assert (failed.code, failed.sent) == (ErrorCode.TOOL_CHANGED, False) if failed else False
        stub.switch.write_text("")
        await until(made, fails=False)


@pytest.mark.parametrize("way", ["http"])
async def test_a_change_that_a_server_keeps_quiet_about_is_found_when_the_list_is_old(
    kind: McpKind, stub: McpStub, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tool(kind, stub, way)
    async with asyncio.timeout(20):
        await made.run(call('{"text":"first"}'))
        stub.switch.write_text("quiet description")
        monkeypatch.setattr(mcp_life, "LISTED_S", 0.0)
    assert (await failure_of(made)).code is ErrorCode.TOOL_CHANGED


@pytest.mark.parametrize("way", WAYS)
async def test_tools_are_found_on_every_page(kind: McpKind, stub: McpStub, way: str) -> None:
    async with asyncio.timeout(20):
        assert await tool(kind, stub, way, "look").run(call())


@pytest.mark.parametrize("way", ["stdio"])
async def test_a_child_has_the_environment_of_its_definition_only(
    kind: McpKind, stub: McpStub, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET_OF_OURS", "s3cret")
    monkeypatch.setenv("A_SECRET_OF_ITS", "s3cret")
    environment = {"ITS_SECRET": {"env": "A_SECRET_OF_ITS"}, "HOME": "/nowhere"}
    server = {"command": stub.command, "environment": environment, "working_directory": str(tmp_path)}
    definition = {"kind": "mcp", "server": "s", **LOOK}
    made = kind.tool("look", catalog(tools={"look": definition}, servers={"s": server}))
    async with asyncio.timeout(20):
        shown = json.loads(await made.run(call()))
    assert set(shown["environment"]) - {"LC_CTYPE", "_"} == {"HOME", "ITS_SECRET", "PATH"}
    assert shown["folder"] == str(tmp_path)


@pytest.mark.parametrize("way", ["stdio"])
async def test_a_child_that_died_is_started_again(
    kind: McpKind, stub: McpStub, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tool(kind, stub, way)
    failed = await failure_of(made, asking("crash"), id="crashed", timeout_s=20)
    assert (failed.message, failed.sent, failed.again) == ("The tool broke off", True, True)
    async with asyncio.timeout(20):
        assert await made.run(call('{"text":"after"}', timeout_s=20)) == "noted after"
    assert len(stub.effects("crashed")) == 1


@pytest.mark.parametrize("way", ["stdio"])
async def test_no_child_is_left_behind(stub: McpStub, way: str) -> None:
    async with McpKind() as kind:
        async with asyncio.timeout(20):
            await tool(kind, stub, way).run(call('{"text":"x"}', timeout_s=20))
        children = [each for each in psutil.Process().children() if "stdio" in each.cmdline()]
        assert len(children) == 1
    assert not children[0].is_running()


@pytest.mark.parametrize("legacy", [False, True])
async def test_a_server_that_comes_back_is_used_again(
    kind: McpKind, tmp_path: Path, legacy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_sessions, "FIRST_PAUSE_S", 0.01)
    port = servers.free_port()
    nowhere = McpStub(port, tmp_path)
    made = tool(kind, nowhere, "http")
    failed = await failure_of(made)
    assert (failed.message, failed.sent, failed.again) == ("The tool could not be reached", False, True)
    for n in range(2):
        with start_mcp_stub(tmp_path, port=port, legacy=legacy):
            async with asyncio.timeout(20):
                await until(made, fails=False)
                assert await made.run(call('{"text":"back"}', id=f"back-{n}")) == "noted back"
        assert len(nowhere.effects(f"back-{n}")) == 1
    failed = await failure_of(made, id="gone")
    assert (failed.sent, failed.again) == (False, True)


@pytest.mark.parametrize(
    "server",
    [
        {"command": ["/no/such/program"]},
        {"command": ["false"]},
        {"command": ["a=b"]},
        {"command": ["cat"], "environment": {"X": {"env": "NO_SUCH_VARIABLE"}}},
        {"url": "https://user:secret@mcp.example/"},
        {"url": "https://mcp.example/", "headers": {"Authorization": {"env": "NO_SUCH_VARIABLE"}}},
    ],
)
async def test_a_server_that_cannot_be_had_is_a_failure_without_effect(kind: McpKind, server: dict[str, Any]) -> None:
    definition = {"kind": "mcp", "server": "s", **NOTE}
    made = kind.tool("note", catalog(tools={"note": definition}, servers={"s": {"connect_timeout_s": 3, **server}}))
    failed = await failure_of(made, timeout_s=10)
    assert (failed.code, failed.sent) == (ErrorCode.TOOL_FAILED, False)
    assert failed.message in {"The tool could not be reached", "The tool is not configured"}


@pytest.mark.parametrize("way", ["http"])
async def test_a_changed_definition_of_the_server_gets_a_session_of_its_own(
    kind: McpKind, stub: McpStub, way: str
) -> None:
    old = tool(kind, stub, way)
    running = asyncio.create_task(old.run(call(asking("slow"), id="on-the-old")))
    async with asyncio.timeout(20):
        await until_effect(stub, "on-the-old")
        server = {**server_of(stub, way), "headers": {"X-New": "1"}}
        definition = {"kind": "mcp", "server": "s", **NOTE}
        new = kind.tool("note", catalog(tools={"note": definition}, servers={"s": server}))
        assert await new.run(call('{"text":"new"}')) == "noted new"
        assert await running == "noted x"


DIES = """
import asyncio, json, sys, uvloop
from integration.tool_executor.http_rig import call, catalog
from kitemesh_tool_executor.tool_mcp import McpKind
from mcp_stub import NOTE

async def main():
    definition = {"kind": "mcp", "server": "s", **NOTE}
    async with McpKind() as kind:
        made = kind.tool("note", catalog(tools={"note": definition}, servers={"s": json.loads(sys.argv[1])}))
        await made.run(call('{"text":"x"}', id=sys.argv[2], timeout_s=30))

{"asyncio": asyncio, "uvloop": uvloop}[sys.argv[3]].run(main())
"""


@pytest.mark.parametrize(("way", "loop"), [("http", "uvloop"), ("stdio", "asyncio"), ("stdio", "uvloop")])
async def test_the_failpoint_after_sending_is_passed_when_the_call_has_left(
    stub: McpStub, way: str, loop: str, repository: Path
) -> None:
    name = f"died-{way}-{loop}"
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", DIES, json.dumps(server_of(stub, way)), name, loop],
        env={**os.environ, "KITEMESH_FAILPOINT": "tool.after_send:kill", "PYTHONPATH": str(repository / "tests")},
        check=False,
        timeout=30,
    )
    assert done.returncode == -signal.SIGKILL
    async with asyncio.timeout(10):
        await until_effect(stub, name)
    assert len(stub.effects(name)) == 1
