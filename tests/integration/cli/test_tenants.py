import json
import os
import queue
from collections.abc import Callable
from typing import Any

import pymongo
import pytest

from kitemesh_cli import tenants


@pytest.mark.requirement("tenants:set")
def test_what_is_said_of_a_tenant_is_kept_and_what_is_not_named_stays(run: Callable[..., Any]) -> None:
    words = ("--limit-requests", "600", "--key-limit-tokens", "1000", "--default-agent", "assistant")
    first = run("tenants", "set", "said", *words, "--retention", "turns=3", "--retention", "audit=30", "--json")
    assert first.code == 0, first.err
    again = ("--limit-requests", "none", "--limit-turns", "5", "--retention", "audit=none", "--priority", "batch")
    stored = json.loads(run("tenants", "set", "said", *again, "--model", "scripted", "--json").out)
    del stored["updated_at_s"], stored["broadcast"]
    assert stored == {
        "id": "said",
        "limits": {"concurrent_turns": 5},
        "key_limits": {"tokens_per_minute": 1000},
        "default_agent": "assistant",
        "models": ["scripted"],
        "priority": "batch",
        "retention_days": {"turns": 3},
    }
    cleared = ("--default-agent", "none", "--model", "none", "--priority", "none")
    stored = json.loads(run("tenants", "set", "said", *cleared, "--json").out)
    assert not {"default_agent", "models", "priority"} & set(stored)
    assert "5 turns" in run("tenants", "list").out


@pytest.mark.requirement("tenants:defaults")
def test_what_is_said_of_all_holds_where_nothing_is_said(run: Callable[..., Any]) -> None:
    run("tenants", "set", "_default", "--key-limit-requests", "60", "--limit-turns", "9")
    run("tenants", "set", "own", "--limit-turns", "2")
    try:
        shown = json.loads(run("tenants", "show", "own", "--json").out)
        assert shown["effective"]["key_limits"] == {"requests_per_minute": 60}
        assert shown["effective"]["limits"] == {"concurrent_turns": 2}
        assert "9 turns" in run("tenants", "show", "nobody").out
    finally:
        assert run("tenants", "remove", "_default").code == 0


def test_what_is_taken_back_is_gone(run: Callable[..., Any]) -> None:
    run("tenants", "set", "gone", "--priority", "batch")
    assert json.loads(run("tenants", "remove", "gone", "--json").out)["deleted"]
    refused = run("tenants", "remove", "gone")
    assert (refused.code, "nothing is said of tenant gone" in refused.err) == (1, True)
    assert "gone" not in run("tenants", "list").out


WRONG = [
    ("--limit-requests", "0"),
    ("--limit-tokens", "many"),
    ("--priority", "urgent"),
    ("--retention", "turns"),
    ("--retention", "turns=0"),
    ("--retention", "hats=3"),
    ("--default-agent", "no agent"),
]


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_what_makes_no_sense_is_refused_and_nothing_is_said(run: Callable[..., Any], words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as refused:
        run("tenants", "set", "wrong", *words)
    assert refused.value.code == 2
    assert run("tenants", "remove", "wrong").code == 1


def test_gateways_are_told_of_a_change(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    told: queue.Queue[str] = queue.Queue()

    async def note(_: object, subjects: list[str]) -> bool:
        for subject in subjects:
            told.put(subject)
        return True

    monkeypatch.setattr(tenants, "broadcast", note)
    run("tenants", "set", "_default", "--limit-turns", "9")
    assert told.get_nowait() == "km.v1.ctl.tenant._default"


@pytest.mark.requirement("retention:per-tenant-and-kind")
def test_what_a_verb_writes_is_kept_as_long_as_its_tenant_wants_it(run: Callable[..., Any], mongo_url: str) -> None:
    run("tenants", "set", "brief", "--retention", "audit=7")
    assert run("tenants", "set", "brief", "--limit-turns", "2").code == 0
    with pymongo.MongoClient[dict[str, Any]](mongo_url) as client:
        rows = list(client[os.environ["KITEMESH_MONGO_DATABASE"]]["audit"].find({"tenant": "brief"}).sort("at"))
    assert [(row["kept_until"] - row["at"]).days for row in rows] == [400, 7]
