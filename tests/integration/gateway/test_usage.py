"""`/v1/usage` over HTTP."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from integration.bus.rig import OwnServer
from integration.gateway.rig import TENANT, Answer, Rig, get, key_record, open_rig
from integration.store.backends import SteppedClock
from kitemesh_contracts.content import Usage
from kitemesh_runtime import keyring
from kitemesh_runtime.stores_memory import memory_stores
from kitemesh_runtime.turns import TurnRecord

CHAT = keyring.make(bytes(range(2, 42)))
ADMIN = keyring.make(bytes(range(3, 43)))
OPERATOR = keyring.make(bytes(range(4, 44)))
ALL = "from=2025-01-01&to=2025-12-31"


@pytest.fixture
async def rig(gateway_server: OwnServer, tmp_path: Path) -> AsyncIterator[Rig]:
    clock = SteppedClock()
    stores = memory_stores(clock)
    for name, (key, scope) in {"c": (CHAT, "chat"), "a": (ADMIN, "admin"), "o": (OPERATOR, "operator")}.items():
        tenant = "ops" if name == "o" else TENANT
        await stores.keys.put(tenant, key_record(key, scopes=(scope,), tenant=tenant))
    for n in range(3):
        await stores.turns.put(TENANT, _record(TENANT, f"{n}", served_by=f"provider/m{n}"))
    await stores.turns.put("other", _record("other", "x"))
    clock.ms += 60_000
    await stores.usage.roll_up()
    async with open_rig(gateway_server.url, tmp_path, replica="gw-usage", shared=stores) as opened:
        yield opened


def _record(tenant: str, name: str, **more: Any) -> TurnRecord:
    return TurnRecord(
        id=f"{tenant}-{name}",
        tenant=tenant,
        status="completed",
        mode="classic",
        model="m",
        key="k",
        usage=Usage(input_tokens=5, output_tokens=2),
        **more,
    )


async def ask(rig: Rig, query: str, key: str = ADMIN.text) -> Answer:
    return await rig.ask(get(f"/v1/usage?{query}", key=key))


@pytest.mark.requirement("usage:native-route")
async def test_a_tenant_sees_what_its_turns_cost_by_day_model_and_key(rig: Rig) -> None:
    answer = await ask(rig, ALL)
    assert answer.status == 200
    assert answer.json() == {
        "data": [
            {
                "day": "2025-06-15",
                "turns": 3,
                "completed": 3,
                "failed": 0,
                "cancelled": 0,
                "input_tokens": 15,
                "output_tokens": 6,
                "cached_tokens": 0,
                "reasoning_tokens": 0,
            }
        ],
        "as_of": "2025-06-15T15:07:20.000Z",
        "next_cursor": None,
    }
    by_key = (await ask(rig, f"{ALL}&by=key")).json()["data"]
    assert [(row["key"], row["turns"]) for row in by_key] == [("k", 3)]
    first = (await ask(rig, f"{ALL}&by=model&limit=2")).json()
    rest = (await ask(rig, f"{ALL}&by=model&limit=2&cursor={first['next_cursor']}")).json()
    assert [row["model"] for row in first["data"] + rest["data"]] == [f"provider/m{n}" for n in range(3)]
    assert rest["next_cursor"] is None
    assert (await ask(rig, "")).json()["data"] == []


@pytest.mark.requirement("usage:scopes")
async def test_another_tenants_usage_is_for_operators_only(rig: Rig) -> None:
    assert (await ask(rig, ALL, CHAT.text)).status == 403
    for tenant in ("other", "nobody"):
        assert (await ask(rig, f"{ALL}&tenant={tenant}")).status == 403
    assert (await ask(rig, f"{ALL}&by=tenant")).status == 403
    assert (await ask(rig, f"{ALL}&tenant={TENANT}")).json()["data"][0]["turns"] == 3
    assert (await ask(rig, f"{ALL}&tenant=other", OPERATOR.text)).json()["data"][0]["turns"] == 1
    everybody = (await ask(rig, f"{ALL}&by=tenant", OPERATOR.text)).json()["data"]
    assert {row["tenant"]: row["turns"] for row in everybody} == {TENANT: 3, "other": 1}


async def test_what_is_asked_wrongly_is_a_problem_that_names_every_field(rig: Rig) -> None:
    answer = await ask(rig, "from=x&by=weather")
    assert answer.status == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert "from: must be a day" in answer.json()["detail"]
    assert "by: must be one of" in answer.json()["detail"]
