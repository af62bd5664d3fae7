"""Limits of keys and tenants through a whole gateway: what is told, what is taken, and that nothing is left behind."""

import asyncio
from typing import Any

import pytest

from integration.gateway.rig import ASK, TENANT, Rig, get, key_record, post
from kitemesh_contracts.content import Usage
from kitemesh_contracts.errors import ErrorCode
from kitemesh_contracts.subjects import tenant_changed
from kitemesh_runtime import keyring
from kitemesh_runtime.tenancy import Limits, TenantRecord

FEW = keyring.make(bytes(range(1, 41)))
"""Six requests a minute: one at once."""
SHORT = keyring.make(bytes(range(2, 42)))
"""A bound on tokens."""
ALONE = keyring.make(bytes(range(3, 43)))
"""One turn at a time."""
BOTH = keyring.make(bytes(range(6, 46)))
"""Two requests at once, two turns at a time."""

UI = {"id": "c-1", "messages": [{"id": "m-1", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}]}
RUN: dict[str, Any] = {**ASK, "stream": False}
DURABLE: dict[str, Any] = {**ASK, "metadata": {"mode": "durable"}}


@pytest.fixture
async def rig(rig: Rig) -> Rig:
    bounds = {
        FEW: Limits(requests_per_minute=6),
        SHORT: Limits(tokens_per_minute=6000),
        ALONE: Limits(concurrent_turns=1),
        BOTH: Limits(requests_per_minute=12, concurrent_turns=2),
    }
    for key, limits in bounds.items():
        await rig.stores.keys.put(TENANT, key_record(key, limits=limits, default_agent="helper"))
    return rig


async def served(rig: Rig, request: bytes, **ending: Any) -> Any:
    asked = asyncio.create_task(rig.ask(request))
    rig.cluster.end(await rig.cluster.start(), "Hello", **ending)
    return await asked


async def served_or_refused(rig: Rig, request: bytes) -> Any:
    asked = asyncio.create_task(rig.ask(request))
    begun = asyncio.create_task(rig.cluster.start())
    await asyncio.wait((asked, begun), return_when=asyncio.FIRST_COMPLETED)
    if asked.done():
        begun.cancel()
    else:
        rig.cluster.end(await begun, "Hello")
    return await asked


async def gone(rig: Rig) -> None:
    """Return when the gateway knows that no client waits any more."""
    async with asyncio.timeout(5):
        await rig.gateway.funnel.wait_idle()


@pytest.mark.requirement("limits:headers", "limits:rate")
async def test_a_limited_key_is_told_what_is_left_and_when_to_come_again(rig: Rig) -> None:
    first = await served(rig, post(ASK, key=FEW.text))
    assert first.status == 200
    assert first.headers["x-ratelimit-limit-requests"] == "6"
    assert first.headers["x-ratelimit-remaining-requests"] == "0"
    refused = await rig.ask(post(ASK, key=FEW.text))
    assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert 8 <= int(refused.headers["retry-after"]) <= 10
    assert "x-execution-id" not in refused.headers


@pytest.mark.requirement("limits:dialects")
@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/v1/chat/completions", ASK, b'"code":"rate_limit_exceeded"'),
        ("/v1/chat/resume", {}, b'"code":"rate_limit_exceeded"'),
        ("/run/v1/chat/completions", RUN, b'"code":"too_many_requests"'),
        ("/run/api/chat", UI, b'"code":"too_many_requests"'),
        ("/api/kernel2/chat", {"messages": ASK["messages"]}, b'"success":false'),
        ("/api/agents/helper/chat", {"message": "Hi"}, b'"code":429'),
        ("/v1/executions", ASK, b'"code":"limit.rate"'),
        ("/v1/approvals/any/decide", {}, b'"code":"limit.rate"'),
    ],
)
async def test_every_dialect_says_it_in_its_own_words(rig: Rig, path: str, body: object, words: bytes) -> None:
    await served(rig, post(ASK, key=FEW.text))
    refused = await rig.ask(post(body, path=path, key=FEW.text))
    assert refused.status == 429
    assert words in refused.body
    assert 8 <= int(refused.headers["retry-after"]) <= 10


@pytest.mark.requirement("limits:concurrency", "limits:refusals-take-nothing")
@pytest.mark.parametrize("body", [ASK, DURABLE, {**ASK, "stream": True}], ids=["whole", "durable", "stream"])
async def test_a_turn_has_its_slot_until_it_ends(rig: Rig, body: dict[str, Any]) -> None:
    for _ in range(2):
        asked = asyncio.create_task(rig.ask(post(body, key=ALONE.text)))
        start = await rig.cluster.start()
        refused = await rig.ask(post(body, key=ALONE.text))
        assert (refused.status, refused.error["code"]) == (429, "concurrency_limit_exceeded")
        rig.cluster.end(start, "Hello")
        assert (await asked).status == 200


