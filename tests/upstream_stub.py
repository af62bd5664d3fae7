"""An OpenAI-compatible upstream that misbehaves on request: `python upstream_stub.py PORT`.

The request's `model` says how: a name of `PLANS`, or one with changes, as in `ok?tokens=3&delay_ms=50`. What is put to
`/control/plan` wins over it. Every request is recorded, with how it ended; `/control/…` serves the records.
"""

import asyncio
import contextlib
import json
import sys
import time
from collections import Counter, deque
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

import uvloop
from aiohttp import web

RECORDS_MAX: Final = 1000


class Plan(NamedTuple):
    """How one model name is answered.

    Attributes:
        status: Refuse with this status, the first `times` times; every second time when `times` is -1.
        head_ms: Pause before the status line.
        then: What follows the tokens: `finish`, `stall`, `reset`, `end` (no finish_reason), `done` (only the end mark),
            `linger`, `drop` and `babble` (a finish_reason, then nothing, a reset or garbage), `garbage`, `error`, or
            `line` (one of `line_bytes`).
        variant: `changing` says something else each time; `odd` and `calls` are answers of their own.

    """

    status: int = 200
    times: int = 1_000_000
    retry_after: str = ""
    head_ms: float = 0.0
    tokens: int = 5
    delay_ms: float = 0.0
    reasoning: int = 0
    finish: str = "stop"
    then: str = "finish"
    media_type: str = "text/event-stream"
    line_bytes: int = 8 * 1024 * 1024
    variant: str = ""


PLANS: Final = {
    "ok": Plan(),
    "unauthorized": Plan(status=401),
    "bad_request": Plan(status=400),
    "redirect": Plan(status=307),
    "limited_once": Plan(status=429, times=1, retry_after="1"),
    "limited": Plan(status=429),
    "failing_once": Plan(status=500, times=1),
    "failing": Plan(status=503),
    "flapping": Plan(status=500, times=-1),
    "slow_head": Plan(head_ms=3_600_000),
    "stalled_first": Plan(tokens=0, then="stall"),
    "stalled": Plan(then="stall"),
    "reset_first": Plan(tokens=0, then="reset"),
    "reset": Plan(then="reset"),
    "unterminated": Plan(then="end"),
    "only_done": Plan(then="done"),
    "empty": Plan(tokens=0, then="end"),
    "garbage": Plan(then="garbage"),
    "error_first": Plan(tokens=0, then="error"),
    "error": Plan(then="error"),
    "huge_line": Plan(then="line"),
    "html": Plan(media_type="text/html; charset=utf-8"),
    "not_a_stream": Plan(media_type="application/json"),
    "odd": Plan(variant="odd"),
    "calls": Plan(tokens=1, finish="tool_calls", variant="calls"),
}


