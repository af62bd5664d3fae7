"""Everything that is refused, with its exact words, and nothing that breaks."""

import asyncio
import gzip
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from integration.bus.rig import OwnServer
from integration.gateway.rig import ASK, KEY, TENANT, Rig, get, key_record, open_rig, post
from kitemesh_contracts import subjects
from kitemesh_gateway import http_server
from kitemesh_runtime import keyring
from kitemesh_runtime.metrics import REGISTRY

UNAUTHORIZED = "The credential is missing, malformed, unknown, revoked or expired"
NO_MODEL = "The model does not exist, or is not available to this key"
OTHER = keyring.make(bytes(range(1, 41)))


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
    bodies = set()
    for request in requests:
        answer = await rig.ask(request)
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        error = answer.error
        error.pop("request_id")
        bodies.add(json.dumps(error))
    assert bodies == {
        json.dumps(
            {"message": UNAUTHORIZED, "type": "authentication_error", "code": "credential.invalid", "param": None},
        ),
    }


async def test_a_revoked_key_is_refused_after_the_broadcast(rig: Rig) -> None:
    assert (await rig.ask(get("/v1/models"))).status == 200
    await rig.stores.keys.revoke(TENANT, KEY.id)
    rig.cluster.bus.publish(subjects.key_changed(KEY.id), b"")
    async with asyncio.timeout(3):
        while (await rig.ask(get("/v1/models"))).status != 401:
            await rig.cluster.bus.barrier()


async def test_a_key_without_the_scope_may_not_chat(rig: Rig) -> None:
    await rig.stores.keys.put(TENANT, key_record(OTHER, scopes=("admin",)))
    answer = await rig.ask(post(ASK, key=OTHER.text))
    assert answer.status == 403
    assert (answer.error["type"], answer.error["code"]) == ("permission_error", "permission.denied")
    assert (await rig.ask(get("/v1/models", key=OTHER.text))).status == 200


async def test_every_refusal_is_counted_by_its_code(rig: Rig) -> None:
    def counted() -> float:
        return REGISTRY.get_sample_value("kitemesh_http_refusals_total", {"code": "credential.invalid"}) or 0.0

    before = counted()
    await rig.ask(get("/v1/models", key="km_short"))
    assert counted() == before + 1


async def test_a_model_that_is_not_the_keys_is_unknown(rig: Rig) -> None:
    await rig.stores.keys.put(TENANT, key_record(OTHER, models=("scripted",)))
    answers = [
        await rig.ask(post({**ASK, "model": "org/name:tag"}, key=OTHER.text)),
        await rig.ask(post({**ASK, "model": "nothing"}, key=OTHER.text)),
        await rig.ask(post({**ASK, "model": "group:00000000-0000-4000-8000-000000000000"}, key=OTHER.text)),
        await rig.ask(post({**ASK, "model": "agent:nobody"}, key=OTHER.text)),
        await rig.ask(get("/v1/models/org/name:tag", key=OTHER.text)),
        await rig.ask(get("/v1/models/nothing", key=OTHER.text)),
    ]
    for answer in answers:
        assert answer.status == 404
        assert answer.error == {
            "message": NO_MODEL,
            "type": "not_found_error",
            "code": "model_not_found",
            "param": "model",
            "request_id": answer.headers["x-request-id"],
        }
    listed = (await rig.ask(get("/v1/models", key=OTHER.text))).json()
    assert [model["id"] for model in listed["data"]] == ["scripted"]


async def test_models_are_listed_and_found_by_raw_ids(rig: Rig) -> None:
    listed = (await rig.ask(get("/v1/models"))).json()
    assert listed["object"] == "list"
    assert all(
        set(model) == {"id", "object", "created", "owned_by"} and isinstance(model["created"], int)
        for model in listed["data"]
    )
    for model in listed["data"]:
        assert (await rig.ask(get(f"/v1/models/{model['id']}"))).json() == model
    assert (await rig.ask(get("/v1/models/org%2Fname%3Atag"))).json()["id"] == "org/name:tag"


async def test_an_agent_whose_mode_only_a_later_version_knows_is_refused(rig: Rig) -> None:
    answer = await rig.ask(post({**ASK, "model": "agent:lasting"}))
    assert (answer.status, answer.error["code"]) == (400, "request.unsupported")


