import asyncio
import json
import os
import queue
import threading
from collections.abc import Callable
from typing import Any

import pymongo
import pytest

from kitemesh_cli.servers import LOOPBACK, free_port
from kitemesh_contracts import subjects
from kitemesh_runtime import keyring
from kitemesh_runtime.bus_nats import open_bus


@pytest.mark.requirement("key:shown-once")
def test_a_key_is_shown_once_and_its_text_never_again(run: Callable[..., Any]) -> None:
    made = run("keys", "create", "--tenant", "a", "--name", "for tests", "--default-agent", "assistant")
    assert made.code == 0, made.err
    text = made.out.splitlines()[0]
    key = keyring.parse(text)
    assert key is not None
    listed = run("keys", "list", "--tenant", "a")
    assert key in listed.out
    assert "for tests" in listed.out
    assert text not in listed.out
    assert text not in run("keys", "list", "--tenant", "a", "--json").out


def test_a_key_for_what_the_catalog_lacks_is_made_with_a_warning(run: Callable[..., Any]) -> None:
    made = run("keys", "create", "--tenant", "a", "--model", "nope", "--model", "scripted", "--default-agent", "zzz")
    assert made.code == 0
    assert "has no model 'nope'" in made.err
    assert "has no agent 'zzz'" in made.err
    assert "'scripted'" not in made.err
    assert keyring.parse(made.out.splitlines()[0])


