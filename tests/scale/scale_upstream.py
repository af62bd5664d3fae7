"""An OpenAI-compatible upstream and a tool that take their time and no CPU: `python scale_upstream.py PORT`.

What it answers follows from the model's name alone, so that a call that is made again is answered alike.
"""

import asyncio
import json
import sys
from typing import Any, Final

import uvloop
from aiohttp import web

QUICK: Final = "quick"
"""Everything after a fifth of a second."""
STEADY: Final = "steady"
"""Token after token for some seconds."""
CLERK: Final = "clerk"
"""At once: first a call of the tool, then, with its result, the text."""
TOOL: Final = "slow"

LATENCY_S: Final = 0.2
TOOL_S: Final = 0.4
TOKENS: Final = 12
TOKEN_S: Final = 0.5
TEXT: Final = "".join(f"w{number} " for number in range(TOKENS))
HEAD: Final = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "scale"}


def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    """Encode one event."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({**HEAD, "choices": [choice]}).encode() + b"\n\n"


def ending(finish: str) -> bytes:
    """Encode the end of an answer."""
    usage = {"choices": [], "usage": {"prompt_tokens": 8, "completion_tokens": TOKENS}}
    return event({}, finish) + b"data: " + json.dumps(usage).encode() + b"\n\ndata: [DONE]\n\n"


CALL: Final = event(
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": TOOL, "arguments": "{}"}}],
    }
) + ending("tool_calls")
WHOLE: Final = event({"role": "assistant", "content": TEXT}) + ending("stop")


async def complete(request: web.Request) -> web.StreamResponse:
    """Serve `/v1/chat/completions`."""
    body = await request.json()
    if body["model"] == QUICK:
        await asyncio.sleep(LATENCY_S)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    if body["model"] == STEADY:
        for number in range(TOKENS):
            await asyncio.sleep(TOKEN_S)
            await response.write(event({"content": f"w{number} "}))
        await response.write(ending("stop"))
    elif body["model"] == CLERK and body["messages"][-1]["role"] != "tool":
        await response.write(CALL)
    else:
        await response.write(WHOLE)
    return response


async def work(_: web.Request) -> web.Response:
    """Serve the tool."""
    await asyncio.sleep(TOOL_S)
    return web.json_response({"said": "done"})


async def serve(port: int) -> None:
    """Serve until killed."""
    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", complete), web.get(f"/tools/{TOOL}", work)])
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