@pytest.mark.requirement("limits:concurrency")
async def test_a_background_run_has_its_slot_until_it_ends_although_nobody_follows_it(rig: Rig) -> None:
    accepted = await rig.ask(post(ASK, path="/v1/executions", key=ALONE.text))
    assert accepted.status == 202
    start = await rig.cluster.start()
    assert (await rig.ask(post(ASK, key=ALONE.text))).status == 429
    rig.cluster.end(start, "Hello")
    await rig.bus.barrier()
    await rig.cluster.bus.barrier()
    assert (await served(rig, post(ASK, key=ALONE.text))).status == 200


@pytest.mark.requirement("limits:no-slot-leaks")
async def test_a_client_that_leaves_leaves_no_slot_behind(rig: Rig) -> None:
    client = rig.client()
    await client.send(post({**ASK, "stream": True}, key=ALONE.text))
    await rig.cluster.start()
    client.close()
    await rig.cluster.cancel()
    assert (await served(rig, post(ASK, key=ALONE.text))).status == 200


@pytest.mark.requirement("limits:no-slot-leaks")
async def test_what_is_refused_after_it_was_reserved_leaves_no_slot_behind(rig: Rig) -> None:
    message = {"conversationId": "c-1", "messageId": "m-1", **RUN}
    path = "/run/v1/chat/completions"
    assert (await served(rig, post(message, path=path, key=ALONE.text))).status == 200
    for _ in range(2):
        assert (await rig.ask(post(message, path=path, key=ALONE.text))).status == 409
    assert (await served(rig, post(ASK, key=ALONE.text), outcome="failed", finish=None)).status == 500
    assert (await served(rig, post(ASK, key=ALONE.text))).status == 200


@pytest.mark.requirement("limits:no-slot-leaks")
async def test_a_repeated_request_takes_no_slot_beside_the_turn_that_it_means(rig: Rig) -> None:
    request = post(ASK, key=ALONE.text, Idempotency_Key="once")
    first = asyncio.create_task(rig.ask(request))
    start = await rig.cluster.start()
    rig.cluster.end(start, "Hello")
    assert (await first).status == 200
    assert (await served(rig, post(ASK, key=ALONE.text))).status == 200