def test_without_a_tenant_keys_are_the_anonymous_ones(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--tenant" in run("keys", "list").err
    monkeypatch.setenv("KITEMESH_ANONYMOUS_TENANT", "nobody")
    assert run("keys", "list").out == "tenant nobody has no keys\n"


def test_what_a_key_may_do_is_kept(run: Callable[..., Any]) -> None:
    words = ("--scope", "chat", "--scope", "admin", "--model", "scripted", "--model", "agent:assistant")
    made = json.loads(run("keys", "create", "--tenant", "a", *words, "--expires-in", "1h", "--json").out)
    (listed,) = json.loads(run("keys", "list", "--tenant", "a", "--json").out)
    assert listed == {name: value for name, value in made.items() if name != "key"}
    assert listed["scopes"] == ["chat", "admin"]
    assert listed["models"] == ["scripted", "agent:assistant"]
    assert listed["expires_at_s"] - listed["created_at_s"] == pytest.approx(3600)
    assert listed["state"] == "active"
    assert "digest" not in listed


def test_keys_of_another_tenant_are_not_seen_and_not_revoked(run: Callable[..., Any]) -> None:
    made = json.loads(run("keys", "create", "--tenant", "a", "--json").out)
    assert run("keys", "list", "--tenant", "b").out == "tenant b has no keys\n"
    refused = run("keys", "revoke", "--tenant", "b", made["id"])
    assert refused.code == 1
    assert f"no key {made['id']}" in refused.err
    assert json.loads(run("keys", "list", "--tenant", "a", "--json").out)[0]["state"] == "active"


def test_a_revocation_is_stored_and_broadcast(run: Callable[..., Any], own_nats_url: str) -> None:
    made = json.loads(run("keys", "create", "--tenant", "a", "--json").out)
    heard: queue.Queue[str] = queue.Queue()
    listening = threading.Event()

    async def listen() -> None:
        got = asyncio.Event()

        def note(subject: str, _: bytes) -> None:
            heard.put(subject)
            got.set()

        async with open_bus(own_nats_url, name="test") as bus:
            await bus.subscribe(subjects.KEY_ALL, note)
            await bus.barrier()
            listening.set()
            async with asyncio.timeout(10):
                await got.wait()

    listener = threading.Thread(target=lambda: asyncio.run(listen()))
    listener.start()
    assert listening.wait(10)
    revoked = run("keys", "revoke", "--tenant", "a", made["id"])
    assert revoked.code == 0, revoked.err
    assert "every gateway has been told" in revoked.out
    assert heard.get(timeout=10) == subjects.key_changed(made["id"])
    listener.join()
    assert json.loads(run("keys", "list", "--tenant", "a", "--json").out)[0]["state"] == "revoked"


def test_without_nats_a_revocation_stands_and_says_when_it_takes_effect(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = json.loads(run("keys", "create", "--tenant", "a", "--json").out)
    monkeypatch.setattr("kitemesh_cli.connections.CONNECT_S", 0.3)
    monkeypatch.setenv("KITEMESH_NATS_URL", f"nats://{LOOPBACK}:{free_port()}")
    revoked = run("keys", "revoke", "--tenant", "a", made["id"])
    assert revoked.code == 0
    assert "within 5 s" in revoked.out
    assert json.loads(run("keys", "list", "--tenant", "a", "--json").out)[0]["state"] == "revoked"


def test_a_key_is_not_made_under_no_pepper(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KITEMESH_KEY_PEPPER")
    refused = run("keys", "create", "--tenant", "a")
    assert refused.code == 1
    assert "KITEMESH_KEY_PEPPER" in refused.err


@pytest.mark.requirement("keys:rotation")
def test_a_key_is_rotated_with_all_that_it_may(run: Callable[..., Any]) -> None:
    words = ("--scope", "admin", "--model", "scripted", "--name", "worker", "--priority", "batch")
    limits = ("--limit-requests", "60", "--limit-tokens", "1000", "--limit-turns", "3")
    old = json.loads(run("keys", "create", "--tenant", "r", *words, *limits, "--json").out)
    assert old["limits"] == {"requests_per_minute": 60, "tokens_per_minute": 1000, "concurrent_turns": 3}
    new = json.loads(run("keys", "rotate", "--tenant", "r", old["id"], "--json").out)
    same = ("tenant", "scopes", "models", "name", "limits", "priority", "state")
    assert {name: new[name] for name in same} == {name: old[name] for name in same}
    assert keyring.parse(new["key"]) == new["id"] != old["id"]
    replaced = new["replaces"]
    assert replaced["rotated_to"] == new["id"]
    assert replaced["expires_at_s"] - new["created_at_s"] == pytest.approx(24 * 3600, abs=30)
    again = run("keys", "rotate", "--tenant", "r", old["id"])
    assert again.code == 1
    assert "cannot be rotated" in again.err
    at_once = json.loads(run("keys", "rotate", "--tenant", "r", new["id"], "--grace", "0", "--json").out)
    assert at_once["replaces"]["state"] == "expired"
    assert run("keys", "rotate", "--tenant", "r", "unknown").code == 1
    listed = run("keys", "list", "--tenant", "r").out
    assert "60 requests/min, 1000 tokens/min, 3 turns" in listed


@pytest.mark.requirement("audit:every-change")
def test_changes_from_the_command_line_are_in_the_audit(run: Callable[..., Any], mongo_url: str) -> None:
    made = json.loads(run("keys", "create", "--tenant", "noted", "--name", "n", "--json").out)
    new = json.loads(run("keys", "rotate", "--tenant", "noted", made["id"], "--json").out)
    for _ in range(2):
        run("keys", "revoke", "--tenant", "noted", new["id"])
    run("tenants", "set", "noted", "--limit-requests", "6")
    run("tenants", "remove", "noted")
    with pymongo.MongoClient[dict[str, Any]](mongo_url) as client:
        audit = client[os.environ["KITEMESH_MONGO_DATABASE"]]["audit"]
        rows = list(audit.find({"tenant": "noted"}).sort([("at", 1), ("_id", 1)]))
    assert [(row["what"], row["subject"], row["by"]) for row in rows] == [
        ("key.created", made["id"], "cli"),
        ("key.rotated", made["id"], "cli"),
        ("key.revoked", new["id"], "cli"),
        ("tenant.changed", "noted", "cli"),
        ("tenant.removed", "noted", "cli"),
    ]
    told = repr(rows)
    assert not [secret for secret in (made["key"], new["key"]) if secret in told or secret[11:54] in told]
    assert '"requests_per_minute":6' in rows[3]["values"]
