"""What it costs to go on with a long conversation, in every dialect that keeps one, beside one as long as its window.

Both conversations grow by the same messages, in turn, so that whatever else the machine does strikes both alike. Long
ones are copies of a real turn's document: a copy differs in its id and its place alone.
"""

import statistics
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

import bson
from pymongo import InsertOne, UpdateOne

from bench.bench_client import Target, ask
from bench.bench_cluster import CHAT, Cluster, spent
from bench.bench_table import say
from kitemesh_contracts.scopes import Scope
from kitemesh_runtime import conversations_mongo, turns_mongo
from kitemesh_runtime.catalog import History
from kitemesh_runtime.driver_mongo import Database, open_database
from kitemesh_runtime.issuing import issue
from kitemesh_runtime.keys_mongo import MongoKeys

MESSAGES: Final = 1_000
LONG_TURNS: Final = MESSAGES // 2
"""A user's message and its answer are two."""
ROUNDS: Final = 4
ASKED: Final = 40
AGENT: Final = "assistant"
TENANT: Final = "long-talks"
TEXT: Final = "tokens=20 delay_ms=0"
_MS: Final = 1000

Body = Callable[[str], dict[str, Any]]

DIALECTS: Final[dict[str, tuple[str, Body]]] = {
    "completions": (CHAT, lambda name: _openai({"metadata": {"conversation_id": name}})),
    "run_completions": ("/run/v1/chat/completions", lambda name: _openai({"conversationId": name, "stream": False})),
    "run_chat": (
        "/run/api/chat",
        lambda name: {
            "id": name,
            "stream": False,
            "messages": [{"id": str(uuid.uuid4()), "role": "user", "parts": [{"type": "text", "text": TEXT}]}],
        },
    ),
    "agents": (f"/api/agents/{AGENT}/chat", lambda name: {"message": TEXT, "conversation_id": name}),
}


async def measure(cluster: Cluster) -> dict[str, Any]:
    """Measure every dialect."""
    environ = cluster.environment()
    url, name = environ["KITEMESH_MONGO_URL"], environ["KITEMESH_MONGO_DATABASE"]
    dialects: dict[str, Any] = {}
    async with open_database(url, name=name, timeout_s=60.0) as database:
        target = cluster.target(f"agent:{AGENT}")._replace(key=await _key(database, environ["KITEMESH_KEY_PEPPER"]))
        for dialect, (path, body) in DIALECTS.items():
            say(f"a conversation of {MESSAGES:,} messages, {dialect}")
            names = {
                "window": await _talk(database, target, History().turns),
                "long": await _talk(database, target, LONG_TURNS),
            }
            dialects[dialect] = await _compare(cluster, target, path, body, names)
    return {"messages": MESSAGES, "window_turns": History().turns, "dialects": dialects}


async def _key(database: Database, pepper: str) -> str:
    """Make a key for dialects whose requests name no agent."""
    keys = MongoKeys(database)
    text, _ = await issue(keys, pepper.encode(), tenant=TENANT, scopes=(Scope.CHAT,), default_agent=AGENT)
    return text


async def _talk(database: Database, target: Target, turns: int) -> str:
    """Begin a conversation and make it so long; return its name."""
    status, told = await ask(target, CHAT, _openai({}))
    if status != 200:
        raise SystemExit(f"a conversation could not be begun: {told}")
    name: str = told["kitemesh"]["conversation_id"]
    stored = database.collection(turns_mongo.COLLECTION)
    first = bson.encode(await database.run(stored.find_one({"_id": told["kitemesh"]["execution_id"]})))
    copies = [
        InsertOne({**bson.decode(first), "_id": str(uuid.uuid4()), "ordinal": ordinal})
        for ordinal in range(2, turns + 1)
    ]
    grown = UpdateOne({"_id": {"$regex": f":{name}$"}}, {"$set": {"turns": turns}})
    if await database.write_group(turns_mongo.COLLECTION, copies) or await database.write_group(
        conversations_mongo.COLLECTION, [grown]
    ):
        raise SystemExit("copies of a turn were refused")
    return name


async def _compare(cluster: Cluster, target: Target, path: str, body: Body, names: dict[str, str]) -> dict[str, Any]:
    """Go on with each conversation in turn; return the time and the CPU of a turn, and how many failed."""
    took_ms: dict[str, list[float]] = {each: [] for each in names}
    cpu_ms = dict.fromkeys(names, 0.0)
    failures = 0
    for _ in range(ROUNDS):
        for each, name in names.items():
            before = cluster.cpu_s()
            for _ in range(ASKED):
                began_s = time.perf_counter()
                status, _ = await ask(target, path, body(name))
                took_ms[each].append((time.perf_counter() - began_s) * _MS)
                failures += status != 200
            cpu_ms[each] += sum(spent(before, cluster.cpu_s()).values()) * _MS
    cpu = {each: cpu_ms[each] / (ROUNDS * ASKED) for each in names}
    return {
        "p50_ms": {each: round(statistics.median(took_ms[each]), 2) for each in names},
        "cpu_ms_per_turn": {each: round(cpu[each], 2) for each in names},
        "cpu_ratio": round(cpu["long"] / cpu["window"], 2),
        "failures": failures,
    }


def _openai(more: dict[str, Any]) -> dict[str, Any]:
    return {"model": f"agent:{AGENT}", "messages": [{"role": "user", "content": TEXT}], **more}
