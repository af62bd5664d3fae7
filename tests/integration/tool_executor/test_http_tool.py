"""HTTP tools against a real server with a ledger: what leaves, what comes back, and what is known of a failure."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from integration.tool_executor.http_rig import LOOPBACK, call, make, until_effect
from kitemesh_cli import servers
from kitemesh_contracts.errors import ErrorCode
from kitemesh_tool_executor.tool import CallFailed, Tool
from kitemesh_tool_executor.tool_http import HttpKind
from tool_stub import SECRET_WORDS, ToolStub, start_tool_stub


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToolStub]:
    with start_tool_stub(tmp_path_factory.mktemp("tool-stub")) as stub:
        yield stub


@pytest.fixture
async def kind() -> AsyncIterator[HttpKind]:
    async with HttpKind() as kind:
        yield kind


def tool(kind: HttpKind, stub: ToolStub, path: str, **more: Any) -> Tool:
    definition = {"kind": "http", "url": f"{stub.url}{path}", "allow_networks": LOOPBACK, "method": "POST", **more}
    return make(kind, definition)


async def failure_of(tool: Tool, arguments: str = "{}", **more: Any) -> CallFailed:
    async with asyncio.timeout(20):
        with pytest.raises(CallFailed) as caught:
            await tool.run(call(arguments, **more))
    return caught.value


async def test_a_request_is_what_the_definition_and_the_arguments_say(
    kind: HttpKind, stub: ToolStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_TOOLS_SECRET", "s3cret")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    made = tool(
        kind,
        stub,
        "/items/{{id}}",
        headers={"Authorization": {"env": "A_TOOLS_SECRET"}, "X-Fixed": "yes"},
        query=["lang"],
    )
    answer = json.loads(await made.run(call('{"id":"a/b","lang":"de","note":"x"}', id="call-request")))
    assert answer["path"] == "/items/a%2Fb?lang=de"
    assert answer["body"] == '{"note":"x"}'
    headers = answer["headers"]
    assert headers["authorization"] == "s3cret"
    assert headers["x-fixed"] == "yes"
    assert headers["content-type"] == "application/json"
    assert headers["idempotency-key"] == headers["x-kitemesh-execution-id"] == "call-request"
    assert headers["user-agent"].startswith("kitemesh/")
    assert headers["accept-encoding"] == "identity"
    assert len(stub.effects("call-request")) == 1


async def test_a_get_has_no_body_and_no_idempotency_key(kind: HttpKind, stub: ToolStub) -> None:
    answer = json.loads(
        await tool(kind, stub, "/find", method="GET").run(call('{"q":"x"}', id="call-get", effect="safe"))
    )
    assert (answer["path"], answer["body"]) == ("/find?q=x", "")
    assert "idempotency-key" not in answer["headers"]
    assert answer["headers"]["x-kitemesh-execution-id"] == "call-get"


async def test_a_connection_is_used_again(kind: HttpKind, stub: ToolStub) -> None:
    made = tool(kind, stub, "/x")
    for n in range(3):
        await made.run(call(id=f"call-again-{n}"))
    session = next(iter(kind._egress._sessions.values()))
    assert session.connector is not None
    assert sum(len(each) for each in session.connector._conns.values()) == 1


async def test_cookies_are_not_kept(kind: HttpKind, stub: ToolStub) -> None:
    made = tool(kind, stub, "/x?mode=cookie")
    await made.run(call(id="call-cookie-1"))
    answer = json.loads(await made.run(call(id="call-cookie-2")))
    assert "cookie" not in answer["headers"]


class Bad(NamedTuple):
    mode: str
    message: str
    again: bool = False
    retry_after_s: float | None = None
    answered: bool = False


BAD = [
    Bad("404", f"The tool answered 404: {SECRET_WORDS}", answered=True),
    Bad("500", f"The tool answered 500: {SECRET_WORDS}"),
    Bad("503&retry_after=7", "The tool answered 503", again=True, retry_after_s=7.0),
    Bad("429&retry_after=2", "The tool answered 429", again=True, retry_after_s=2.0, answered=True),
    Bad("redirect&to=/elsewhere", "The tool answered 302", answered=True),
    Bad("cut", "The tool broke off", again=True),
    Bad("drop", "The tool broke off", again=True),
    Bad("garbage", "The tool broke off", again=True),
    Bad("huge", "The tool's answer is too large", answered=True),
    Bad("binary", "The tool's answer is not text", answered=True),
    Bad("gzip", "The tool's answer is not text", answered=True),
]


@pytest.mark.parametrize("bad", BAD, ids=[bad.mode for bad in BAD])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "GET"])
async def test_a_bad_answer_is_a_failure_that_says_what_is_known(
    kind: HttpKind, stub: ToolStub, method: str, bad: Bad
) -> None:
    name = f"call-{method}-{bad.mode}"
    failed = await failure_of(tool(kind, stub, f"/x?mode={bad.mode}", method=method), id=name)
    assert (failed.code, failed.message, failed.sent) == (ErrorCode.TOOL_FAILED, bad.message, True)
    assert (failed.again, failed.retry_after_s, failed.answered) == (bad.again, bad.retry_after_s, bad.answered)
    assert len(stub.effects(name)) == 1


@pytest.mark.parametrize("method", ["PUT", "DELETE", "GET"])
async def test_a_request_on_a_connection_that_breaks_is_not_repeated(
    kind: HttpKind, stub: ToolStub, method: str
) -> None:
    # aiohttp repeats these on a connection that served before.
    await tool(kind, stub, "/x", method=method).run(call(id=f"warm-{method}"))
    failed = await failure_of(tool(kind, stub, "/x?mode=drop", method=method), id=f"broken-{method}")
    assert (failed.sent, failed.again) == (True, True)
    assert len(stub.effects(f"broken-{method}")) == 1


async def test_a_tool_that_hangs_is_given_up(kind: HttpKind, stub: ToolStub) -> None:
    failed = await failure_of(tool(kind, stub, "/x?mode=hang"), id="call-hang", timeout_s=0.3)
    assert (failed.code, failed.sent, failed.again) == (ErrorCode.TOOL_TIMEOUT, True, True)


async def test_being_cancelled_stops_a_call_at_once(kind: HttpKind, stub: ToolStub) -> None:
    running = asyncio.create_task(tool(kind, stub, "/x?mode=hang").run(call(id="call-cancelled", timeout_s=60)))
    async with asyncio.timeout(10):
        await until_effect(stub, "call-cancelled")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_an_unreachable_tool_was_sent_nothing(kind: HttpKind) -> None:
    nowhere = ToolStub(servers.free_port(), Path())
    failed = await failure_of(tool(kind, nowhere, "/"))
    assert (failed.code, failed.message) == (ErrorCode.TOOL_FAILED, "The tool could not be reached")
    assert (failed.sent, failed.again) == (False, True)


async def test_an_answer_is_bounded_by_the_definition(kind: HttpKind, stub: ToolStub) -> None:
    assert len(await tool(kind, stub, "/x?mode=huge&bytes=1000", max_result_bytes=1000).run(call())) == 1000
    failed = await failure_of(tool(kind, stub, "/x?mode=huge&bytes=1001", max_result_bytes=1000))
    assert failed.message == "The tool's answer is too large"


async def test_text_is_decoded_by_its_charset_and_nothing_is_nothing(kind: HttpKind, stub: ToolStub) -> None:
    assert await tool(kind, stub, "/x?mode=latin").run(call()) == "café"
    assert await tool(kind, stub, "/x?mode=empty").run(call()) == ""


@pytest.mark.parametrize(
    ("schema", "mode", "fits"),
    [
        ({"type": "object", "required": ["path"]}, "ok", True),
        ({"type": "object", "required": ["missing"]}, "ok", False),
        ({"type": "object"}, "latin", False),
        ({"$ref": "https://schemas.example/x"}, "ok", False),
    ],
)
async def test_an_answer_must_satisfy_the_schema_of_results(
    kind: HttpKind, stub: ToolStub, schema: dict[str, Any], mode: str, fits: bool
) -> None:
    made = tool(kind, stub, f"/x?mode={mode}", result_schema=schema)
    if fits:
        assert json.loads(await made.run(call()))
    else:
        failed = await failure_of(made)
        assert (failed.message, failed.sent) == ("The tool's answer does not fit its schema", True)


@pytest.mark.parametrize(
    "more",
    [
        {"headers": {"X-Key": {"env": "NO_SUCH_VARIABLE"}}},
        {"headers": {"X-Key": "a\r\nX-Forged: 1"}},
        {"headers": {"X-Key\r\nX-Forged": "1"}},
        {"headers": {"Host": "elsewhere.example"}},
        {"headers": {"Transfer-Encoding": "chunked"}},
        {"headers": {"X-Kitemesh-Execution-Id": "other"}},
        {"url": "https://user:secret@tool.example/"},
        {"url": "https://{{host}}/"},
    ],
)
async def test_a_definition_that_cannot_be_used_sends_nothing(
    kind: HttpKind, stub: ToolStub, more: dict[str, Any]
) -> None:
    before = len(stub.effects())
    failed = await failure_of(tool(kind, stub, "/x", **more), '{"host":"127.0.0.1"}')
    assert (failed.code, failed.message) == (ErrorCode.TOOL_FAILED, "The tool is not configured")
    assert not failed.sent
    assert len(stub.effects()) == before


async def test_arguments_that_fit_no_address_send_nothing(kind: HttpKind, stub: ToolStub) -> None:
    failed = await failure_of(tool(kind, stub, "/u/{{id}}"), '{"id":".."}', id="call-unfit")
    assert (failed.code, failed.sent) == (ErrorCode.TOOL_ARGUMENTS, False)
    assert stub.effects("call-unfit") == []


DIES = """
import asyncio, sys, uvloop
from integration.tool_executor.http_rig import LOOPBACK, call, make
from kitemesh_tool_executor.tool_http import HttpKind

async def main():
    async with HttpKind() as kind:
        made = make(kind, {"kind": "http", "url": sys.argv[1], "method": sys.argv[2], "allow_networks": LOOPBACK})
        await made.run(call('{"a": "' + "x" * 50_000 + '"}' if sys.argv[2] == "POST" else "{}", id=sys.argv[3]))

{"asyncio": asyncio, "uvloop": uvloop}[sys.argv[4]].run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_the_failpoint_after_sending_is_passed_when_the_request_has_left(
    stub: ToolStub, repository: Path, method: str, loop: str
) -> None:
    name = f"call-died-{method}-{loop}"
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", DIES, f"{stub.url}/x?mode=ok", method, name, loop],
        env={
            **os.environ,
            "KITEMESH_FAILPOINT": "tool.after_send:kill",
            "PYTHONPATH": str(repository / "tests"),
        },
        check=False,
        timeout=30,
    )
    assert done.returncode == -signal.SIGKILL
    async with asyncio.timeout(10):
        await until_effect(stub, name)
    assert len(stub.effects(name)) == 1
