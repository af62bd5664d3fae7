"""`/v1/tenants` and `/v1/audit` over HTTP."""

import asyncio
from typing import Any

import pytest

from integration.gateway.rig import TENANT, Answer, Rig, get, key_record, post
from kitemesh_contracts import subjects
from kitemesh_runtime import keyring
from kitemesh_runtime.tenancy import TenantRecord

PATH = "/v1/tenants"
ADMIN = keyring.make(bytes(range(2, 42)))
OPERATOR = keyring.make(bytes(range(4, 44)))
NONE = {"requests_per_minute": None, "tokens_per_minute": None, "concurrent_turns": None}
SAID = {
    "limits": {**NONE, "requests_per_minute": 600},
    "key_limits": {**NONE, "tokens_per_minute": 1000},
    "default_agent": "helper",
    "models": ["scripted"],
    "priority": "batch",
    "retention_days": {"turns": 3},
}


@pytest.fixture
async def staffed(rig: Rig) -> Rig:
    await rig.stores.keys.put(TENANT, key_record(ADMIN, scopes=("admin",)))
    await rig.stores.keys.put("ops", key_record(OPERATOR, scopes=("operator",), tenant="ops"))
    return rig


async def ask(rig: Rig, method: str, path: str, body: Any = None, key: str = OPERATOR.text) -> Answer:
    request = get(path, key=key) if body is None else post(body, path=path, key=key)
    return await rig.ask(request.replace(request.split(b" ", 1)[0], method.encode(), 1))


@pytest.mark.requirement("tenants:native-routes")
async def test_what_a_tenant_may_do_is_said_shown_listed_and_taken_back(staffed: Rig) -> None:
    stored = await ask(staffed, "PUT", f"{PATH}/acme", SAID)
    assert stored.status == 201, stored.body
    told = stored.json()
    assert {name: told[name] for name in SAID} == SAID
    assert (told["id"], told["effective"]) == ("acme", None)
    shown = (await ask(staffed, "GET", f"{PATH}/acme")).json()
    assert shown == {**told, "effective": SAID}
    assert (await ask(staffed, "GET", PATH)).json() == {"data": [told], "next_cursor": None}
    replaced = await ask(staffed, "PUT", f"{PATH}/acme", {"priority": "interactive"})
    assert (replaced.status, replaced.json()["limits"]) == (200, NONE)
    removed = await ask(staffed, "DELETE", f"{PATH}/acme")
    assert (removed.status, removed.json()) == (200, {"id": "acme", "deleted": True})
    assert (await ask(staffed, "DELETE", f"{PATH}/acme")).status == 404
    assert (await ask(staffed, "GET", f"{PATH}/acme")).json()["code"] == "tenant.unknown"


@pytest.mark.requirement("tenants:defaults")
async def test_what_holds_for_all_is_said_of_default(staffed: Rig) -> None:
    await ask(staffed, "PUT", f"{PATH}/_default", {"limits": {"concurrent_turns": 5}, "key_limits": {}})
    await ask(staffed, "PUT", f"{PATH}/acme", SAID)
    assert await staffed.stores.tenants.get("*") is not None
    shown = (await ask(staffed, "GET", f"{PATH}/acme")).json()
    assert shown["effective"]["limits"] == {**NONE, "requests_per_minute": 600, "concurrent_turns": 5}
    listed = (await ask(staffed, "GET", f"{PATH}?limit=1")).json()
    assert ([each["id"] for each in listed["data"]], listed["next_cursor"]) == (["_default"], "_default")
    rest = (await ask(staffed, "GET", f"{PATH}?cursor=_default")).json()
    assert [each["id"] for each in rest["data"]] == ["acme"]
    deeds = (await ask(staffed, "GET", "/v1/audit?tenant=_default")).json()["data"]
    assert [(deed["what"], deed["subject"], deed["by"]) for deed in deeds] == [
        ("tenant.changed", "_default", OPERATOR.id)
    ]


@pytest.mark.requirement("tenants:operator")
async def test_an_admin_sees_its_own_tenant_and_says_nothing_of_any(staffed: Rig) -> None:
    await staffed.stores.tenants.put(TenantRecord(id="other", priority="batch"))
    own = await ask(staffed, "GET", f"{PATH}/{TENANT}", key=ADMIN.text)
    assert (own.status, own.json()["updated_at"], own.json()["effective"]["limits"]) == (200, None, NONE)
    foreign = await ask(staffed, "GET", f"{PATH}/other", key=ADMIN.text)
    nobodys = await ask(staffed, "GET", f"{PATH}/nobody", key=ADMIN.text)
    assert foreign.status == nobodys.status == 404
    assert foreign.json()["code"] == nobodys.json()["code"] == "tenant.unknown"
    for method, path, body in (
        ("GET", PATH, None),
        ("PUT", f"{PATH}/{TENANT}", SAID),
        ("PUT", f"{PATH}/_default", SAID),
        ("DELETE", f"{PATH}/other", None),
        ("GET", "/v1/audit?tenant=other", None),
    ):
        refused = await ask(staffed, method, path, body, key=ADMIN.text)
        assert (refused.status, refused.json()["code"]) == (403, "permission.denied"), path
    assert (await ask(staffed, "GET", "/v1/audit", key=ADMIN.text)).status == 200


async def test_every_mistake_is_told_at_once(staffed: Rig) -> None:
    body = {
        "limits": {"requests_per_minute": -1},
        "key_limits": [],
        "default_agent": "*",
        "models": "scripted",
        "priority": 1,
        "retention_days": {"turns": 0},
    }
    refused = await ask(staffed, "PUT", f"{PATH}/acme", body)
    assert refused.status == 400
    for field in (
        "limits.requests_per_minute",
        "key_limits",
        "default_agent",
        "models",
        "priority",
        "retention_days.turns",
    ):
        assert field in refused.json()["detail"]
    assert await staffed.stores.tenants.get("acme") is None
    assert (await ask(staffed, "PUT", f"{PATH}/a%20b", SAID)).status == 404


@pytest.mark.requirement("tenants:changes-are-told")
async def test_a_change_is_broadcast_and_holds_for_the_tenants_keys(staffed: Rig) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    await staffed.cluster.bus.subscribe(subjects.TENANT_ALL, lambda subject, _: heard.put_nowait(subject))
    await staffed.cluster.bus.barrier()
    assert len((await ask(staffed, "GET", "/v1/models", key=ADMIN.text)).json()["data"]) > 1
    await ask(staffed, "PUT", f"{PATH}/{TENANT}", {"models": ["scripted"]})
    async with asyncio.timeout(5):
        assert await heard.get() == subjects.tenant_changed(TENANT)
        while True:
            offered = (await ask(staffed, "GET", "/v1/models", key=ADMIN.text)).json()["data"]
            if [model["id"] for model in offered] == ["scripted"]:
                break
            await asyncio.sleep(0.01)