@pytest.mark.requirement("limits:no-slot-leaks")
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/executions"])
async def test_a_durable_turn_whose_client_left_while_it_was_stored_is_counted_until_it_ends(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    stored, insert = asyncio.Event(), rig.stores.live_turns.insert
    answered = asyncio.Event()

    async def insert_slowly(*values: Any) -> bool:
        stored.set()
        await answered.wait()
        return await insert(*values)

    monkeypatch.setattr(rig.stores.live_turns, "insert", insert_slowly)
    client = rig.client()
    await client.send(post(DURABLE, path=path, key=ALONE.text))
    async with asyncio.timeout(5):
        await stored.wait()
    client.close()
    monkeypatch.undo()
    await gone(rig)
    answered.set()
    start = await rig.cluster.start()
    assert (await rig.ask(post(ASK, key=ALONE.text))).status == 429
    rig.cluster.end(start, "Hello")
    await rig.cluster.bus.barrier()
    await rig.bus.barrier()
    assert (await served(rig, post(ASK, key=ALONE.text))).status == 200


@pytest.mark.requirement("limits:no-slot-leaks")
async def test_a_turn_of_which_nothing_came_after_its_client_left_leaves_no_slot_behind(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await rig.ask(post(ASK, path="/v1/executions", Idempotency_Key="once"))
    assert first.status == 202
    await rig.cluster.start()
    claiming, claim = asyncio.Event(), rig.stores.claims.claim
    answered = asyncio.Event()

    async def claim_slowly(*values: Any, **more: Any) -> Any:
        claiming.set()
        await answered.wait()
        return await claim(*values, **more)

    monkeypatch.setattr(rig.stores.claims, "claim", claim_slowly)
    client = rig.client()
    await client.send(post(ASK, path="/v1/executions", key=ALONE.text, Idempotency_Key="once"))
    async with asyncio.timeout(5):
        await claiming.wait()
    client.close()
    monkeypatch.undo()
    await gone(rig)
    answered.set()
    async with asyncio.timeout(5):
        while (answer := await served_or_refused(rig, post(ASK, key=ALONE.text))).status == 429:
            pass
    assert answer.status == 200


@pytest.mark.requirement("limits:rate")
async def test_asking_for_the_answer_of_a_key_again_counts_as_a_request(rig: Rig) -> None:
    request = post(ASK, key=BOTH.text, Idempotency_Key="once")
    asked = asyncio.create_task(rig.ask(request))
    start = await rig.cluster.start()
    replay = asyncio.create_task(rig.ask(request))
    async with asyncio.timeout(5):
        while rig.gateway.relay.readers < 2:
            await rig.bus.barrier()
    rig.cluster.end(start, "Hello")
    assert [(await each).status for each in (asked, replay)] == [200, 200]
    assert (await rig.ask(request)).status == 429


@pytest.mark.requirement("limits:refusals-take-nothing")
async def test_a_turn_that_is_refused_behind_the_gateway_takes_no_request(rig: Rig) -> None:
    for _ in range(2):
        asked = asyncio.create_task(rig.ask(post(ASK, key=BOTH.text)))
        rig.cluster.fail(await rig.cluster.start(), ErrorCode.CONVERSATION_BUSY)
        assert (await asked).status == 409
    for _ in range(2):
        assert (await served(rig, post(ASK, key=BOTH.text))).status == 200


@pytest.mark.requirement("limits:tokens")
async def test_an_answer_too_large_to_travel_is_settled_although_nobody_follows_it(rig: Rig) -> None:
    accepted = await rig.ask(post(ASK, path="/v1/executions", key=SHORT.text))
    assert accepted.status == 202
    await rig.cluster.end_large(await rig.cluster.start(), "x" * 300_000, usage=Usage(output_tokens=50_000))
    await rig.cluster.bus.barrier()
    await rig.bus.barrier()
    async with asyncio.timeout(5):
        while (answer := await served_or_refused(rig, post(ASK, key=SHORT.text))).status == 200:
            pass
    assert (answer.status, answer.headers["x-ratelimit-remaining-tokens"]) == (429, "0")


@pytest.mark.requirement("limits:tokens")
async def test_tokens_are_reserved_before_a_turn_and_settled_after_it(rig: Rig) -> None:
    ask = {**ASK, "max_tokens": 900}
    used = Usage(input_tokens=20, output_tokens=30)
    for n in range(1, 4):
        answer = await served(rig, post(ask, key=SHORT.text), usage=used)
        assert answer.status == 200
        left = (await rig.ask(post({**ASK, "model": "nobody"}, key=SHORT.text))).headers["x-ratelimit-remaining-tokens"]
        assert 1000 - 50 * n <= int(left) <= 1000
    large = {**ASK, "max_tokens": 700}
    both = [asyncio.create_task(rig.ask(post(large, key=SHORT.text))) for _ in range(2)]
    start = await rig.cluster.start()
    done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    (refused,) = (each.result() for each in done)
    assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
    assert "tokens a minute" in refused.error["message"]
    rig.cluster.end(start, "Hello")
    await asyncio.gather(*both)


@pytest.mark.requirement("limits:tenant")
async def test_a_tenants_limit_holds_for_all_its_keys_together(rig: Rig) -> None:
    other = keyring.make(bytes(range(4, 44)))
    await rig.stores.keys.put("rival", key_record(other, tenant="rival"))
    twin = keyring.make(bytes(range(5, 45)))
    await rig.stores.keys.put("rival", key_record(twin, tenant="rival"))
    await rig.stores.tenants.put(TenantRecord(id="rival", limits=Limits(requests_per_minute=6)))
    rig.cluster.bus.publish(tenant_changed("rival"), b"")
    await rig.cluster.bus.barrier()
    async with asyncio.timeout(10):
        while "x-ratelimit-limit-requests" not in (answer := await served(rig, post(ASK, key=other.text))).headers:
            await rig.bus.barrier()
    assert answer.status == 200
    assert (await rig.ask(post(ASK, key=twin.text))).status == 429
    assert (await served(rig, post(ASK))).status == 200


@pytest.mark.requirement("models:health")
async def test_models_say_how_they_look(rig: Rig) -> None:
    listed = (await rig.ask(get("/v1/models"))).json()["data"]
    assert {model["kitemesh"]["health"] for model in listed} == {"ok"}


@pytest.mark.requirement("backpressure:max-wait")
async def test_a_wait_that_is_none_is_refused_with_its_name(rig: Rig) -> None:
    refused = await rig.ask(post(ASK, x_kitemesh_max_wait_s="soon"))
    assert (refused.status, refused.error["param"]) == (400, "x-kitemesh-max-wait-s")


@pytest.mark.requirement("backpressure:max-wait", "fairness:priority")
async def test_what_a_request_wishes_for_travels_with_its_turn(rig: Rig) -> None:
    body = {**ASK, "metadata": {"max_wait_s": 20, "priority": "batch"}}
    for request in (post(body), post(ASK, x_kitemesh_max_wait_s="20", x_kitemesh_priority="batch")):
        asked = asyncio.create_task(rig.ask(request))
        start = await rig.cluster.start()
        assert (start.max_wait_s, start.priority) == (20.0, "batch")
        rig.cluster.fail(start, ErrorCode.QUEUE_FULL, retry_after_s=7.0)
        answer = await asked
        assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (429, "queue_full", "7")