BODIES: list[tuple[dict[str, Any], int, str]] = [
    ({"body": b"{"}, 400, "request.malformed"),
    ({"body": b""}, 400, "request.malformed"),
    ({"body": b'{"model":NaN}'}, 400, "request.malformed"),
    ({"body": b'{"model":"\\ud800","messages":[{"role":"user","content":"x"}]}'}, 400, "request.malformed"),
    ({"body": b"[" * 500_000}, 400, "request.malformed"),
    ({"body": b"\xff\xfe"}, 400, "request.malformed"),
    ({"body": b'{"seed":' + b"9" * 5000 + b"}"}, 400, "request.malformed"),
    ({"body": []}, 400, "request.invalid"),
    ({"body": {**ASK, "n": 2}}, 400, "request.unsupported"),
    ({"body": ASK, "Content-Type": "text/plain"}, 415, "request.media_type"),
    ({"body": ASK, "Content-Type": "application/json; charset=latin-1"}, 415, "request.media_type"),
    ({"body": ASK, "Content-Type": "application/json\r\nContent-Type: text/plain"}, 400, "request.malformed"),
    ({"body": ASK, "Content-Encoding": "gzip"}, 415, "request.media_type"),
    ({"body": gzip.compress(b"{}"), "Content-Encoding": "GZIP"}, 415, "request.media_type"),
    ({"body": b"x" * (1024 * 1024 + 1)}, 413, "request.too_large"),
    ({"body": ASK, "Idempotency-Key": "k"}, 400, "request.unsupported"),
    ({"body": ASK, "Last-Event-ID": "x:1.1.1.0"}, 400, "request.unsupported"),
]


@pytest.mark.parametrize(("given", "status", "code"), BODIES, ids=range(len(BODIES)))
async def test_a_bad_body_is_refused_by_name(rig: Rig, given: dict[str, Any], status: int, code: str) -> None:
    answer = await rig.ask(post(**given))
    assert (answer.status, answer.error["code"]) == (status, code)
    assert answer.error["type"] == "invalid_request_error"


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON;charset=UTF-8"])
async def test_json_in_utf_8_is_taken_however_it_is_spelled(rig: Rig, content_type: str) -> None:
    answer = await rig.ask(post({}, **{"Content-Type": content_type, "Content-Encoding": "identity"}))
    assert answer.error["code"] == "request.invalid"


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


async def test_a_chunked_body_that_grows_too_large_is_refused_and_its_sender_sees_why(rig: Rig) -> None:
    client = rig.client()
    sending = asyncio.create_task(client.send(chunked(*[b"x" * 65536] * 40)))
    await sending
    answer = await client.answer()
    assert (answer.status, answer.error["code"]) == (413, "request.too_large")
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


async def test_unknown_paths_and_methods_are_refused_in_our_words(rig: Rig) -> None:
    answer = await rig.ask(get("/nothing"))
    assert (answer.status, answer.error["code"]) == (404, "route.unknown")
    answer = await rig.ask(get("/v1/chat/completions"))
    assert (answer.status, answer.error["code"], answer.headers["allow"]) == (405, "request.method", "POST")


async def test_the_api_describes_itself_without_a_credential(rig: Rig) -> None:
    described = await rig.ask(get("/openapi.json", key=None))
    assert described.json()["openapi"] == "3.1.0"
    page = await rig.ask(get("/docs", key=None))
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert b"/v1/chat/completions" in page.body


async def test_a_crash_is_a_fixed_sentence(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def crash(*_: object) -> None:
        raise RuntimeError("a secret at /etc/passwd")

    monkeypatch.setattr(rig.stores.keys, "find", crash)
    answer = await rig.ask(post(ASK))
    assert answer.status == 500
    assert answer.error == {
        "message": "Internal error; the request id names it in the server's log",
        "type": "internal_error",
        "code": "internal",
        "param": None,
        "request_id": answer.headers["x-request-id"],
    }


KEYED = f"Authorization: Bearer {KEY.text}\r\n".encode()
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
CORPUS = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"GARBAGE\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
    b"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /v1/models/%ff%fe HTTP/1.1\r\nHost: a\r\n" + KEYED + b"\r\n",
    b"GET /v1/models/%2e%2e%2f HTTP/1.1\r\nHost: a\r\n" + KEYED + b"\r\n",
    b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http://[::1 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http://a:99999999/ HTTP/1.1\r\nHost: a\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"FOO / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 9000 + b"\r\n\r\n",
    b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X%d: a\r\n" % n for n in range(200)) + b"\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX\x00: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: \xff\xfe\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nx-request-id: \xff\xfe\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
    b"GET / HTTP/1.1\nHost: a\n\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /v1/models?a=%zz&b=\xc3\x28 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\nxxxx",
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


async def test_a_body_that_does_not_arrive_is_given_up(impatient_rig: Rig) -> None:
    client = impatient_rig.client()
    await client.send(post(ASK)[:-5])
    answer = await client.answer()
    assert (answer.status, answer.error["code"]) == (408, "request.timeout")
    assert answer.headers["connection"] == "close"
    assert await client.ended()


async def test_headers_that_do_not_arrive_are_given_up(impatient_rig: Rig) -> None:
    client = impatient_rig.client()
    await client.send(b"POST /v1/chat")
    assert await client.ended()


async def test_an_idle_connection_is_closed(impatient_rig: Rig) -> None:
    client = impatient_rig.client()
    await client.send(get("/v1/models"))
    assert (await client.answer()).status == 200
    assert await client.ended()
