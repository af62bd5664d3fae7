"""The native routes of held calls, over HTTP and the real bus, with the test as the orchestrator."""

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from integration.bus.rig import OwnServer
from integration.gateway.rig import Answer, Rig, get, key_record, open_rig, post
from kitemesh_contracts import codec, subjects
from kitemesh_contracts.commands import ApplyHold
from kitemesh_contracts.content import Step, ToolCall
from kitemesh_runtime import keyring
from kitemesh_runtime.holds import Hold
from kitemesh_runtime.live_turns import LiveTurn
from unit.gateway.holding import CALL, CATALOG, HOLD, OTHER_CALL, TENANT, TURN, held_call, hold

APPROVER, CHATTER, STRANGER = (keyring.make(bytes(range(n, n + 40))) for n in (60, 70, 80))
CONFINED, BOTH = (keyring.make(bytes(range(n, n + 40))) for n in (140, 150))
OWN = "55555555-5555-5555-8555-555555555555"
MISSING = "99999999-9999-5999-8999-999999999999"
DETAIL = "There is no such approval"
_numbers = itertools.count(1)


@pytest.fixture
async def desk(gateway_server: OwnServer, tmp_path: Path) -> AsyncIterator[Rig]:
    replica = f"desk-{next(_numbers)}"
    async with open_rig(gateway_server.url, tmp_path, replica=replica, is_worked=False, catalog=CATALOG) as rig:
        await rig.stores.keys.put(TENANT, key_record(APPROVER, scopes=("approve",)))
        await rig.stores.keys.put(TENANT, key_record(CHATTER, scopes=("chat",)))
        await rig.stores.keys.put("other", key_record(STRANGER, tenant="other", scopes=("chat", "approve", "admin")))
        yield rig


async def store(rig: Rig, held: Hold, *, for_s: float = 600) -> Hold:
    return await rig.stores.holds.open(held.tenant, held, expires_after_s=for_s)


def path(hold_id: str = HOLD, rest: str = "") -> str:
    return f"/v1/approvals/{hold_id}{rest}"


async def look(rig: Rig, where: str = path(), *, key: str = APPROVER.text) -> Answer:
    return await rig.ask(get(where, key=key))


async def decide(rig: Rig, body: object, *, hold_id: str = HOLD, key: str = APPROVER.text) -> Answer:
    return await rig.ask(post(body, path=path(hold_id, "/decide"), key=key))


def decisions(*each: dict[str, Any]) -> dict[str, Any]:
    return {"decisions": list(each)}


def yes(call: str = CALL, **more: Any) -> dict[str, Any]:
    return {"tool_execution_id": call, "approved": True, **more}


def no(call: str = OTHER_CALL, **more: Any) -> dict[str, Any]:
    return {"tool_execution_id": call, "approved": False, **more}


def assert_problem(answer: Answer, status: int, code: str, detail: str, instance: str) -> None:
    """Compare a whole refusal: problem details and nothing else."""
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    title = body.pop("title")
    assert body == {
        "code": code,
        "detail": detail,
        "instance": instance,
        "requestId": answer.headers["x-request-id"],
        "status": status,
        "error": {"code": code, "message": detail},
    }
    assert (answer.status, bool(title)) == (status, True)


async def test_an_approval_is_shown_with_its_calls_and_without_its_secrets(desk: Rig) -> None:
    await store(desk, hold())
    answer = await look(desk)
    body = answer.json()
    assert answer.status == 200
    first = held_call()
    assert body["calls"][0] == {
        "tool_execution_id": CALL,
        "name": "refund",
        "sentence": first.sentence,
        "arguments": {"amount": 5, "pin": "***"},
        "sha256": first.sha256,
        "tool_version": first.version,
        "effect": "once",
    }
    assert b"1234" not in answer.body
    named = {name: body[name] for name in ("id", "status", "execution_id", "conversation_id", "model", "agent")}
    assert named == {
        "id": HOLD,
        "status": "open",
        "execution_id": TURN,
        "conversation_id": "conv",
        "model": "agent:clerk",
        "agent": "clerk",
    }
    assert (body["scope"], body["decide"], body["audit"]) == ("approve", "each", [])
    assert body["created_at"] < body["expires_at"]
    assert body["expires_at"].endswith("Z")
    assert (answer.headers["x-execution-id"], answer.headers["x-conversation-id"]) == (TURN, "conv")


