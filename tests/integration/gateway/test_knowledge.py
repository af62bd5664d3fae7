"""`/v1/knowledge` over HTTP."""

from typing import Any

import pytest

from integration.gateway.rig import KEY, TENANT, Answer, Rig, get, key_record, post
from kitemesh_runtime import keyring

PATH = "/v1/knowledge"
ADMIN = keyring.make(bytes(range(2, 42)))
OTHER = keyring.make(bytes(range(3, 43)))
HANDBOOK = {"name": "handbook.md", "text": "# Returns\n\nWithin 30 days.\n\n# Shipping\n\nOn Mondays."}


@pytest.fixture
async def admin(rig: Rig) -> Rig:
    await rig.stores.keys.put(TENANT, key_record(ADMIN, scopes=("admin",)))
    await rig.stores.keys.put("other", key_record(OTHER, scopes=("admin",), tenant="other"))
    return rig


def request(method: str, path: str, key: str = ADMIN.text) -> bytes:
    return get(path, key=key).replace(b"GET ", f"{method} ".encode(), 1)


async def store(rig: Rig, body: Any, key: str = ADMIN.text) -> Answer:
    return await rig.ask(post(body, path=PATH, key=key))


@pytest.mark.requirement("knowledge:native-route")
async def test_a_document_is_stored_shown_listed_replaced_and_removed(admin: Rig) -> None:
    stored = await store(admin, HANDBOOK)
    assert stored.status == 201
    document = stored.json()
    assert document.keys() == {"id", "base", "name", "characters", "passage_count", "created_at", "updated_at"}
    assert (document["base"], document["name"], document["passage_count"]) == ("default", "handbook.md", 2)
    shown = (await admin.ask(get(f"{PATH}/{document['id']}", key=ADMIN.text))).json()
    assert shown == {
        **document,
        "passages": [
            {"heading": "Returns", "text": "# Returns\n\nWithin 30 days."},
            {"heading": "Shipping", "text": "# Shipping\n\nOn Mondays."},
        ],
    }
    assert (await admin.ask(get(PATH, key=ADMIN.text))).json() == {"data": [document], "next_cursor": None}
    replaced = await store(admin, {**HANDBOOK, "format": "text"})
    assert (replaced.status, replaced.json()["id"], replaced.json()["passage_count"]) == (200, document["id"], 1)
    removed = await admin.ask(request("DELETE", f"{PATH}/{document['id']}"))
    assert (removed.status, removed.json()) == (200, {"id": document["id"], "deleted": True})
    assert (await admin.ask(request("DELETE", f"{PATH}/{document['id']}"))).status == 404


async def test_documents_are_listed_in_pages_and_by_base(admin: Rig) -> None:
    for n in range(5):
        await store(admin, {"name": f"{n}.txt", "text": "x", "base": "odd" if n % 2 else "even"})
    first = (await admin.ask(get(f"{PATH}?limit=2", key=ADMIN.text))).json()
    rest = (await admin.ask(get(f"{PATH}?limit=9&cursor={first['next_cursor']}", key=ADMIN.text))).json()
    assert [each["name"] for each in first["data"] + rest["data"]] == [f"{n}.txt" for n in (4, 3, 2, 1, 0)]
    assert rest["next_cursor"] is None
    odd = (await admin.ask(get(f"{PATH}?base=odd&status=whatever", key=ADMIN.text))).json()
    assert [each["name"] for each in odd["data"]] == ["3.txt", "1.txt"]
    for query in ("limit=0", "base=a%20b", "cursor=!", "base=a&base=b"):
        assert (await admin.ask(get(f"{PATH}?{query}", key=ADMIN.text))).status == 400


@pytest.mark.requirement("knowledge:native-route")
@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": {"$ne": ""}}, "name"),
        ({"name": "x" * 256}, "name"),
        ({"text": None}, "text"),
        ({"text": " \n"}, "text"),
        ({"base": "a/b"}, "base"),
        ({"format": "html"}, "format"),
    ],
)
async def test_what_is_wrong_is_named(admin: Rig, changes: dict[str, Any], field: str) -> None:
    refused = await store(admin, {**HANDBOOK, **changes})
    assert refused.status == 400
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["detail"].startswith(f"{field}: ")


async def test_everything_that_is_wrong_is_said_at_once(admin: Rig) -> None:
    detail = (await store(admin, {"base": "", "format": 7})).json()["detail"]
    assert all(f"{field}: " in detail for field in ("name", "text", "base", "format"))
    assert (await admin.ask(post([], path=PATH, key=ADMIN.text))).status == 400


@pytest.mark.requirement("knowledge:native-route")
async def test_it_needs_the_scope_admin(admin: Rig) -> None:
    id_ = (await store(admin, HANDBOOK)).json()["id"]
    for asked in (
        post(HANDBOOK, path=PATH, key=KEY.text),
        get(PATH, key=KEY.text),
        get(f"{PATH}/{id_}", key=KEY.text),
        request("DELETE", f"{PATH}/{id_}", KEY.text),
    ):
        assert (await admin.ask(asked)).status == 403


@pytest.mark.requirement("knowledge:per-tenant-and-role")
async def test_another_tenants_document_is_as_one_that_does_not_exist(admin: Rig) -> None:
    id_ = (await store(admin, HANDBOOK)).json()["id"]
    for method in ("GET", "DELETE"):
        theirs = await admin.ask(request(method, f"{PATH}/{id_}", OTHER.text))
        nobodys = await admin.ask(request(method, f"{PATH}/{id_[:-4]}0000", OTHER.text))
        assert theirs.status == nobodys.status == 404
        same = ("code", "detail", "status", "title", "error")
        assert [theirs.json()[name] for name in same] == [nobodys.json()[name] for name in same]
        assert theirs.json()["code"] == "knowledge.unknown"
    assert (await admin.ask(get(PATH, key=OTHER.text))).json()["data"] == []
    assert (await admin.ask(get(f"{PATH}/{id_}", key=ADMIN.text))).status == 200
