"""Malformed requests by the thousand: none is a server error, ends the process, tells anything, stays, or is logged."""

import asyncio
import json
import random
import re
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import pytest

from cluster import LOOPBACK, SERVICES, Cluster
from foreign_ids import BODIES, DOCUMENT, ENDLESS

REQUESTS = 10_000
AT_ONCE = 40
STALLED_S = 0.3
"""A request that is without an answer for so long waits for the rest of its body, and keeps no other waiting."""
SEED = 20_261_121
TELLTALE = re.compile(
    rb"Traceback|File \"|\.py\b|site-packages|/usr/|/home/|/tmp/|mongodb://|nats://|pepper", re.IGNORECASE
)
STATUS_LINE = re.compile(rb"HTTP/\d\.\d (\d{3}) ")

CHAT = "createChatCompletion"
SAID = "said-canary"
"""Stands in what people say."""
SECRET = "km_secret-canary"
"""Stands where a credential does."""
FORGED = "forged.canary"
"""Is the event of lines that nobody but a client wrote."""
LINE = "\n" + json.dumps({"event": FORGED, "level": "info"}) + "\n"
EVENT = re.compile(r"[a-z_]+(\.[a-z_]+)+")
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
    LINE,
    {LINE: SAID},
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
    b"Authorization: Bearer " + SECRET.encode(),
    b"X-Api-Key: " + SECRET.encode(),
    b"X-Request-Id: " + LINE.strip().encode(),
    b"Idempotency-Key: " + LINE.strip().encode(),
    b"User-Agent: " + SAID.encode(),
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
    b"GET /" + quote(LINE).encode() + b" HTTP/1.1",
    b"GET /v1/executions/" + quote(LINE).encode() + b" HTTP/1.1",
    b"GET /v1/executions/" + SAID.encode() + b"?api_key=" + SECRET.encode() + b" HTTP/1.1",
    SAID.encode() + b" / HTTP/1.1",
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
    sound = json.dumps(body).replace("@echo x", f"@echo {SAID}").encode()
    content = sound if chance.random() < 0.6 else chance.choice(ODD_BODIES)
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
            asking = asyncio.create_task(ask(port, data))
            await asyncio.wait({asking}, timeout=STALLED_S)
        return await asking

    return list(await asyncio.gather(*map(one, requests)))


def is_brief(data: bytes) -> bool:
    """Tell whether all that a request announces is there; for the rest of others the gateway waits for seconds."""
    length = re.search(rb"\r\nContent-Length: (\d+)\r\nConnection: close\r\n", data)
    return length is not None and int(length[1]) < len(data)


def logged(cluster: Cluster) -> dict[str, int]:
    """Return how long the services' logs are."""
    return {name: (cluster.data / "logs" / f"{name}.log").stat().st_size for name in SERVICES}


def assert_nothing_logged(cluster: Cluster, since: dict[str, int]) -> None:
    """Hold what was logged since then against what a log may hold: whole lines, of events that a service has."""
    for name, size in since.items():
        content = (cluster.data / "logs" / f"{name}.log").read_bytes()[size:]
        for canary in (SAID, SECRET, FORGED, cluster.key, cluster.environment()["KITEMESH_KEY_PEPPER"]):
            assert canary.encode() not in content, f"{name} logged {canary[:12]}"
        lines = [json.loads(line) for line in content.split(b"\n") if line]
        assert [line for line in lines if line["service"] != name or not EVENT.fullmatch(line["event"])] == []


@pytest.mark.requirement("log:no-content", "log:no-forged-lines")
@pytest.mark.chaos
def test_of_a_hundred_thousand_malformed_requests_the_logs_hold_nothing(cluster: Cluster) -> None:
    since = logged(cluster)
    for number in range(10):
        chance = random.Random(SEED + 1 + number)
        answers = asyncio.run(ask_all(cluster.port, [malformed(chance, cluster.key) for _ in range(REQUESTS)]))
        assert sum(STATUS_LINE.match(answer) is not None for answer in answers) > 0.95 * REQUESTS
    assert logged(cluster)["gateway"] > since["gateway"]
    assert_nothing_logged(cluster, since)


@pytest.mark.requirement("promise:P13", "log:no-content", "log:no-forged-lines")
def test_ten_thousand_malformed_requests_break_and_tell_nothing(cluster: Cluster) -> None:
    chance = random.Random(SEED)
    requests = [malformed(chance, cluster.key) for _ in range(REQUESTS)]
    requests.sort(key=is_brief)
    since = logged(cluster)
    gateway = cluster.processes()["gateway"]
    asyncio.run(ask_all(cluster.port, requests[-500:]))
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
    assert_nothing_logged(cluster, since)