@pytest.mark.requirement("approvals:decide-over-http")
async def test_a_decision_is_stored_and_announced_and_the_approval_shown_as_it_is_then(desk: Rig) -> None:
    await store(desk, hold())
    announced: asyncio.Queue[bytes] = asyncio.Queue()
    await desk.cluster.bus.subscribe(subjects.control_decide(TURN), lambda _, payload: announced.put_nowait(payload))
    await desk.cluster.bus.barrier()
    body = decisions(yes(arguments={"amount": 3, "pin": "***"}), no(reason="not this one"))
    answer = await decide(desk, body)
    assert (answer.status, answer.json()["status"]) == (200, "decided")
    edited, denied = (call["decision"] for call in answer.json()["calls"])
    assert (edited["approved"], edited["edited"], edited["edited_arguments"]) == (
        True,
        True,
        {"amount": 3, "pin": "***"},
    )
    assert (denied["approved"], denied["edited"], denied["reason"]) == (False, False, "not this one")
    assert (denied["by"], denied["from"]) == (APPROVER.id, "127.0.0.1")
    async with asyncio.timeout(5):
        order = codec.decode(codec.CONTROL, await announced.get())
    assert order == ApplyHold(turn=TURN, tenant=TENANT, hold=HOLD)
    stored = await desk.stores.holds.get(TENANT, HOLD)
    assert stored is not None
    assert stored.calls[0].verdict is not None
    assert stored.calls[0].verdict.arguments == '{"amount":3,"pin":"1234"}'
    (deed,) = (await look(desk)).json()["audit"]
    assert (deed["what"], deed["by"], deed["from"]) == ("approval.decided", APPROVER.id, "127.0.0.1")
    assert deed["calls"] == {CALL: "edited", OTHER_CALL: "denied"}


async def test_some_calls_may_be_decided_and_the_others_stay_open(desk: Rig) -> None:
    await store(desk, hold())
    body = (await decide(desk, decisions(yes()))).json()
    assert (body["status"], "decision" in body["calls"][1]) == ("open", False)
    assert (await decide(desk, decisions(yes(OTHER_CALL)))).json()["status"] == "decided"


async def test_deciding_again_succeeds_when_it_says_the_same_and_names_the_winner_when_not(desk: Rig) -> None:
    await store(desk, hold())
    assert (await decide(desk, decisions(yes()))).status == 200
    assert (await decide(desk, decisions(yes()))).status == 200
    answer = await decide(desk, decisions(no(CALL)))
    detail = answer.json()["detail"]
    assert detail.startswith(f"This approval was decided already: {CALL} was approved by key {APPROVER.id} at 2")
    assert_problem(answer, 409, "approval.decided", detail, path(HOLD, "/decide"))
    assert answer.headers["x-should-retry"] == "false"


async def test_what_is_over_is_gone(desk: Rig) -> None:
    await store(desk, hold(), for_s=0)
    answer = await decide(desk, decisions(yes()))
    assert (answer.status, answer.json()["code"]) == (410, "approval.gone")
    assert (await look(desk)).json()["status"] == "expired"
    assert (await look(desk, "/v1/approvals?status=open")).json() == {"data": [], "next_cursor": None}
    await store(desk, hold(MISSING))
    await desk.stores.holds.cancel(TENANT, MISSING, "superseded")
    answer = await decide(desk, decisions(yes()), hold_id=MISSING)
    assert_problem(answer, 410, "approval.gone", "This approval was cancelled: superseded", path(MISSING, "/decide"))


# Who may


async def test_a_key_that_may_only_chat_sees_and_decides_nothing_that_is_not_its_own(desk: Rig) -> None:
    await store(desk, hold())
    await store(desk, hold(MISSING, scope="chat"))
    detail = "This key does not have the scope approve"
    assert_problem(
        await look(desk, "/v1/approvals", key=CHATTER.text), 403, "permission.denied", detail, "/v1/approvals"
    )
    assert_problem(await look(desk, key=CHATTER.text), 403, "permission.denied", detail, path())
    assert (await decide(desk, decisions(yes()), key=CHATTER.text)).status == 403
    assert (await look(desk, path(MISSING), key=CHATTER.text)).status == 200
    assert (await decide(desk, decisions(yes()), hold_id=MISSING, key=CHATTER.text)).status == 200
    assert (await decide(desk, decisions(no()), hold_id=MISSING)).status == 403


