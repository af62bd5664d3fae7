"""An OpenAI-compatible upstream, and the tools, that cost next to nothing, in a process of their own.

The last user message says what to do: `tokens=20 delay_ms=5 hold_s=0 calls=look/act+act numbered linger_s=9`. Tokens
are `w` and a space, or numbered from 0; a held stream stops after its first token, a numbered one may linger after its
last. Of the calls, `/` begins a step and `+` adds to one; the tokens follow the last. A step whose calls have no good
results is refused. `GET /hops` tells how long calls were under way.
"""

import asyncio
import itertools
import json
import re
import sys
from typing import Final, cast

import uvloop

from bench.bench_hops import Hops

HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n"
)
_PLAN: Final = re.compile(
    rb"tokens=(\d+)(?: delay_ms=(\d+))?(?: hold_s=(\d+))?(?: calls=([\w+/]+))?"
    rb"( numbered)?(?: linger_s=(\d+))?"
)
_LENGTH: Final = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_SAID: Final = b'"role":"assistant"'
_GOOD: Final = re.compile(rb"it went well|made up: |pretended: ")
_ARGUMENTS: Final = {b"weather": b"city", b"delete_record": b"id"}
_NUMBERED: Final = re.compile(rb'n\\":\\"(\d+)')
_TOOL: Final = re.compile(rb"\A[A-Z]+ /tools/(\w+)")
_NUMBER: Final = re.compile(rb'(?:[?&]n=|"n":")(\d+)')
_RESULT: Final = b'{"said":"it went well"}'


def _event(delta: bytes, finish: bytes = b"null") -> bytes:
    data = (
        b'data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"bench","choices":[{"index":0,"delta":'
        + delta
        + b',"finish_reason":'
        + finish
        + b"}]}\n\n"
    )
    return b"%x\r\n%s\r\n" % (len(data), data)


FIRST: Final = _event(b'{"role":"assistant","content":"w "}')
TOKEN: Final = _event(b'{"content":"w "}')
_END: Final = b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":%d}}\n\ndata: [DONE]\n\n'


def ending(tokens: int, finish: bytes = b'"stop"') -> bytes:
    """Return the last events of an answer."""
    end = _END % tokens
    return _event(b"{}", finish) + b"%x\r\n%s\r\n0\r\n\r\n" % (len(end), end)


def calling(names: list[bytes], numbers: list[int]) -> bytes:
    """Return the events of an answer that calls tools, each with a number to know it by."""
    calls = b",".join(
        b'{"index":%d,"id":"call_%d","type":"function","function":{"name":"%s","arguments":"{\\"%s\\":\\"%d\\"}"}}'
        % (index, number, name, _ARGUMENTS.get(name, b"n"), number)
        for index, (name, number) in enumerate(zip(names, numbers, strict=True))
    )
    delta = b'{"role":"assistant","content":null,"tool_calls":[' + calls + b"]}"
    return _event(delta) + ending(1, b'"tool_calls"')


def whole(status: bytes, content: bytes) -> bytes:
    """Return an answer of one piece."""
    head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (status, len(content)) + content


class Upstream(asyncio.Protocol):
    """One keep-alive connection."""

    numbers = itertools.count(1)
    hops = Hops()

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _: Exception | None) -> None:
        if self._answer is not None:
            self._answer.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not separator or len(rest) < (int(length.group(1)) if length is not None else 0):
            return
        self._buffer = b""
        tool = _TOOL.match(head)
        if tool is not None:
            self._run(tool.group(1), head if head.startswith(b"GET") else rest)
        elif head.startswith(b"GET /hops"):
            self._write(whole(b"200 OK", json.dumps(self.hops.take()).encode()))
        else:
            self._generate(rest)

    def _run(self, tool: bytes, arguments: bytes) -> None:
        number = _NUMBER.search(arguments)
        if number is None:
            self._write(whole(b"400 Bad Request", b"{}"))
            return
        self.hops.on_call(tool.decode(), int(number.group(1)))
        self._write(whole(b"200 OK", _RESULT))
        self.hops.on_result(int(number.group(1)))

    def _generate(self, body: bytes) -> None:
        plan = _PLAN.search(body)
        tokens, delay_ms, hold_s = (int(group or 0) for group in plan.groups()[:3]) if plan else (1, 0, 0)
        if plan is not None and plan.group(4):
            steps = [step.split(b"+") for step in plan.group(4).split(b"/")]
            said = body.count(_SAID, plan.end())
            if len(_GOOD.findall(body, plan.end())) != sum(map(len, steps[:said])):
                self._write(whole(b"400 Bad Request", b'{"error":{"message":"a call went wrong"}}'))
                return
            self.hops.on_prompt([int(number) for number in _NUMBERED.findall(body, plan.end())])
            if said < len(steps):
                self._call(steps[said])
                return
        if plan is not None and plan.group(5):
            self._answer = asyncio.create_task(self._count(tokens, delay_ms / 1000, int(plan.group(6) or 0)))
        elif delay_ms or hold_s:
            self._answer = asyncio.create_task(self._slowly(tokens, delay_ms / 1000, hold_s))
        else:
            self._write(HEAD + FIRST + TOKEN * (tokens - 1) + ending(tokens))

    def _call(self, names: list[bytes]) -> None:
        numbers = [next(self.numbers) for _ in names]
        self._write(HEAD + calling(names, numbers))
        self.hops.on_asked(numbers)

    async def _slowly(self, tokens: int, delay_s: float, hold_s: int) -> None:
        self._write(HEAD + FIRST)
        await asyncio.sleep(hold_s)
        for _ in range(tokens - 1):
            await asyncio.sleep(delay_s)
            self._write(TOKEN)
        self._write(ending(tokens))

    async def _count(self, tokens: int, delay_s: float, linger_s: int) -> None:
        self._write(HEAD)
        for number in range(tokens):
            self._write(_event(b'{"content":"w%d "}' % number))
            await asyncio.sleep(delay_s)
        await asyncio.sleep(linger_s)
        self._write(ending(tokens))

    def _write(self, data: bytes) -> None:
        self._transport.write(data)


async def serve(port: int) -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
