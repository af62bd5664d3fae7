"""`kitemesh usage` on a real MongoDB."""

import asyncio
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kitemesh_runtime.driver_mongo import open_database
from kitemesh_runtime.indexes_mongo import ensure_indexes
from kitemesh_runtime.usage_mongo import MongoUsages

Run = Callable[..., Any]

ENDED = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)


@pytest.fixture
def counted(run: Run) -> Run:
    """The command, and turns that are counted."""

    async def fill() -> None:
        name = os.environ["KITEMESH_MONGO_DATABASE"]
        async with open_database(os.environ["KITEMESH_MONGO_URL"], name=name, driver="pymongo") as database:
            await ensure_indexes(database)
            turns = [
                {
                    "_id": f"{tenant}-{n}",
                    "tenant": tenant,
                    "status": "failed" if n == 1 else "completed",
                    "model": f"m{n % 2}",
                    "stored_at": ENDED,
                    "usage": {"input_tokens": 1000, "output_tokens": 20},
                }
                for tenant, turns in (("a", 3), ("b", 1))
                for n in range(turns)
            ]
            await database.run(database.collection("turns").insert_many(turns))
            usage = MongoUsages(database)
            while await usage.roll_up():
                pass

    asyncio.run(fill())
    return run


@pytest.mark.requirement("usage:command")
def test_usage_is_shown_by_day_model_and_tenant_with_a_total(counted: Run) -> None:
    header, day, total, as_of = counted("usage", "--tenant", "a").out.splitlines()
    assert header.split()[:3] == ["DAY", "TURNS", "FAILED"]
    assert day.split() == [ENDED.date().isoformat(), "3", "1", "0", "3,000", "0", "60", "0"]
    assert total.split() == ["total", *day.split()[1:]]
    assert as_of.startswith("counted up to 20")
    models = json.loads(counted("usage", "--tenant", "a", "--by", "model", "--json").out)
    assert [(row["model"], row["turns"], row["failed"]) for row in models["data"]] == [("m0", 2, 0), ("m1", 1, 1)]
    assert (models["tenant"], models["to"]) == ("a", datetime.now(UTC).date().isoformat())
    tenants = json.loads(counted("usage", "--by", "tenant", "--json").out)
    assert {row["tenant"]: row["turns"] for row in tenants["data"]} == {"a": 3, "b": 1}
    assert "(without a key)" in counted("usage", "--tenant", "a", "--by", "key").out


def test_where_nothing_is_counted_it_says_so(run: Run) -> None:
    shown = run("usage", "--tenant", "a", "--from", "2026-01-01", "--to", "2026-01-31")
    assert shown.out.splitlines() == [
        "no turns of tenant a that ended from 2026-01-01 to 2026-01-31 are counted",
        "nothing was counted so far",
    ]


def test_what_makes_no_sense_is_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert "must not be after" in run("usage", "--tenant", "a", "--from", "2026-02-01", "--to", "2026-01-01").err
    assert "leave --tenant out" in run("usage", "--tenant", "a", "--by", "tenant").err
    with pytest.raises(SystemExit):
        run("usage", "--from", "yesterday")
    assert "is not a day" in capsys.readouterr().err
