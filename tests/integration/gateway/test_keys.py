"""`/v1/keys` over HTTP, on two gateways."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace

from integration.bus.rig import OwnServer
from integration.gateway.rig import KEY, PEPPER, TENANT, Answer, Rig, get, key_record, open_rig, post
from kitemesh_contracts.errors import ErrorCode, Unavailable
from kitemesh_runtime import keyring
from kitemesh_runtime.tenancy import TenantRecord

PATH = "/v1/keys"
ADMIN = keyring.make(bytes(range(2, 42)))
OTHER = keyring.make(bytes(range(3, 43)))
OPERATOR = keyring.make(bytes(range(4, 44)))
BOUND = keyring.make(bytes(range(5, 45)))
CHAT = keyring.make(bytes(range(6, 46)))
ALL = ("chat", "approve", "admin")


class Pair(NamedTuple):
    """Two gateways on the same stores."""

    here: Rig
    there: Rig

    async def ask(self, method: str, path: str, body: Any = None, key: str = ADMIN.text) -> Answer:
        return await ask(self.here, method, path, body, key)


async def ask(rig: Rig, method: str, path: str, body: Any = None, key: str = ADMIN.text) -> Answer:
    request = get(path, key=key) if body is None else post(body, path=path, key=key)
    return await rig.ask(request.replace(request.split(b" ", 1)[0], method.encode(), 1))


@pytest.fixture
async def pair(gateway_server: OwnServer, tmp_path: Path) -> AsyncIterator[Pair]:
    folders = [tmp_path / name for name in ("here", "there")]
    for folder in folders:
        folder.mkdir()
    async with open_rig(gateway_server.url, folders[0], replica="keys-here", is_worked=False) as here:
        keys = here.stores.keys
        await keys.put(TENANT, key_record(ADMIN, scopes=ALL))
        await keys.put("other", key_record(OTHER, scopes=ALL, tenant="other"))
        await keys.put("ops", key_record(OPERATOR, scopes=(*ALL, "operator"), tenant="ops"))
        await keys.put(TENANT, key_record(BOUND, scopes=("admin", "chat"), models=("scripted",)))
        await keys.put(TENANT, key_record(CHAT))
        async with open_rig(
            gateway_server.url, folders[1], replica="keys-there", is_worked=False, shared=here.stores
        ) as there:
            yield Pair(here, there)


FULL = {
    "name": "worker",
    "scopes": ["chat", "approve"],
    "default_agent": "helper",
    "models": ["scripted"],
    "expires_in_s": 3600,
    "limits": {"requests_per_minute": 60, "tokens_per_minute": 1000, "concurrent_turns": 2},
    "priority": "batch",
}


@pytest.mark.requirement("keys:native-routes")
async def test_a_key_is_made_used_shown_listed_and_its_text_told_once(pair: Pair) -> None:
    made = await pair.ask("POST", PATH, FULL)
    assert made.status == 201, made.body
    assert made.headers["cache-control"] == "no-store"
    key = made.json()
    text = key.pop("key")
    assert keyring.parse(text) == key["id"]
    assert {name: key[name] for name in FULL if name in key} == {
        name: value for name, value in FULL.items() if name in key
    }
    assert (key["tenant"], key["state"], key["created_by"]) == (TENANT, "active", ADMIN.id)
    assert (key["revoked_at"], key["rotated_to"]) == (None, None)
    shown = await pair.ask("GET", f"{PATH}/{key['id']}")
    assert shown.json() == key
    listed = await pair.ask("GET", PATH)
    assert key in listed.json()["data"]
    for told in (shown, listed, await pair.ask("GET", "/v1/audit")):
        assert text[11:54].encode() not in told.body
        assert keyring.digest(text, PEPPER.encode()).encode() not in told.body
    for rig in pair:
        assert [model["id"] for model in (await ask(rig, "GET", "/v1/models", key=text)).json()["data"]] == [
            "scripted",
            "agent:helper",
        ]


async def test_the_least_that_makes_a_key_is_an_empty_object(pair: Pair) -> None:
    key = (await pair.ask("POST", PATH, {})).json()
    assert (key["scopes"], key["models"], key["expires_at"], key["name"]) == (["chat"], None, None, "")
    assert set(key["limits"].values()) == {None}


async def test_keys_are_listed_in_pages_newest_first(pair: Pair) -> None:
    made = [(await pair.ask("POST", PATH, {"name": f"{n}"})).json()["id"] for n in range(3)]
    everything = (await pair.ask("GET", f"{PATH}?limit=100")).json()
    first = (await pair.ask("GET", f"{PATH}?limit=2")).json()
    rest = (await pair.ask("GET", f"{PATH}?limit=100&cursor={first['next_cursor']}")).json()
    assert first["data"] + rest["data"] == everything["data"]
    assert {each["id"] for each in everything["data"]} == {*made, ADMIN.id, BOUND.id, CHAT.id, KEY.id}
    assert rest["next_cursor"] is None


@pytest.mark.requirement("keys:native-routes")
async def test_a_key_is_changed_and_only_what_is_named(pair: Pair) -> None:
    key = (await pair.ask("POST", PATH, FULL)).json()
    text = key.pop("key")
    changed = await pair.ask("PATCH", f"{PATH}/{key['id']}", {"limits": {"concurrent_turns": 9}, "models": None})
    assert changed.status == 200, changed.body
    limits = {"requests_per_minute": None, "tokens_per_minute": None, "concurrent_turns": 9}
    assert changed.json() == {**key, "limits": limits, "models": None}
    narrowed = await pair.ask("PATCH", f"{PATH}/{key['id']}", {"scopes": ["approve"], "expires_in_s": None})
    assert (narrowed.json()["scopes"], narrowed.json()["expires_at"]) == (["approve"], None)
    await until_refused(pair, text, status=403, body={"model": "scripted", "messages": []})


async def until_refused(pair: Pair, text: str, *, status: int = 401, body: Any = None) -> None:
    """Let both gateways hear the broadcast, and see that they refuse."""
    path, method = ("/v1/models", "GET") if body is None else ("/v1/chat/completions", "POST")
    for rig in pair:
        # What the first one published is on its way to the second before the first one's barrier is answered.
        await rig.bus.barrier()
        assert (await ask(rig, method, path, body, key=text)).status == status


@pytest.mark.requirement("promise:P17")
async def test_a_key_that_is_revoked_by_its_route_is_refused_by_every_gateway_at_once(pair: Pair) -> None:
    key = (await pair.ask("POST", PATH, {})).json()
    for rig in pair:
        assert (await ask(rig, "GET", "/v1/models", key=key["key"])).status == 200
    revoked = await pair.ask("DELETE", f"{PATH}/{key['id']}")
    assert (revoked.status, revoked.json()["state"]) == (200, "revoked")
    await until_refused(pair, key["key"])
    again = await pair.ask("DELETE", f"{PATH}/{key['id']}")
    assert again.json() == revoked.json()


@pytest.mark.requirement("keys:rotation")
async def test_a_rotated_key_serves_for_its_grace_beside_its_successor(pair: Pair) -> None:
    old = (await pair.ask("POST", PATH, FULL)).json()
    rotated = await pair.ask("POST", f"{PATH}/{old['id']}/rotate")
    assert rotated.status == 201, rotated.body
    assert rotated.headers["cache-control"] == "no-store"
    new = rotated.json()
    own = ("id", "key", "created_at", "replaces")
    assert {name: value for name, value in new.items() if name not in own} == {
        name: value for name, value in old.items() if name not in own
    }
    assert (new["replaces"]["id"], new["replaces"]["rotated_to"]) == (old["id"], new["id"])
    for key in (old, new):
        assert (await pair.ask("GET", "/v1/models", key=key["key"])).status == 200
    again = await pair.ask("POST", f"{PATH}/{old['id']}/rotate", {})
    assert (again.status, again.json()["code"]) == (400, "request.invalid")
    at_once = await pair.ask("POST", f"{PATH}/{new['id']}/rotate", {"grace_s": 0})
    assert at_once.status == 201
    await until_refused(pair, new["key"])
    assert (await pair.ask("GET", "/v1/models", key=at_once.json()["key"])).status == 200


@pytest.mark.requirement("audit:every-change")
async def test_every_change_is_in_the_audit_with_who_made_it_and_without_secrets(pair: Pair) -> None:
    key = (await pair.ask("POST", PATH, FULL)).json()
    await pair.ask("PATCH", f"{PATH}/{key['id']}", {"name": "renamed"})
    new = (await pair.ask("POST", f"{PATH}/{key['id']}/rotate", {"grace_s": 60})).json()
    await pair.ask("DELETE", f"{PATH}/{key['id']}")
    told = await pair.ask("GET", f"/v1/audit?subject={key['id']}")
    deeds = told.json()["data"]
    assert [deed["what"] for deed in deeds] == ["key.revoked", "key.rotated", "key.changed", "key.created"]
    assert {(deed["by"], deed["from"], deed["subject"]) for deed in deeds} == {(ADMIN.id, "127.0.0.1", key["id"])}
    assert deeds[1]["values"] == {"rotated_to": new["id"], "grace_s": 60}
    assert deeds[2]["values"] == {"name": "renamed"}
    assert deeds[3]["values"]["limits"] == FULL["limits"]
    for secret in (key["key"], new["key"]):
        assert secret[11:54].encode() not in told.body
        assert keyring.digest(secret, PEPPER.encode()).encode() not in told.body
    first = (await pair.ask("GET", "/v1/audit?limit=3")).json()
    rest = (await pair.ask("GET", f"/v1/audit?limit=3&cursor={first['next_cursor']}")).json()
    assert first["data"] + rest["data"] == deeds


async def test_a_change_whose_note_cannot_be_stored_is_not_made(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    key = (await pair.ask("POST", PATH, {})).json()

    async def fail(*_: object) -> None:
        raise Unavailable(ErrorCode.STORE_DOWN, "no note", retry_after_s=1)

    monkeypatch.setattr(type(pair.here.stores.audit), "append", fail)
    for method, body in (("PATCH", {"name": "x"}), ("DELETE", None)):
        assert (await pair.ask(method, f"{PATH}/{key['id']}", body)).status == 503
    assert (await pair.ask("POST", f"{PATH}/{key['id']}/rotate", {})).status == 503
    assert (await pair.ask("POST", PATH, {})).status == 503
    monkeypatch.undo()
    shown = (await pair.ask("GET", f"{PATH}/{key['id']}")).json()
    assert (shown["name"], shown["state"], shown["rotated_to"]) == ("", "active", None)


REFUSED: list[tuple[str, Any]] = [
    (ADMIN.text, {"scopes": ["operator"]}),
    (BOUND.text, {"scopes": ["approve"], "models": ["scripted"]}),
    (BOUND.text, {}),
    (BOUND.text, {"models": ["scripted", "org/name:tag"]}),
    (BOUND.text, {"models": ["scripted"], "default_agent": "helper"}),
    (CHAT.text, {}),
]


@pytest.mark.requirement("keys:no-escalation")
async def test_nobody_gives_what_it_does_not_have(pair: Pair) -> None:
    before = await pair.here.stores.keys.list(TENANT)
    for key, body in REFUSED:
        refused = await pair.ask("POST", PATH, body, key=key)
        assert (refused.status, refused.json()["code"]) == (403, "permission.denied"), body
    assert await pair.here.stores.keys.list(TENANT) == before


@pytest.mark.requirement("keys:no-escalation")
async def test_a_key_that_may_more_is_neither_rotated_nor_changed_by_one_that_may_less(pair: Pair) -> None:
    keys = pair.here.stores.keys
    await keys.put(TENANT, replace(key_record(OPERATOR, scopes=(*ALL, "operator")), id="mighty", digest="mighty"))
    await keys.put(TENANT, replace(key_record(CHAT), id="wide", digest="wide"))
    for method, path, body, key in (
        ("POST", "mighty/rotate", {}, ADMIN.text),
        ("PATCH", "mighty", {"name": "x"}, ADMIN.text),
        ("POST", "wide/rotate", {}, BOUND.text),
        ("PATCH", "wide", {"models": None}, BOUND.text),
        ("PATCH", CHAT.id, {"scopes": ["chat", "admin"]}, ADMIN.text),
    ):
        refused = await pair.ask(method, f"{PATH}/{path}", body, key=key)
        assert (refused.status, refused.json()["code"]) == (403, "permission.denied"), path
    assert (await pair.ask("DELETE", f"{PATH}/mighty")).status == 200


async def test_a_tenant_of_few_models_has_keys_for_all_of_them(pair: Pair) -> None:
    await pair.here.stores.tenants.put(TenantRecord(id=TENANT, models=("scripted",)))
    made = await pair.ask("POST", PATH, {})
    assert made.status == 201
    await pair.here.stores.keys.revoke(TENANT, CHAT.id)


@pytest.mark.requirement("keys:foreign-is-unknown")
async def test_a_foreign_key_is_as_unknown_as_one_that_never_was(pair: Pair) -> None:
    for method, tail, body in (
        ("GET", "", None),
        ("PATCH", "", {"name": "taken"}),
        ("DELETE", "", None),
        ("POST", "/rotate", {}),
    ):
        foreign = await pair.ask(method, f"{PATH}/{OTHER.id}{tail}", body)
        nobodys = await pair.ask(method, f"{PATH}/nobodyxx{tail}", body)
        assert (foreign.status, foreign.json()["code"]) == (404, "key.unknown")
        assert plain(foreign, OTHER.id) == plain(nobodys, "nobodyxx")
        refused = await pair.ask(method, f"{PATH}/{OTHER.id}{tail}?tenant=other", body)
        assert (refused.status, refused.json()["code"]) == (403, "permission.denied")
    behind = [(await pair.ask("GET", f"{PATH}?cursor={key}")).json() for key in (OTHER.id, "nobodyxx")]
    assert behind[0] == behind[1] == {"data": [], "next_cursor": None}
    found = await pair.here.stores.keys.get("other", OTHER.id)
    assert found == key_record(OTHER, scopes=ALL, tenant="other")


def plain(answer: Answer, key: str) -> Any:
    told = json.loads(answer.body.replace(key.encode(), b"ID"))
    del told["requestId"]
    return told


@pytest.mark.requirement("keys:operator")
async def test_an_operator_looks_after_the_keys_of_any_tenant(pair: Pair) -> None:
    made = await pair.ask("POST", f"{PATH}?tenant=fresh", {"scopes": ["chat", "admin"]}, key=OPERATOR.text)
    key = made.json()
    assert (made.status, key["tenant"]) == (201, "fresh")
    assert (await pair.ask("GET", PATH, key=key["key"])).json()["data"][0]["id"] == key["id"]
    assert (await pair.ask("GET", f"{PATH}/{key['id']}", key=OPERATOR.text)).status == 404
    for method, body in (("GET", None), ("PATCH", {"name": "x"}), ("DELETE", None)):
        answer = await pair.ask(method, f"{PATH}/{key['id']}?tenant=fresh", body, key=OPERATOR.text)
        assert answer.status == 200
    refused = await pair.ask("POST", f"{PATH}?tenant=_default", {}, key=OPERATOR.text)
    assert (refused.status, refused.json()["code"]) == (400, "request.invalid")


async def test_every_mistake_is_told_at_once(pair: Pair) -> None:
    body = {
        "name": "a\nb",
        "scopes": ["root"],
        "default_agent": "no agent",
        "models": [""],
        "expires_in_s": 0,
        "limits": {"requests_per_minute": 0, "concurrent_turns": "3"},
        "priority": "urgent",
    }
    refused = await pair.ask("POST", PATH, body)
    assert refused.status == 400
    for field in (
        "name",
        "scopes.0",
        "default_agent",
        "models.0",
        "expires_in_s",
        "limits.requests_per_minute",
        "limits.concurrent_turns",
        "priority",
    ):
        assert field in refused.json()["detail"], field
    assert (await pair.ask("PATCH", f"{PATH}/{CHAT.id}", {})).status == 400
    assert (await pair.ask("POST", f"{PATH}/{CHAT.id}/rotate", {"grace_s": -1})).status == 400


@pytest.mark.requirement("keys:address-limit")
async def test_an_address_that_guesses_is_answered_429_in_the_dialect_it_speaks(
    gateway_server: OwnServer, tmp_path: Path
) -> None:
    guesses = [keyring.make(n.to_bytes(40, "big")).text for n in range(10)]
    async with open_rig(
        gateway_server.url, tmp_path, replica="keys-guessed", is_worked=False, address_lookups_per_s=0.5
    ) as rig:
        statuses = [(await ask(rig, "GET", "/v1/models", key=guess)).status for guess in guesses[:4]]
        assert statuses == [401, 401, 429, 429]
        native = await ask(rig, "GET", PATH, key=guesses[5])
        assert (native.json()["code"], native.headers["retry-after"]) == ("limit.rate", "1")
        assert (await ask(rig, "GET", "/v1/models", key=guesses[0])).status == 401