@pytest.mark.requirement("approvals:foreign-is-missing")
async def test_another_tenants_approval_cannot_be_told_from_one_that_does_not_exist(desk: Rig) -> None:
    await store(desk, hold())

    async def told(hold_id: str, key: str) -> list[tuple[int, dict[str, Any], list[str]]]:
        answers = [
            await look(desk, path(hold_id), key=key),
            await decide(desk, decisions(yes(), no()), hold_id=hold_id, key=key),
            await decide(desk, decisions(yes("unknown")), hold_id=hold_id, key=key),
        ]
        bodies = [
            (answer.status, {**answer.json(), "instance": "", "requestId": ""}, sorted(answer.headers))
            for answer in answers
        ]
        assert [body["detail"] for _, body, _ in bodies] == [DETAIL] * 3
        return bodies

    assert await told(HOLD, STRANGER.text) == await told(MISSING, STRANGER.text) == await told(MISSING, APPROVER.text)
    page = await look(desk, "/v1/approvals", key=STRANGER.text)
    assert page.json() == {"data": [], "next_cursor": None}
    cursor = (await _cursor_of(desk)) or ""
    assert (await look(desk, f"/v1/approvals?cursor={cursor}", key=STRANGER.text)).json()["data"] == []
    stored = await desk.stores.holds.get(TENANT, HOLD)
    assert stored is not None
    assert stored.version == 1


@pytest.mark.requirement("approvals:foreign-is-missing")
async def test_an_approval_of_a_model_that_is_not_the_keys_cannot_be_told_from_one_that_does_not_exist(
    desk: Rig,
) -> None:
    fields: dict[str, Any] = {"scopes": ("chat", "approve"), "models": ("agent:other",)}
    await desk.stores.keys.put(TENANT, key_record(CONFINED, **fields))
    await store(desk, hold())
    await store(desk, hold(OWN, model="agent:other", agent="other"))
    for hold_id in (HOLD, MISSING):
        seen = await look(desk, path(hold_id), key=CONFINED.text)
        assert_problem(seen, 404, "approval.unknown", DETAIL, path(hold_id))
        refused = await decide(desk, decisions(yes("unknown")), hold_id=hold_id, key=CONFINED.text)
        assert_problem(refused, 404, "approval.unknown", DETAIL, path(hold_id, "/decide"))
    assert (await look(desk, path(OWN), key=CONFINED.text)).status == 200
    page = (await look(desk, "/v1/approvals", key=CONFINED.text)).json()
    assert ([each["id"] for each in page["data"]], page["next_cursor"]) == ([OWN], None)
    assert (await decide(desk, decisions(yes()), hold_id=OWN, key=CONFINED.text)).status == 200


async def _cursor_of(rig: Rig) -> str | None:
    await store(rig, hold("44444444-4444-5444-8444-444444444444"))
    cursor: str | None = (await look(rig, "/v1/approvals?limit=1")).json()["next_cursor"]
    return cursor


async def test_no_credential_is_refused_in_the_routes_own_words(desk: Rig) -> None:
    for request in (get("/v1/approvals", key=None), post({}, path=path(HOLD, "/decide"), key=None)):
        answer = await desk.ask(request)
        assert (answer.status, answer.json()["code"]) == (401, "credential.invalid")
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"] == "Bearer"


# Lists


async def test_approvals_are_listed_newest_first_page_by_page_by_status(desk: Rig) -> None:
    ids = [f"{n:08d}-0000-5000-8000-000000000000" for n in range(7)]
    for hold_id in ids:
        await store(desk, hold(hold_id))
    await desk.stores.holds.cancel(TENANT, ids[3], "superseded")
    seen: list[str] = []
    query = "limit=3"
    while query:
        page = (await look(desk, f"/v1/approvals?{query}")).json()
        assert len(page["data"]) <= 3
        seen += [each["id"] for each in page["data"]]
        query = f"limit=3&cursor={page['next_cursor']}" if page["next_cursor"] else ""
    assert len(seen) == 7
    assert seen == [each.id for each in await desk.stores.holds.page(TENANT, status=None, before=None, limit=10)]
    cancelled = (await look(desk, "/v1/approvals?status=cancelled")).json()["data"]
    assert [(each["id"], each["status"], each["reason"]) for each in cancelled] == [(ids[3], "cancelled", "superseded")]
    assert len((await look(desk, "/v1/approvals?status=open")).json()["data"]) == 6


