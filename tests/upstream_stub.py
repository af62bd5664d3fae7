"""An OpenAI-compatible upstream that misbehaves on request: `python upstream_stub.py PORT`.

The request's `model` says how: a name of `PLANS`, or one with changes, as in `ok?tokens=3&delay_ms=50`. What is put to
`/control/plan`, for all models or for one, wins over it. Every request is recorded, with how it ended; `/control/…`
serves the records.
"""

import asyncio
import contextlib
import json
import sys
import time
from collections import Counter, deque
from typing import Any, Final, NoReturn

import uvloop
from aiohttp import web

from upstream_plans import PLANS, Plan, plan_of

RECORDS_MAX: Final = 20_000


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
        self.plans: dict[str, str] = {}
        self.records: deque[dict[str, Any]] = deque(maxlen=RECORDS_MAX)
        self.seen: Counter[str] = Counter()
        self.changed = asyncio.Condition()

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """Serve `/v1/chat/completions`."""
        body = await request.json()
        name = self.plans.get("") or self.plans.get(body["model"]) or body["model"]
        self.seen[name] += 1
        record: dict[str, Any] = {
            "model": body["model"],
            "asked": next((each["content"] for each in reversed(body["messages"]) if each["role"] == "user"), ""),
            "sent": 0,
            "headers": dict(request.headers),
            "body": body,
            "at_s": time.monotonic(),
            "end": None,
        }
        self.records.append(record)
        await self._tell()
        end = "disconnected"
        try:
            response = await self._answer(request, plan_of(name), self.seen[name], record)
            end = "answered"
        except _Reset:
            end = "reset"
            raise ConnectionResetError from None
        finally:
            record |= {"end": end, "end_at_s": time.monotonic(), "ended_s": time.time()}
            # Shielded, for a client that went away cancels this very handler.
            telling = asyncio.ensure_future(self._tell())
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(telling)
        return response

    async def _answer(self, request: web.Request, plan: Plan, seen: int, record: dict[str, Any]) -> web.StreamResponse:
        await asyncio.sleep(plan.head_ms / 1000)
        if plan.variant == "hang_up":
            _break_off(request)
        refuse = seen <= plan.times if plan.times >= 0 else seen % 2 == 1
        if plan.status != web.HTTPOk.status_code and refuse:
            headers = {"Retry-After": plan.retry_after} if plan.retry_after else {}
            if plan.status == web.HTTPTemporaryRedirect.status_code:
                headers["Location"] = str(request.url)
            return await self._refuse(request, plan, headers, record)
        response = web.StreamResponse(headers={"Content-Type": plan.media_type})
        if plan.variant == "encoded":
            response.headers["Content-Encoding"] = "gzip"
        await response.prepare(request)
        if plan.variant == "silent":
            return response
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
        await self._end(request, response, plan, record)
        return response

    async def _refuse(
        self, request: web.Request, plan: Plan, headers: dict[str, str], record: dict[str, Any]
    ) -> web.StreamResponse:
        if plan.says == "page":
            page = f"<html><body><h1>{plan.status}</h1>{SECRET_WORDS}</body></html>"
            return web.Response(text=page, status=plan.status, headers=headers, content_type="text/html")
        if plan.says == "line":
            response = web.StreamResponse(status=plan.status, headers={**headers, "Content-Type": "application/json"})
            await response.prepare(request)
            await response.write(b'{"error": {"message": "')
            await _write_long(response, plan.line_bytes, record)
            return response
        error = {"message": SECRET_WORDS, "type": "invalid_request_error", "param": None, "code": plan.says or None}
        return web.json_response({"error": error}, status=plan.status, headers=headers)

    async def _end(
        self, request: web.Request, response: web.StreamResponse, plan: Plan, record: dict[str, Any]
    ) -> None:
        match plan.then:
            case "finish":
                usage = {"prompt_tokens": 7, "completion_tokens": plan.tokens}
                await response.write(chunk({}, plan.finish))
                await response.write(b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n" + DONE)
            case "stall":
                await asyncio.Event().wait()
            case "reset":
                _break_off(request)
            case "linger":
                await response.write(chunk({}, plan.finish))
                await asyncio.Event().wait()
            case "close":
                await response.write(chunk({}, plan.finish))
            case "drop":
                await response.write(chunk({}, plan.finish))
                await asyncio.sleep(0.05)
                _break_off(request)
            case "half":
                await response.write(b'data: {"choices": [{"delta": {"content": "w5')
            case "ping" | "chatter":
                while True:
                    await response.write(b": ping\n\n" if plan.then == "ping" else chunk({"content": ""}))
                    await asyncio.sleep(0.1)
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
                await _write_long(response, plan.line_bytes, record)
                await response.write(b'"}}]}\n\n')
                await response.write(chunk({}, plan.finish) + DONE)

    async def models(self, _: web.Request) -> web.Response:
        """Serve `/v1/models`."""
        data = [{"id": name, "object": "model", "created": 1, "owned_by": "stub"} for name in PLANS]
        return web.json_response({"object": "list", "data": data})

    # Control

    async def put_plan(self, request: web.Request) -> web.Response:
        """Answer every request, or those for one `model`, by this plan, or as before when it is empty."""
        self.plans[request.query.get("model", "")] = await request.text()
        return web.Response()

    async def reset(self, _: web.Request) -> web.Response:
        """Forget everything."""
        self.plans.clear()
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


def _break_off(request: web.Request) -> NoReturn:
    if request.transport is not None:
        request.transport.abort()
    raise _Reset


async def _write_long(response: web.StreamResponse, size: int, record: dict[str, Any]) -> None:
    block = b"x" * 65_536
    for _ in range(size // len(block)):
        await response.write(block)
        record["sent"] += len(block)


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
