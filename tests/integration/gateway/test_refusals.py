"""Everything that is refused, with its exact words, and nothing that breaks."""

import asyncio
import gzip
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

from integration.bus.rig import OwnServer, jetstream, until
from integration.gateway.rig import ASK, GROUP, KEY, TENANT, Answer, Rig, get, key_record, open_rig, post
from kitemesh_contracts import subjects
from kitemesh_contracts.errors import ErrorCode
from kitemesh_contracts.topology import TURN, topology
from kitemesh_gateway import http_server
from kitemesh_runtime import keyring
from kitemesh_runtime.bus_nats import open_bus
from kitemesh_runtime.metrics import REGISTRY
from kitemesh_runtime.topology_nats import apply

UNAUTHORIZED = "The credential is missing, malformed, unknown, revoked or expired; send `Authorization: Bearer km_…`"
NO_MODEL = "The model {} does not exist, or is not available to this key; GET /v1/models lists what is"
NOWHERE = "There is nothing at this path; the API is under /v1, its reference at /docs"
OTHER = keyring.make(bytes(range(1, 41)))


class Told(NamedTuple):
    """The whole of a refusal but its request id."""

    status: int
    kind: str
    code: str
    message: str
    param: str | None = None


def bad(code: str, message: str, param: str | None = None, *, status: int = 400) -> Told:
    return Told(status, "invalid_request_error", code, message, param)


CRASHED = Told(500, "internal_error", "internal", "Internal error; the request id names it in the server's log")


def assert_told(answer: Answer, told: Told) -> None:
    """Compare a whole refusal: this object and nothing else, with the request id that the header has."""
    error = {"message": told.message, "type": told.kind, "code": told.code, "param": told.param}
    body = {"error": {**error, "request_id": answer.headers["x-request-id"]}}
    assert (answer.status, answer.json()) == (told.status, body)
    assert answer.headers["content-type"] == "application/json"
    assert ("retry-after" in answer.headers) == (told.status in {429, 503})


@pytest.mark.requirement("http:credential-one-answer")
async def test_every_bad_credential_gets_the_same_answer(rig: Rig) -> None:
    await rig.stores.keys.put(TENANT, key_record(OTHER, expires_at_s=1.0))
    requests = [
        post(ASK, key=None),
        post(ASK, key=""),
        post(ASK, key="km_short"),
        post(ASK, key=OTHER.text),
        post(ASK, key=keyring.make(bytes(40)).text),
        post(ASK, key=None, Authorization=f"Basic {KEY.text}"),
        post(ASK, Authorization=f"Bearer {KEY.text}\r\nAuthorization: Bearer {KEY.text}"),
        get("/v1/models", key=None),
    ]
    for request in requests:
        answer = await rig.ask(request)
        assert_told(answer, Told(401, "authentication_error", "credential.invalid", UNAUTHORIZED))
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_revoked_key_is_refused_after_the_broadcast(rig: Rig) -> None:
    assert (await rig.ask(get("/v1/models"))).status == 200
    await rig.stores.keys.revoke(TENANT, KEY.id)
    rig.cluster.bus.publish(subjects.key_changed(KEY.id), b"")
    async with asyncio.timeout(3):
        while (await rig.ask(get("/v1/models"))).status != 401:
            await rig.cluster.bus.barrier()


@pytest.mark.requirement("http:credential-scope")
async def test_a_key_without_the_scope_may_not_chat(rig: Rig) -> None:
    await rig.stores.keys.put(TENANT, key_record(OTHER, scopes=("admin",)))
    answer = await rig.ask(post(ASK, key=OTHER.text))
    assert_told(answer, Told(403, "permission_error", "permission.denied", "This key does not have the scope chat"))
    assert (await rig.ask(get("/v1/models", key=OTHER.text))).status == 200


async def test_requests_are_counted_by_what_their_path_is_for(rig: Rig) -> None:
    def counted(label: str, status: int) -> float:
        labels = {"dialect": label, "status": str(status)}
        return REGISTRY.get_sample_value("kitemesh_http_requests_total", labels) or 0.0

    requests = {
        ("completions", 400): post({}),
        ("completions", 405): get("/v1/chat/completions"),
        ("models", 200): get("/v1/models"),
        ("models", 404): get("/v1/models/nothing"),
        ("reference", 200): get("/docs"),
        ("none", 404): get("/nothing"),
        ("none", 400): b"GARBAGE\r\n\r\n",
    }
    for (label, status), request in requests.items():
        before = counted(label, status)
        assert (await rig.ask(request)).status == status
        assert counted(label, status) == before + 1