async def test_an_approval_that_has_run_out_is_listed_as_expired_before_anybody_noted_it(desk: Rig) -> None:
    ids = [f"{n:08d}-0000-5000-8000-000000000000" for n in range(6)]
    for number, hold_id in enumerate(ids):
        await store(desk, hold(hold_id), for_s=0 if number % 2 else 600)
    await desk.stores.holds.expire(TENANT, ids[1])
    newest = [each.id for each in await desk.stores.holds.page(TENANT, status=None, before=None, limit=10)]
    for status, wanted in (("expired", ids[1::2]), ("open", ids[::2])):
        seen: list[str] = []
        query = f"limit=2&status={status}"
        while query:
            page = (await look(desk, f"/v1/approvals?{query}")).json()
            assert {each["status"] for each in page["data"]} <= {status}
            seen += [each["id"] for each in page["data"]]
            cursor = page["next_cursor"]
            query = f"limit=2&status={status}&cursor={cursor}" if cursor else ""
        assert seen == [hold_id for hold_id in newest if hold_id in wanted]


async def test_a_list_in_which_little_fits_is_read_in_pieces(desk: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kitemesh_gateway.approvals.PAGE_MAX", 1)
    for n in range(30):
        await store(desk, hold(f"{n:08d}-0000-5000-8000-000000000000"))
    oldest = (await desk.stores.holds.page(TENANT, status=None, before=None, limit=30))[-1].id
    await desk.stores.holds.expire(TENANT, oldest)
    await store(desk, hold(OWN), for_s=0)
    pages = []
    query = "limit=1&status=expired"
    while query:
        pages.append((await look(desk, f"/v1/approvals?{query}")).json())
        cursor = pages[-1]["next_cursor"]
        query = f"limit=1&status=expired&cursor={cursor}" if cursor else ""
    assert [each["id"] for page in pages for each in page["data"]] == [OWN]
    assert 1 < len(pages) < 5


@pytest.mark.requirement("approvals:secrets-are-masked")
async def test_arguments_that_a_person_edited_are_shown_by_no_route_with_a_secret(desk: Rig) -> None:
    await store(desk, hold(scope="chat"))
    await desk.stores.keys.put(TENANT, key_record(BOTH, scopes=("chat", "approve")))
    steps = (Step(step=1, calls=(ToolCall(id=CALL, name="refund", arguments='{"amount":5,"pin":"1234"}'),)),)
    turn = LiveTurn(
        id=TURN, tenant=TENANT, version=1, status="held", mode="classic", model="m", state=b"", hold=HOLD, steps=steps
    )
    await desk.stores.live_turns.insert(TENANT, turn)
    kept = yes(arguments={"amount": 3, "pin": "***"})
    answers = [
        await decide(desk, decisions(kept), key=BOTH.text),
        await decide(desk, decisions(kept), key=BOTH.text),
        await decide(desk, decisions(yes(arguments={"amount": 4, "pin": "***"})), key=BOTH.text),
        await decide(desk, decisions(yes(arguments={"amount": 0, "pin": "***"})), key=BOTH.text),
        await look(desk, key=BOTH.text),
        await look(desk, "/v1/approvals", key=BOTH.text),
        await look(desk, f"/v1/executions/{TURN}", key=BOTH.text),
    ]
    assert [answer.status for answer in answers] == [200, 200, 409, 409, 200, 200, 200]
    assert not [answer.body for answer in answers if b"1234" in answer.body]
    assert answers[4].json()["calls"][0]["decision"]["edited_arguments"] == {"amount": 3, "pin": "***"}


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("status=OPEN", "status: must be one of open, decided, expired, cancelled"),
        ("cursor=", "cursor: must be a next_cursor of this list"),
        ("cursor=%F0%9F%92%A5", "cursor: must be a next_cursor of this list"),
        ("cursor=a.b", "cursor: must be a next_cursor of this list"),
        ("cursor=%2A", "cursor: must be a next_cursor of this list"),
        ("limit=0", "limit: must be a number from 1 to 100"),
        ("limit=101", "limit: must be a number from 1 to 100"),
        ("limit=-1", "limit: must be a number from 1 to 100"),
        ("limit=%D9%A3", "limit: must be a number from 1 to 100"),
        ("limit=" + "9" * 5000, "limit: must be a number from 1 to 100"),
        (
            "limit=x&status=&cursor=%00",
            (
                "status: must be one of open, decided, expired, cancelled; cursor: must be a next_cursor of this list; "
                "limit: must be a number from 1 to 100"
            ),
        ),
        ("status=open&status=open", "status: must be given once"),
    ],
)
async def test_a_query_that_is_wrong_is_told_everything(desk: Rig, query: str, detail: str) -> None:
    answer = await look(desk, f"/v1/approvals?{query}")
    assert_problem(answer, 400, "request.invalid", detail, "/v1/approvals")


