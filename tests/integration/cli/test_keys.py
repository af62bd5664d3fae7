import asyncio
import json
import queue
import threading
from collections.abc import Callable
from typing import Any

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
