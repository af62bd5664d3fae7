import asyncio
import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from kitemesh_contracts.content import AssistantMessage, TextPart, UserMessage
from kitemesh_runtime.driver_mongo import open_database
from kitemesh_runtime.stores_mongo import open_stores
from kitemesh_runtime.turns import TurnRecord


@pytest.fixture
def stored(run: Callable[..., Any], mongo_url: str) -> None:
    record = TurnRecord(
        id="t1",
        tenant="a",
        status="completed",
        mode="classic",
        model="scripted",
        conversation="c1",
        ordinal=1,
        input=(UserMessage(parts=(TextPart(text="How are you?"),)),),
        answer=AssistantMessage(text="Well.\x1b[2J\x7f\x9b2J\u202e"),
    )

    async def store() -> None:
        async with (
            open_database(mongo_url, name=os.environ["KITEMESH_MONGO_DATABASE"]) as database,
            open_stores(database) as stores,
        ):
            await stores.conversations.create("a", "c1", "t1", agent=None)
            await stores.turns.put("a", record)
            await stores.conversations.release("a", "c1", "t1")

    asyncio.run(store())


def test_a_conversation_is_printed_with_its_turns(run: Callable[..., Any], stored: None) -> None:
    shown = run("conversation", "--tenant", "a", "c1")
    assert shown.code == 0, shown.err
    content = json.loads(shown.out)
    assert content["id"] == "c1"
    assert [turn["id"] for turn in content["turns"]] == ["t1"]
    assert content["turns"][0]["answer"]["text"] == "Well.\x1b[2J\x7f\x9b2J\u202e"
    assert not {*"\x1b\x7f\x9b\u202e"} & {*shown.out}


def test_another_tenants_conversation_does_not_exist(run: Callable[..., Any], stored: None) -> None:
    refused = run("conversation", "--tenant", "b", "c1")
    assert refused.code == 1
    assert refused.err == "kitemesh: tenant b has no conversation c1\n"


def test_the_tenant_must_be_known(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--tenant" in run("conversation", "c1").err
    monkeypatch.setenv("KITEMESH_ANONYMOUS_TENANT", "b")
    assert "tenant b has" in run("conversation", "c1").err


def test_with_nothing_running_and_no_server_named_it_says_what_to_do(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KITEMESH_MONGO_URL", "KITEMESH_NATS_URL"):
        monkeypatch.delenv(name)
    for words in (("conversation", "c1"), ("keys", "list")):
        refused = run(*words)
        assert refused.code == 1
        assert refused.err == (
            "kitemesh: nothing runs from .data; `make up`, or name servers with KITEMESH_MONGO_URL and --tenant\n"
        )
