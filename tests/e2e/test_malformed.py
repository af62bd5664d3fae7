"""Ten thousand malformed requests: none is a server error, none ends the process, none tells anything, none stays."""

import asyncio
import json
import random
import re
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest

from cluster import LOOPBACK, Cluster
from foreign_ids import BODIES, DOCUMENT, ENDLESS

REQUESTS = 10_000
AT_ONCE = 40
SEED = 20_261_121
TELLTALE = re.compile(
    rb"Traceback|File \"|\.py\b|site-packages|/usr/|/home/|/tmp/|mongodb://|nats://|pepper", re.IGNORECASE
)
STATUS_LINE = re.compile(rb"HTTP/\d\.\d (\d{3}) ")

CHAT = "createChatCompletion"
ODD_VALUES = [
    None,
    True,
    -1,
    0,
    10**400,
    1e308,
    "",
    "\x00",
    "💥" * 50,
    [],
    [[]],
    {},
    {"$ne": 1},
    {"a": {"b": {"c": []}}},
    "group:" + "f" * 36,
    "../../etc/passwd",
    "a\r\nx-evil: 1",
    ["user"],
    [{"role": "user"}],
    [{"role": "nobody", "content": 1}],
    [{"role": "user", "content": [{"type": "text"}]}],
]
ODD_BODIES = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"NaN",
    b'{"model": NaN}',
    b'{"model": "\\ud800", "messages": [{"role": "user", "content": "\\udfff"}]}',
    b"\xff\xfe\x00",
    b"\xef\xbb\xbf{}",
    b"[" * 5000,
    b'{"a":' * 200 + b"1" + b"}" * 200,
    b'{"temperature": 1e400}',
    b'{"n": ' + b"9" * 5000 + b"}",
    b'{"a": 1, "a": 2}',
    b"\x1f\x8b\x08\x00corrupt",
]
ODD_HEADERS = [
    b"Content-Encoding: gzip",
    b"Content-Encoding: br, br",
    b"Content-Type: text/plain",
    b"Content-Type: application/json; charset=utf-16",
    b"Authorization: Bearer km_\xff\xfe",
    b"Authorization: Basic eDp5",
    b"X-Request-Id: \xc3\xa4 <script>",
    b"X-Request-Id: " + b"a" * 300,
    b"Idempotency-Key: 1",
    b"Last-Event-ID: x:1",
    b"Accept: nothing/at-all",
    b"Expect: 200-maybe",
    b"Bad Header: x",
    b": no name",
    b"X-Long: " + b"y" * 20_000,
]
ODD_LINES = [
    b"GET /v1/chat/completions HTTP/1.1",
    b"POST /v1/chat/completions HTTP/9.9",
    b"POST /v1/chat/completions",
    b"POST //v1//chat HTTP/1.1",
    b"POST /v1/chat/completions%00 HTTP/1.1",
    b"POST /" + b"a" * 9000 + b" HTTP/1.1",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"DELETE /v1/models/%2e%2e%2f HTTP/1.1",
    b"GET /v1/models/group:nonsense HTTP/1.1",
    b"TRACE / HTTP/1.1",
]


class Route(NamedTuple):
    """An operation that takes a body.

    Attributes:
        valid: A body.
        fields: Every name that a body may have at its top.

    """

    line: bytes
    valid: dict[str, Any]
    fields: list[str]


def routes() -> dict[str, Route]:
    """Return the operations that take a body, by name."""
    found = {}
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            if "requestBody" in operation:
                name = operation["operationId"]
                reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
                fields = sorted(DOCUMENT["components"]["schemas"][reference.rsplit("/", 1)[-1]]["properties"])
                target = path.replace("{id}", "assistant").encode()
                found[name] = Route(b"%b %b HTTP/1.1" % (method.upper().encode(), target), BODIES[name], fields)
    return found


def queries() -> list[tuple[bytes, str]]:
    """Return the operations that take a query, with the name of each of its parameters."""
    return [
        (b"%b %b" % (method.upper().encode(), path.replace("{id}", "assistant").encode()), each["name"])
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
        for each in operation.get("parameters", ())
        if each["in"] == "query" and operation["operationId"] not in ENDLESS
    ]


ROUTES, QUERIES = routes(), queries()


def malformed(chance: random.Random, key: str) -> bytes:
    """Make one request with at least one thing wrong: half of them chats of OpenAI's, the others whatever there is."""
    route = ROUTES[CHAT] if chance.random() < 0.5 else chance.choice(list(ROUTES.values()))
    body = dict(route.valid)
    for _ in range(chance.randint(1, 3)):
        body[chance.choice(route.fields)] = chance.choice(ODD_VALUES)
    content = json.dumps(body).encode() if chance.random() < 0.6 else chance.choice(ODD_BODIES)
    line = chance.choice(ODD_LINES) if chance.random() < 0.15 else route.line
    if chance.random() < 0.1:
        start, name = chance.choice(QUERIES)
        line = b"%b?%b HTTP/1.1" % (start, urlencode({name: str(chance.choice(ODD_VALUES))[:500]}).encode())
    headers = [b"Host: x", b"Authorization: Bearer " + key.encode(), b"Content-Type: application/json"]
    if chance.random() < 0.3:
        headers.append(chance.choice(ODD_HEADERS))
    length = len(content) if chance.random() < 0.95 else chance.choice([-1, 10**12, 2 * 1024 * 1024])
    headers.append(b"Content-Length: %d" % length)
    headers.append(b"Connection: close")
    data = line + b"\r\n" + b"\r\n".join(headers) + b"\r\n\r\n" + content
    if chance.random() < 0.05:
        place = chance.randrange(len(data))
        data = data[:place] + bytes([chance.randrange(256)]) + data[place + 1 :]
    return data


async def ask(port: int, data: bytes) -> bytes:
    """Send bytes and return all that comes back until the server closes."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        async with asyncio.timeout(30):
            writer.write(data)
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def ask_all(port: int, requests: list[bytes]) -> list[bytes]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(data: bytes) -> bytes:
        async with gate:
            return await ask(port, data)

    return list(await asyncio.gather(*map(one, requests)))


@pytest.mark.requirement("promise:P13")
def test_ten_thousand_malformed_requests_break_and_tell_nothing(cluster: Cluster) -> None:
    chance = random.Random(SEED)
    requests = [malformed(chance, cluster.key) for _ in range(REQUESTS)]
    gateway = cluster.processes()["gateway"]
    asyncio.run(ask_all(cluster.port, requests[:500]))
    before = gateway.memory_info().rss
    answers = asyncio.run(ask_all(cluster.port, requests))
    statuses = [int(line[1]) for line in map(STATUS_LINE.match, answers) if line]
    assert len(statuses) > 0.95 * REQUESTS
    assert [status for status in statuses if status >= 500] == []
    assert statuses.count(200) < 0.2 * REQUESTS
    assert [answer[:500] for answer in answers if TELLTALE.search(answer)] == []
    assert cluster.processes()["gateway"].pid == gateway.pid
    assert gateway.memory_info().rss - before < 50 * 1024 * 1024
    assert cluster.chat("@echo still here").json()["choices"][0]["message"]["content"] == "still here"