async def test_every_refusal_is_counted_by_its_code(rig: Rig) -> None:
    def counted() -> float:
        return REGISTRY.get_sample_value("kitemesh_http_refusals_total", {"code": "credential.invalid"}) or 0.0

    before = counted()
    await rig.ask(get("/v1/models", key="km_short"))
    assert counted() == before + 1


@pytest.mark.requirement("completions:group-is-a-uuid", "models:only-the-keys-own")
async def test_a_model_that_is_not_the_keys_is_unknown(rig: Rig) -> None:
    await rig.stores.keys.put(TENANT, key_record(OTHER, models=("scripted",)))
    foreign = ["org/name:tag", GROUP, "agent:helper"]
    missing = ["nothing", "group:00000000-0000-4000-8000-000000000000", "agent:nobody"]
    for model in foreign + missing:
        told = Told(404, "not_found_error", "model_not_found", NO_MODEL.format(f"'{model}'"), "model")
        assert_told(await rig.ask(post({**ASK, "model": model}, key=OTHER.text)), told)
        assert_told(await rig.ask(get(f"/v1/models/{model}", key=OTHER.text)), told)
    listed = (await rig.ask(get("/v1/models", key=OTHER.text))).json()
    assert [model["id"] for model in listed["data"]] == ["scripted"]


@pytest.mark.requirement("models:only-the-keys-own")
@pytest.mark.parametrize(
    ("model", "shown"),
    [
        ("a\r\nb\x1b[31m\x00", r"'a\r\nb\x1b[31m\x00'"),
        ("\u202eevil\u2028\ufeff", r"'\u202eevil\u2028\ufeff'"),
        ("it's", '"it\'s"'),
        ("modèle-🪁", "'modèle-🪁'"),
        ("x" * 200, f"'{'x' * 100}…'"),
    ],
)
async def test_an_unknown_models_name_is_told_back_on_one_short_line(rig: Rig, model: str, shown: str) -> None:
    told = Told(404, "not_found_error", "model_not_found", NO_MODEL.format(shown), "model")
    assert_told(await rig.ask(post({**ASK, "model": model})), told)
    assert_told(await rig.ask(get(f"/v1/models/{quote(model)}")), told)


@pytest.mark.requirement("models:by-their-raw-id")
async def test_models_are_listed_and_found_by_raw_ids(rig: Rig) -> None:
    listed = (await rig.ask(get("/v1/models"))).json()
    assert listed["object"] == "list"
    assert all(
        set(model) == {"id", "object", "created", "owned_by", "kitemesh"} and isinstance(model["created"], int)
        for model in listed["data"]
    )
    for model in listed["data"]:
        assert (await rig.ask(get(f"/v1/models/{model['id']}"))).json() == model
    assert (await rig.ask(get("/v1/models/org%2Fname%3Atag"))).json()["id"] == "org/name:tag"