def plan_of(name: str) -> Plan:
    """Read a model name."""
    base, _, changes = name.partition("?")
    plan = PLANS.get(base, Plan())
    return plan._replace(**{key: type(getattr(plan, key))(value) for key, value in parse_qsl(changes)})


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    """Encode one event."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    head = {"id": "up-1", "object": "chat.completion.chunk", "created": 1, "model": "stub"}
    return b"data: " + json.dumps({**head, "choices": [choice], **more}).encode() + b"\n\n"


FIRST: Final = chunk({"role": "assistant", "content": ""})
DONE: Final = b"data: [DONE]\n\n"
SECRET_WORDS: Final = "the upstream's own words sk-secret"
ERROR: Final = b"data: " + json.dumps({"error": {"message": SECRET_WORDS, "code": 500}}).encode() + b"\n\n"
PIECES: Final = (
    {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "look", "arguments": ""}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '{"q": '}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]},
    {"tool_calls": [{"id": "b", "type": "function", "function": {"name": "count", "arguments": "{}"}}]},
)
ODD: Final = (
    b": waiting\r\n\r\n",
    b'data:{"choices":[],"usage":{"prompt_tokens":1}}\r\n\r\n',
    b'data:{"choices":[{"delta":{"content":null,"reasoning":"so "}}]}\r\n\r\n',
    b'event: message\r\nid: 7\r\ndata: {"choices":[{"delta":{"content":"w0 "},"finish_reason":null}]}\r\n\r\n',
    b'data: {"choices":[{"delta":{"content":"w1"},"finish_reason":"eos"}],"usage":{"prompt_tokens":4,',
    b'"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":3}}}\r\n\r\n',
)


class Stub:
    """The upstream's state."""

    def __init__(self) -> None:
        self.plan: str | None = None
        self.records: deque[dict[str, Any]] = deque(maxlen=RECORDS_MAX)
        self.seen: Counter[str] = Counter()
        self.changed = asyncio.Condition()

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """Serve `/v1/chat/completions`."""
        body = await request.json()
        name = self.plan or body["model"]
        self.seen[name] += 1
        record: dict[str, Any] = {
            "model": body["model"],
            "headers": dict(request.headers),
            "body": body,
            "at_s": time.monotonic(),
            "end": None,
        }
        self.records.append(record)
        await self._tell()
        end = "disconnected"
        try:
            response = await self._answer(request, plan_of(name), self.seen[name])
            end = "answered"
        except _Reset:
            end = "reset"
            raise ConnectionResetError from None
        finally:
            record |= {"end": end, "end_at_s": time.monotonic()}
            # Shielded, for a client that went away cancels this very handler.
            telling = asyncio.ensure_future(self._tell())
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(telling)
        return response

    async def _answer(self, request: web.Request, plan: Plan, seen: int) -> web.StreamResponse:
        await asyncio.sleep(plan.head_ms / 1000)
        refuse = seen <= plan.times if plan.times >= 0 else seen % 2 == 1
        if plan.status != web.HTTPOk.status_code and refuse:
            headers = {"Retry-After": plan.retry_after} if plan.retry_after else {}
            if plan.status == web.HTTPTemporaryRedirect.status_code:
                headers["Location"] = str(request.url)
            return web.json_response({"error": {"message": SECRET_WORDS}}, status=plan.status, headers=headers)
        response = web.StreamResponse(headers={"Content-Type": plan.media_type})
        await response.prepare(request)
        if plan.variant == "odd":
            for piece in ODD:
                await response.write(piece)
            return response
        await response.write(FIRST)
        for n in range(plan.reasoning):
            await response.write(chunk({"reasoning_content": f"r{n} "}))
        word = f"v{seen}-" if plan.variant == "changing" and seen > 1 else "w"
        for n in range(plan.tokens):
            if plan.delay_ms:
                await asyncio.sleep(plan.delay_ms / 1000)
            await response.write(chunk({"content": f"{word}{n} "}))
        if plan.variant == "calls":
            for delta in PIECES:
                await response.write(chunk(delta))
        await self._end(request, response, plan)
        return response

    async def _end(self, request: web.Request, response: web.StreamResponse, plan: Plan) -> None:
        match plan.then:
            case "finish":
                usage = {"prompt_tokens": 7, "completion_tokens": plan.tokens}
                await response.write(chunk({}, plan.finish))
                await response.write(b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n" + DONE)
            case "stall":
                await asyncio.Event().wait()
            case "reset":
                if request.transport is not None:
                    request.transport.abort()
                raise _Reset
            case "linger":
                await response.write(chunk({}, plan.finish))
                await asyncio.Event().wait()
            case "drop":
                await response.write(chunk({}, plan.finish))
                await asyncio.sleep(0.05)
                if request.transport is not None:
                    request.transport.abort()
                raise _Reset
            case "babble":
                await response.write(chunk({}, plan.finish) + b"data: {garbage\n\n")
            case "done":
                await response.write(DONE)
            case "garbage":
                await response.write(b'data: {"choices": [{"delta": {"con\n\n')
                await asyncio.Event().wait()
            case "error":
                await response.write(ERROR)
                await asyncio.Event().wait()
            case "line":
                await response.write(b'data: {"choices":[{"delta":{"content":"')
                block = b"x" * 65_536
                for _ in range(plan.line_bytes // len(block)):
                    await response.write(block)
                await response.write(b'"}}]}\n\n')
                await response.write(chunk({}, plan.finish) + DONE)

    async def models(self, _: web.Request) -> web.Response:
        """Serve `/v1/models`."""
        data = [{"id": name, "object": "model", "created": 1, "owned_by": "stub"} for name in PLANS]
        return web.json_response({"object": "list", "data": data})

    # Control

    async def put_plan(self, request: web.Request) -> web.Response:
        """Answer every request by this plan, or by its model's again when it is empty."""
        self.plan = (await request.text()) or None
        return web.Response()

    async def reset(self, _: web.Request) -> web.Response:
        """Forget everything."""
        self.plan = None
        self.records.clear()
        self.seen.clear()
        return web.Response()

    async def list_records(self, request: web.Request) -> web.Response:
        """List the records once so many requests came, and so many of them ended, or 408 after `timeout_s`."""
        came, ended = (int(request.query.get(key, 0)) for key in ("came", "ended"))

        def reached() -> bool:
            return len(self.records) >= came and sum(record["end"] is not None for record in self.records) >= ended

        try:
            async with asyncio.timeout(float(request.query.get("timeout_s", 5))), self.changed:
                await self.changed.wait_for(reached)
        except TimeoutError:
            return web.json_response(list(self.records), status=408)
        return web.json_response(list(self.records))

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()


class _Reset(Exception):
    """The connection was broken off on purpose."""


async def serve(port: int) -> None:
    """Serve until killed."""
    stub = Stub()
    app = web.Application(client_max_size=16 * 1024 * 1024)
    app.add_routes(
        [
            web.post("/v1/chat/completions", stub.complete),
            web.get("/v1/models", stub.models),
            web.put("/control/plan", stub.put_plan),
            web.delete("/control/records", stub.reset),
            web.get("/control/records", stub.list_records),
        ],
    )
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