# Hostile


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ([], "The body must be a JSON object"),
        ({}, "decisions: is required"),
        (decisions(), "decisions: must have at least 1 item(s)"),
        (decisions(*[yes(str(n)) for n in range(51)]), "decisions: must have at most 50 item(s)"),
        (decisions(yes(), no(CALL)), "decisions: must name each call once"),
        (
            decisions({"tool_execution_id": 1, "approved": "yes"}, {"reason": 2}),
            (
                "decisions.0.tool_execution_id: must be a string; decisions.0.approved: must be true or false; "
                "decisions.1.tool_execution_id: is required; decisions.1.approved: is required; "
                "decisions.1.reason: must be a string"
            ),
        ),
        (decisions(no(arguments={})), "decisions.0: a denied call takes no arguments"),
        (decisions(yes(arguments="{}")), "decisions.0.arguments: must be an object"),
        (decisions(yes("x")), "'x' is not a call of this approval"),
        (decisions(yes(arguments={"amount": 0})), None),
        (decisions(yes(arguments={"amount": 10**6})), f"{CALL}: A rule of this installation forbids the call"),
        (decisions(yes(reason="x" * 2001)), "decisions.0.reason: must have at most 2000 character(s)"),
    ],
)
async def test_a_body_that_is_wrong_is_told_everything_and_decides_nothing(
    desk: Rig, body: object, detail: str | None
) -> None:
    before = await store(desk, hold())
    answer = await decide(desk, body)
    assert_problem(answer, 400, "request.invalid", detail or answer.json()["detail"], path(HOLD, "/decide"))
    assert await desk.stores.holds.get(TENANT, HOLD) == before


async def test_a_body_that_is_no_json_is_refused(desk: Rig) -> None:
    await store(desk, hold())
    for data, status in (
        (b"", 400),
        (b'{"a":1,"a":2}', 400),
        (b"\xff", 400),
        (b"[" * 100_000, 400),
        (b" " * 2**21, 413),
    ):
        answer = await desk.ask(post(data, path=path(HOLD, "/decide"), key=APPROVER.text))
        assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
    answer = await desk.ask(post({}, path=path(HOLD, "/decide"), key=APPROVER.text, Content_Type="text/plain"))
    assert answer.status == 415


@pytest.mark.requirement("native:hostile-ids")
async def test_a_hostile_id_leads_nowhere(desk: Rig) -> None:
    await store(desk, hold())
    hostile = [
        "*",
        ">",
        "a.b",
        "a b",
        "a\r\nX: y",
        "$where",
        '{"$gt":""}',
        "..",
        "a/b",
        "a" * 65,
        "\x00",
        "é",
        "%",
        "a\n",
    ]
    for text in hostile:
        for request in (
            get(path(quote(text, safe="")), key=APPROVER.text),
            post(decisions(yes()), path=path(quote(text, safe=""), "/decide"), key=APPROVER.text),
        ):
            answer = await desk.ask(request)
            assert (answer.status, answer.json()["status"]) == (404, 404), text
            assert answer.headers["content-type"] == "application/problem+json"


async def test_no_bytes_whatever_in_a_path_break_anything(desk: Rig) -> None:
    chance = random.Random(7)
    for _ in range(100):
        raw = bytes(chance.randrange(0x21, 0x100) for _ in range(chance.randrange(1, 40)))
        for rest in (b"", b"/decide"):
            request = b"GET /v1/approvals/" + raw + rest + b" HTTP/1.1\r\nHost: a\r\n\r\n"
            answer = await desk.ask(request)
            assert 400 <= answer.status < 500, raw
            json.loads(answer.body)


async def test_the_wrong_method_is_told_the_right_one(desk: Rig) -> None:
    answer = await desk.ask(get(path(HOLD, "/decide"), key=APPROVER.text))
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert answer.headers["content-type"] == "application/problem+json"