INVALID, MALFORMED, UNSUPPORTED = "request.invalid", "request.malformed", "request.unsupported"
MEDIA, LARGE = "request.media_type", "request.too_large"
JSON = "The body is not valid JSON: "
TYPE = "Content-Type must be application/json in UTF-8"
ENCODING = "Content-Encoding must be absent or identity"
SYSTEM = {"role": "system", "content": "x"}
# What is wrong with a request, and the whole of what is said about it.
MISTAKES: list[tuple[dict[str, Any], Told]] = [
    ({"body": b""}, bad(MALFORMED, f"{JSON}it is empty")),
    ({"body": b"{"}, bad(MALFORMED, f"{JSON}expecting property name enclosed in double quotes at character 1")),
    ({"body": b'{"model":NaN}'}, bad(MALFORMED, f"{JSON}NaN is not a JSON number")),
    ({"body": b'{"seed":1e400}'}, bad(MALFORMED, f"{JSON}a number is out of range")),
    ({"body": b'{"seed":' + b"9" * 5000 + b"}"}, bad(MALFORMED, f"{JSON}an integer does not fit into 64 bits")),
    ({"body": b'{"model":"\\ud800"}'}, bad(MALFORMED, f"{JSON}a string holds half of a surrogate pair")),
    ({"body": b"\xff\xfe"}, bad(MALFORMED, f"{JSON}it is not UTF-8 at byte 0")),
    ({"body": b"[" * 33 + b"]" * 33}, bad(MALFORMED, f"{JSON}it is nested deeper than 32 levels")),
    ({"body": b"[" * 90_000}, bad(MALFORMED, f"{JSON}it is nested deeper than 32 levels")),
    ({"body": b'{"a":1,"a":2}'}, bad(MALFORMED, f"{JSON}an object has the same name twice")),
    ({"body": []}, bad(INVALID, "The body must be a JSON object")),
    ({"body": {}}, bad(INVALID, "model: is required; messages: is required", "model")),
    (
        {"body": {**ASK, "temperature": 3, "stop": ["a"] * 5, "stream": "yes"}},
        bad(
            INVALID,
            "stream: must be true or false; temperature: must be at most 2; stop: must have at most 4 item(s)",
            "stream",
        ),
    ),
    ({"body": {**ASK, "model": "group:x"}}, bad(INVALID, "model: group: must be followed by a UUID", "model")),
    ({"body": {**ASK, "messages": [SYSTEM]}}, bad(INVALID, "messages: needs at least one user message", "messages")),
    (
        {"body": {**ASK, "messages": ASK["messages"] * 257}},
        bad(INVALID, "messages: must not bring more than 256 messages", "messages"),
    ),
    (
        {"body": {**ASK, "metadata": {"mode": "fast"}}},
        bad(INVALID, "metadata.mode: must be 'auto', 'classic' or 'durable'", "metadata.mode"),
    ),
    (
        {"body": {**ASK, "metadata": {"conversation_id": "a.b"}}},
        bad(
            INVALID,
            "metadata.conversation_id: must be an id: 1 to 64 of A-Z, a-z, 0-9, _ and -",
            "metadata.conversation_id",
        ),
    ),
    (
        {"body": {**ASK, "messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}},
        bad(
            UNSUPPORTED,
            "messages.0.content.0.type: only 'text', 'image_url' and 'file' are supported",
            "messages.0.content.0.type",
        ),
    ),
    (
        {"body": {**ASK, "n": 2, "logprobs": True, "metadata": {"mode": "durable"}}},
        bad(INVALID, "n: must be 1 in a durable turn; logprobs: must be false in a durable turn", "n"),
    ),
    (
        {"body": {**ASK, "n": 2}, "Idempotency-Key": "k-1"},
        bad(INVALID, "n: must be 1 in a durable turn", "n"),
    ),
    (
        {"body": ASK, "Idempotency-Key": "x" * 256},
        bad(INVALID, "Idempotency-Key: must be 1 to 255 printable ASCII characters", "Idempotency-Key"),
    ),
    (
        {"body": ASK, "Idempotency-Key": "a\r\nIdempotency-Key: b"},
        bad(INVALID, "Idempotency-Key: must be given once", "Idempotency-Key"),
    ),
    ({"body": ASK, "Last-Event-ID": "x:1.1"}, bad(INVALID, "Last-Event-ID is not the id of an event of this server")),
    (
        {"body": ASK, "Last-Event-ID": "x:1.1.1.0\r\nLast-Event-ID: x:1.1.1.1"},
        bad(INVALID, "Last-Event-ID: must be given once", "Last-Event-ID"),
    ),
    ({"body": b"x" * (2 * 1024 * 1024 + 1)}, bad(LARGE, "The body must not be larger than 2097152 bytes", status=413)),
    (
        {"body": {**ASK, "messages": [{"role": "user", "content": "x" * 1024 * 1024}]}},
        bad(LARGE, "What is new in the request must not be larger than 1048576 bytes, files aside", status=413),
    ),
    ({"body": ASK, "Content-Type": "text/plain"}, bad(MEDIA, TYPE, status=415)),
    ({"body": ASK, "Content-Type": "application/json; charset=latin-1"}, bad(MEDIA, TYPE, status=415)),
    ({"body": ASK, "Content-Encoding": "gzip"}, bad(MEDIA, ENCODING, status=415)),
    ({"body": gzip.compress(b"{}"), "Content-Encoding": "GZIP"}, bad(MEDIA, ENCODING, status=415)),
    (
        {"body": ASK, "Content-Type": "application/json\r\nContent-Type: text/plain"},
        bad(MALFORMED, "This is not an HTTP request that this server can read"),
    ),
]


@pytest.mark.requirement("completions:foreign-features-are-refused", "http:body-is-bounded", "http:body-is-json")
@pytest.mark.parametrize(("given", "told"), MISTAKES, ids=range(len(MISTAKES)))
async def test_what_is_wrong_with_a_request_is_told_in_these_words(rig: Rig, given: dict[str, Any], told: Told) -> None:
    answer = await rig.ask(post(**given))
    assert_told(answer, told)
    assert "x-execution-id" not in answer.headers


WORDS = "These words"
CONVERSATION = "metadata.conversation_id"
# What the cluster says of a turn, and what its client is told.
ENDINGS: list[tuple[ErrorCode, Told]] = [
    (ErrorCode.CONVERSATION_UNKNOWN, Told(404, "not_found_error", "conversation.unknown", WORDS, CONVERSATION)),
    (ErrorCode.CONVERSATION_BUSY, Told(409, "conflict_error", "conversation.busy", WORDS, CONVERSATION)),
    (ErrorCode.TURN_CANCELLED, Told(409, "conflict_error", "turn.cancelled", WORDS)),
    (ErrorCode.CONVERSATION_FULL, Told(429, "rate_limit_error", "queue_full", WORDS, CONVERSATION)),
    (ErrorCode.UPSTREAM_LIMITED, Told(429, "rate_limit_error", "rate_limit_exceeded", WORDS)),
    (ErrorCode.UPSTREAM_CONTEXT, Told(400, "invalid_request_error", "context_length_exceeded", WORDS, "messages")),
    (ErrorCode.UPSTREAM_UNREACHABLE, Told(502, "upstream_error", "upstream.unreachable", WORDS)),
    (ErrorCode.UPSTREAM_REFUSED, Told(502, "upstream_error", "upstream.refused", WORDS)),
    (ErrorCode.UPSTREAM_FAILED, Told(502, "upstream_error", "upstream.failed", WORDS)),
    (ErrorCode.UPSTREAM_CUT, Told(502, "upstream_error", "upstream.cut", WORDS)),
    (ErrorCode.TOOL_UNKNOWN, Told(502, "upstream_error", "tool.unknown", WORDS)),
    (ErrorCode.TURN_EXHAUSTED, Told(502, "upstream_error", "turn.exhausted", WORDS)),
    (ErrorCode.STORE_DOWN, Told(503, "unavailable", "store.down", WORDS)),
    (ErrorCode.UPSTREAM_TIMEOUT, Told(504, "upstream_timeout", "upstream.timeout", WORDS)),
    (ErrorCode.TURN_TIMEOUT, Told(504, "upstream_timeout", "turn.timeout", WORDS)),
    (ErrorCode.INTERNAL, CRASHED),
    (ErrorCode.CONTRACT_VIOLATED, CRASHED),
]


@pytest.mark.requirement("http:error-body", "stream:failure-is-a-status-first")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("code", "told"), ENDINGS)
async def test_a_turn_that_fails_before_its_first_event_is_told_in_these_words(
    rig: Rig, stream: bool, code: ErrorCode, told: Told
) -> None:
    client = rig.client()
    await client.send(post({**ASK, "stream": stream}))
    start = await rig.cluster.start()
    rig.cluster.fail(start, code, WORDS)
    answer = await client.answer()
    assert_told(answer, told)
    assert answer.headers["x-execution-id"] == start.turn


@pytest.mark.requirement("fault:store-down")
async def test_with_the_store_down_every_route_says_so(rig: Rig) -> None:
    assert (await rig.ask(get("/v1/models"))).status == 200
    rig.store_state.mark_down("gone")
    known = "The store does not answer; no new turns are taken"
    assert_told(await rig.ask(post(ASK)), Told(503, "unavailable", "store.down", known))
    for request in (post(ASK, key=OTHER.text), get("/v1/models", key=OTHER.text)):
        unknown = "The store does not answer; try again"
        assert_told(await rig.ask(request), Told(503, "unavailable", "store.down", unknown))


@pytest.mark.requirement("http:draining-is-told")
async def test_a_server_that_stops_says_so_on_every_route(rig: Rig) -> None:
    rig.life.signal()
    for request in (post(ASK), get("/v1/models"), get("/v1/models/scripted")):
        told = Told(503, "unavailable", "service.draining", "This server is stopping; try again")
        assert_told(await rig.ask(request), told)


@pytest.mark.requirement("fault:queue-full")
async def test_too_many_open_turns_are_told_in_these_words(gateway_server: OwnServer, tmp_path: Path) -> None:
    async with open_rig(gateway_server.url, tmp_path, replica="gw-crowded", max_streams=1) as rig:
        first = rig.client()
        await first.send(post(ASK))
        start = await rig.cluster.start()
        told = Told(429, "rate_limit_error", "queue_full", "Too many turns are open")
        assert_told(await rig.ask(post(ASK)), told)
        rig.cluster.end(start, "x")
        assert (await first.answer()).status == 200


@pytest.mark.requirement("fault:bus-down", "fault:queue-full")
async def test_a_full_queue_and_a_dead_bus_are_told_in_these_words(tmp_path: Path) -> None:
    (tmp_path / "nats").mkdir()
    server = OwnServer(tmp_path / "nats")
    try:
        async with open_bus(server.url, name="bootstrap") as bus:
            await apply(bus, topology(turn_queue_max=1), replicas=1)
        async with open_rig(server.url, tmp_path, replica="gw-narrow", is_worked=False) as rig:
            waiting = rig.client()
            await waiting.send(post(ASK))
            await until(lambda: holds_one(rig))
            assert_told(await rig.ask(post(ASK)), Told(429, "rate_limit_error", "queue_full", "The queue is full."))
            server.kill()
            answer = await rig.ask(post(ASK))
            assert (answer.status, answer.error["type"], answer.error["code"]) == (503, "unavailable", "bus.down")
            assert answer.error["message"].startswith("The message bus ")
            assert answer.headers["retry-after"] == "1"
    finally:
        server.kill()


async def holds_one(rig: Rig) -> bool:
    return bool((await jetstream(rig.cluster.bus, f"STREAM.INFO.{TURN}"))["state"]["messages"] == 1)


@pytest.mark.requirement("http:body-is-json")
@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON;charset=UTF-8"])
async def test_json_in_utf_8_is_taken_however_it_is_spelled(rig: Rig, content_type: str) -> None:
    answer = await rig.ask(post({}, **{"Content-Type": content_type, "Content-Encoding": "identity"}))
    assert answer.error["code"] == "request.invalid"


@pytest.mark.requirement("http:checks-in-order")
async def test_checks_come_in_their_order(rig: Rig) -> None:
    assert (await rig.ask(post(b"{", key=None, **{"Content-Type": "text/plain"}))).status == 415
    assert (await rig.ask(post(b"{", key=None))).status == 401
    assert (await rig.ask(post(b"{"))).error["code"] == "request.malformed"
    assert (await rig.ask(post({"model": "nothing"}))).error["code"] == "request.invalid"
    assert (await rig.ask(post({**ASK, "model": "nothing"}))).error["code"] == "model_not_found"


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    head = post(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + end


async def test_a_chunked_body_is_read(rig: Rig) -> None:
    data = json.dumps({"model": "nothing", "messages": ASK["messages"]}).encode()
    assert (await rig.ask(chunked(data[:10], data[10:]))).error["code"] == "model_not_found"


@pytest.mark.requirement("http:body-is-bounded")
async def test_a_chunked_body_that_grows_too_large_is_refused_and_its_sender_sees_why(rig: Rig) -> None:
    client = rig.client()
    sending = asyncio.create_task(client.send(chunked(*[b"x" * 65536] * 40)))
    await sending
    answer = await client.answer()
    assert_told(answer, bad(LARGE, "The body must not be larger than 2097152 bytes", status=413))
    assert answer.headers["connection"] == "close"
    assert await client.ended()


async def test_chunks_that_break_off_or_lie_are_a_bad_request(rig: Rig) -> None:
    for broken in (b"zz\r\nabc\r\n", b"5\r\nabc\r\n0\r\n\r\n\r\n"):
        client = rig.client()
        await client.send(chunked(b"{", end=b""))
        await client.send(broken)
        assert (await client.answer()).status == 400


async def test_a_client_that_waits_for_permission_to_send_gets_it_after_its_credential_was_accepted(rig: Rig) -> None:
    data = json.dumps({}).encode()
    client = rig.client()
    await client.send(post(data, Expect="100-continue").removesuffix(data))
    assert (await client.head())[0] == 100
    await client.send(data)
    assert (await client.answer()).error["code"] == "request.invalid"
    refused = rig.client()
    await refused.send(post(data, key=None, Expect="100-continue").removesuffix(data))
    assert (await refused.head())[0] == 401


@pytest.mark.requirement("http:unknown-routes")
async def test_unknown_paths_and_methods_are_refused_in_our_words(rig: Rig) -> None:
    answer = await rig.ask(get("/nothing"))
    assert_told(answer, Told(404, "not_found_error", "route.unknown", NOWHERE))
    answer = await rig.ask(get("/v1/chat/completions"))
    assert_told(answer, bad("request.method", "This path takes POST, not GET", status=405))
    assert answer.headers["allow"] == "POST"
    for path in ("/v1/models", "/v1/models/scripted"):
        answer = await rig.ask(post({}, path=path))
        assert_told(answer, bad("request.method", "This path takes GET or HEAD, not POST", status=405))
        assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.requirement("openapi:docs-page-is-inert")
async def test_the_api_describes_itself_without_a_credential(rig: Rig) -> None:
    described = await rig.ask(get("/openapi.json", key=None))
    assert described.json()["openapi"] == "3.1.0"
    page = await rig.ask(get("/docs", key=None))
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert b"/v1/chat/completions" in page.body
    entrance = await rig.ask(get("/", key=None))
    assert (entrance.status, entrance.headers["location"]) == (302, "/docs")


@pytest.mark.requirement("http:crash-is-a-fixed-sentence")
async def test_a_crash_is_a_fixed_sentence(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def crash(*_: object) -> None:
        raise RuntimeError("a secret at /etc/passwd")

    monkeypatch.setattr(rig.stores.keys, "find", crash)
    answer = await rig.ask(post(ASK))
    assert_told(answer, CRASHED)


KEYED = f"Authorization: Bearer {KEY.text}\r\n".encode()
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
CORPUS = [
    b"GET /nothing HTTP/1.1\r\n\r\n",
    b"GARBAGE\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /nothing HTTP/9.9\r\nHost: a\r\n\r\n",
    b"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /v1/models/%ff%fe HTTP/1.1\r\nHost: a\r\n" + KEYED + b"\r\n",
    b"GET /v1/models/%2e%2e%2f HTTP/1.1\r\nHost: a\r\n" + KEYED + b"\r\n",
    b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http://[::1 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http://a:99999999/ HTTP/1.1\r\nHost: a\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"FOO /nothing HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /nothing HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 9000 + b"\r\n\r\n",
    b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /nothing HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X%d: a\r\n" % n for n in range(200)) + b"\r\n",
    b"GET /nothing HTTP/1.1\r\nHost: a\r\nX\x00: a\r\n\r\n",
    b"GET /nothing HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n",
    b"GET /nothing HTTP/1.1\r\nHost: a\r\nX: \xff\xfe\r\n\r\n",
    b"GET /nothing HTTP/1.1\r\nHost: a\r\nx-request-id: \xff\xfe\r\n\r\n",
    b"GET /nothing HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
    b"GET /nothing HTTP/1.1\nHost: a\n\n",
    b"GET /nothing HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /v1/models?a=%zz&b=\xc3\x28 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /nothing HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    b"GET /nothing HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\nxxxx",
    POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    POST + b"Content-Length: -5\r\n\r\n",
    POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
    POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    POST + KEYED + b"Transfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    POST + KEYED + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\nabc\r\n0\r\n\r\n",
    POST + KEYED + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcXX0\r\n\r\n",
    POST + KEYED + b"Expect: banana\r\nContent-Length: 2\r\n\r\n{}",
    POST + b"Authorization: Bearer \xff\r\nContent-Length: 2\r\n\r\n{}",
    b"A" * 20_000,
]
LEAKS = (b"Traceback", b"/home", b"site-packages", b".py", b"aiohttp", b"pydantic")


@pytest.mark.parametrize(
    "request_line",
    [b"GET /", b"GET / HTTP/0.9", b"GET / HTTP/2.0", b"GET / HTTP/9.9", b"GARBAGE", b"PRI * HTTP/2.0"],
)
async def test_what_is_no_request_of_ours_is_refused_in_the_version_that_we_speak(
    rig: Rig, request_line: bytes
) -> None:
    client = rig.client()
    await client.send(request_line + b"\r\nHost: a\r\n\r\n")
    async with asyncio.timeout(10):
        told = await client.reader.read()
    assert told.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"This is not an HTTP request that this server can read" in told


@pytest.mark.requirement("promise:P13")
async def test_nothing_malformed_breaks_the_server(rig: Rig) -> None:
    for request in CORPUS:
        answer = await rig.ask(request)
        assert 400 <= answer.status < 500, request[:80]
        assert not any(leak in answer.body for leak in LEAKS)
        assert set(answer.error) == {"message", "type", "code", "param", "request_id"}
    assert (await rig.ask(get("/v1/models"))).status == 200


@pytest.fixture
async def impatient_rig(
    gateway_server: OwnServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Rig]:
    """A gateway that gives up quickly on what does not arrive."""
    monkeypatch.setattr(http_server, "KEEPALIVE_S", 0.3)
    monkeypatch.setattr(http_server, "LINGER_S", 0.1)
    async with open_rig(gateway_server.url, tmp_path, replica="gw-impatient", body_timeout_s=0.2) as rig:
        yield rig


@pytest.mark.requirement("promise:P13")
async def test_no_mutation_of_a_good_request_breaks_the_server(impatient_rig: Rig) -> None:
    rig = impatient_rig
    chance = random.Random(7)  # a recorded seed, so that a failure can be repeated
    good = post({**ASK, "model": "nothing", "metadata": {"conversation_id": "c", "request_id": "r"}})

    async def try_one(request: bytes) -> int:
        client = rig.client()
        await client.send(request)
        async with asyncio.timeout(10):
            told = await client.reader.read()
        return int(told[9:12]) if told else 0

    requests = []
    for _ in range(300):
        request = bytearray(good)
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(request))
            match chance.randrange(3):
                case 0:
                    request[at] = chance.randrange(256)
                case 1:
                    del request[at : at + chance.randint(1, 8)]
                case _:
                    request[at:at] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 8)))
        requests.append(bytes(request))
    statuses = await asyncio.gather(*map(try_one, requests))
    assert set(statuses) <= {0, 400, 401, 404, 405, 408, 415}
    assert statuses.count(0) < 30
    assert (await rig.ask(get("/v1/models"))).status == 200


@pytest.mark.requirement("http:half-sent-requests")
async def test_a_body_that_does_not_arrive_is_given_up(impatient_rig: Rig) -> None:
    client = impatient_rig.client()
    await client.send(post(ASK)[:-5])
    answer = await client.answer()
    assert_told(answer, bad("request.timeout", "The body did not arrive within 0.2 s", status=408))
    assert answer.headers["connection"] == "close"
    assert await client.ended()


@pytest.mark.requirement("http:half-sent-requests")
async def test_headers_that_do_not_arrive_are_given_up(impatient_rig: Rig) -> None:
    client = impatient_rig.client()
    await client.send(b"POST /v1/chat")
    assert await client.ended()


@pytest.mark.requirement("http:half-sent-requests")
async def test_an_idle_connection_is_closed(impatient_rig: Rig) -> None:
    client = impatient_rig.client()
    await client.send(get("/v1/models"))
    assert (await client.answer()).status == 200
    assert await client.ended()
