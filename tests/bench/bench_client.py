"""The load generator: raw HTTP/1.1 over asyncio protocols, so that it does not measure itself."""

import asyncio
import json
import time
from typing import Any, Final, NamedTuple, cast

TOKEN: Final = b'"content":"'


class Target(NamedTuple):
    """Where to send what.

    Attributes:
        mode: How turns are to run; empty leaves it to the server.

    """

    port: int
    path: str
    model: str
    key: str = ""
    mode: str = ""


class Answer(NamedTuple):
    """What came of one request; times in seconds."""

    status: int
    first_s: float
    total_s: float
    characters: int
    events: int


def post_bytes(target: Target, path: str, body: Any, headers: str = "") -> bytes:
    """Return a whole request; further headers end with a line end each."""
    content = json.dumps(body).encode()
    credential = f"Authorization: Bearer {target.key}\r\n" if target.key else ""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n{credential}{headers}"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def request_bytes(target: Target, text: str, *, stream: bool) -> bytes:
    """Return a whole chat request."""
    return post_bytes(target, target.path, chat_body(target, text, stream=stream))


def chat_body(target: Target, text: str, *, stream: bool) -> dict[str, Any]:
    """Return the body of a chat request."""
    body: dict[str, Any] = {"model": target.model, "stream": stream, "messages": [{"role": "user", "content": text}]}
    return {**body, "metadata": {"mode": target.mode}} if target.mode else body


class Connection(asyncio.Protocol):
    """One keep-alive connection; one request at a time."""

    def __init__(self) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._done: asyncio.Future[Answer] | None = None
        self._started = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)
        if self._done is not None and not self._done.done():
            self._done.set_exception(exc or ConnectionError("closed before the answer ended"))

    def send(self, data: bytes) -> asyncio.Future[Answer]:
        """Send a request; the future is the answer."""
        self._buffer = bytearray()
        self._first_s = 0.0
        self._began = time.perf_counter()
        self._started.clear()
        self._done = asyncio.get_running_loop().create_future()
        self.transport.write(data)
        return self._done

    async def first(self) -> None:
        """Return once the first piece of the answer's body has come."""
        await self._started.wait()

    @property
    def body(self) -> bytes:
        """The body of the last answer, if that had a Content-Length."""
        return bytes(self._buffer).partition(b"\r\n\r\n")[2]

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        if not self._first_s and TOKEN in buffer:
            self._first_s = time.perf_counter() - self._began
            self._started.set()
        if self._done is None or not self._ended(data):
            return
        total_s = time.perf_counter() - self._began
        status = int(buffer[9:12])
        text = bytes(buffer)
        done, self._done = self._done, None
        done.set_result(Answer(status, self._first_s or total_s, total_s, text.count(b"w "), text.count(b"data: {")))

    def _ended(self, data: bytes) -> bool:
        if data.endswith(b"0\r\n\r\n"):
            return True
        head, separator, _ = bytes(self._buffer[:1024]).partition(b"\r\n\r\n")
        if not separator or b"hunked" in head:
            return False
        lower = head.lower()
        at = lower.find(b"content-length:")
        return at >= 0 and len(self._buffer) - len(head) - 4 >= int(lower[at + 15 :].split(b"\r\n", 1)[0])


async def connect(port: int) -> Connection:
    """Open a connection."""
    _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    return connection


async def ask(target: Target, path: str, body: Any) -> tuple[int, Any]:
    """Send one request on a connection of its own; return the status and the decoded body."""
    connection = await connect(target.port)
    try:
        answer = await connection.send(post_bytes(target, path, body))
        return answer.status, json.loads(connection.body)
    finally:
        connection.transport.close()
