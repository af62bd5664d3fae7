"""Gathers what `kitemesh doctor` judges of MongoDB: who leads, which indexes are there, how far usage is counted."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from pymongo import ReadPreference
from pymongo.errors import OperationFailure

from kitemesh_cli.doctor_facts import Reach, StoreFacts
from kitemesh_contracts.errors import KitemeshError, Unavailable
from kitemesh_runtime import usage_mongo
from kitemesh_runtime.driver_mongo import Database, open_database, ping
from kitemesh_runtime.indexes_mongo import compare_indexes
from kitemesh_runtime.masking import mask_url
from kitemesh_runtime.one_line import one_line
from kitemesh_runtime.settings import Settings

TIMEOUT_S: Final = 2.5
SELECT_S: Final = 1.5
LOOK_S: Final = 8.0
"""For all questions together."""
_REFUSALS: Final = frozenset({13, 18})
"""Unauthorized, AuthenticationFailed."""
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


async def look_at_store(settings: Settings) -> StoreFacts:
    """Ask MongoDB: first any member, then whoever takes writes."""
    url = settings.mongo_url.get_secret_value()
    told: dict[str, Any] = {"address": mask_url(url).partition("?")[0], "loopback": is_loopback(url)}
    try:
        async with asyncio.timeout(LOOK_S):
            return await _ask_all(settings, told)
    except Unavailable as exc:
        return StoreFacts(**told, reach="unreachable", why=one_line(exc.message))
    except TimeoutError:
        return StoreFacts(**told, reach="unreachable", why=f"its answers took longer than {LOOK_S:.0f} s")


async def _ask_all(settings: Settings, told: dict[str, Any]) -> StoreFacts:
    async with open_database(
        settings.mongo_url.get_secret_value(),
        name=settings.mongo_database,
        driver=settings.mongo_driver,
        timeout_s=TIMEOUT_S,
        select_timeout_s=SELECT_S,
    ) as database:
        try:
            hello, skew_ms = await _greet(database)
        except KitemeshError as exc:
            return StoreFacts(**told, reach=reach_of(exc), why=_why(exc))
        told = {**told, "replica_set": str(hello.get("setName", "")), "skew_ms": skew_ms}
        if not hello.get("isWritablePrimary") and not hello.get("primary"):
            return StoreFacts(**told, primary=False)
        try:
            await ping(database)
            (missing, differing), lag_s = await asyncio.gather(compare_indexes(database), _usage_lag_s(database, hello))
        except KitemeshError as exc:
            return StoreFacts(**told, reach=reach_of(exc), why=_why(exc))
        return StoreFacts(**told, missing=missing, differing=differing, usage_lag_s=lag_s)


def reach_of(error: KitemeshError) -> Reach:
    """Tell whether the server refused whoever asked, or did not answer."""
    cause = error.__cause__
    return "refused" if isinstance(cause, OperationFailure) and cause.code in _REFUSALS else "unreachable"


def is_loopback(url: str) -> bool:
    """Tell whether every server of a URL is on this machine."""
    hosts = urlsplit(url).netloc.rpartition("@")[2].split(",")
    return all((urlsplit(f"//{host}").hostname or "") in _LOOPBACK for host in hosts)


def _why(error: KitemeshError) -> str:
    cause = error.__cause__
    if isinstance(cause, OperationFailure):
        return one_line(str((cause.details or {}).get("codeName") or error.message))
    return "no server was found in time" if isinstance(error, Unavailable) else one_line(error.message)


async def _greet(database: Database) -> tuple[dict[str, Any], float]:
    """Ask any member what it is, and what its clock says: one that is no primary answers, too."""
    handle = database.collection(usage_mongo.MARKS).database
    began_s = time.time()
    hello: dict[str, Any] = await database.run(handle.command("hello", read_preference=ReadPreference.NEAREST))
    asked_s = (began_s + time.time()) / 2
    # A command's answer has it without its zone, which is always this one.
    hello["localTime"] = hello["localTime"].replace(tzinfo=UTC)
    return hello, round((hello["localTime"].timestamp() - asked_s) * 1000)


async def _usage_lag_s(database: Database, hello: dict[str, Any]) -> float | None:
    mark = await database.run(database.collection(usage_mongo.MARKS).find_one({"_id": usage_mongo.MARK}, {"upto": 1}))
    if mark is None:
        return None
    now: datetime = hello["localTime"]
    lag_s: float = (now - mark["upto"]).total_seconds()
    return lag_s
