"""What turns take on disk, by collection and by index, and what it costs to store them: real writes, scaled up.

The turns are an installation's as we imagine it: two in five durable, one in ten with a tool, one in fifty held for a
person, five to a conversation, one in three with the client's own id. Their words are those of our documentation, so
that they compress as words do. Nothing but a mongod runs.
"""

import asyncio
import random
import time
from pathlib import Path
from typing import Any, Final

import psutil
import pymongo

from bench.bench_table import say
from kitemesh_contracts.content import AssistantMessage, CallResult, Step, TextPart, ToolCall, Usage, UserMessage
from kitemesh_contracts.ids import uuid7
from kitemesh_runtime.audit import AuditRow
from kitemesh_runtime.driver_mongo import Database, open_database
from kitemesh_runtime.holds import HeldCall, Hold, Verdict
from kitemesh_runtime.indexes_mongo import ensure_indexes
from kitemesh_runtime.ledger import LedgerRow
from kitemesh_runtime.live_turns import Job, LiveTurn
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.stores_mongo import open_stores
from kitemesh_runtime.turns import TurnRecord
from real_servers import running_mongod

TURNS: Final = 10_000
AT_ONCE: Final = 64
TENANTS: Final = 20
PER_CONVERSATION: Final = 5
STATE_BYTES: Final = 1_500
"""What a durable turn carries of its own while it runs."""
MILLION: Final = 1_000_000
GIB: Final = 1024**3
DOCS: Final = Path(__file__).resolve().parents[2] / "docs"


class _Words:
    """Text as people and models write it."""

    def __init__(self) -> None:
        self._words = " ".join(path.read_text() for path in sorted(DOCS.glob("*.md"))).split()
        self._random = random.Random(6)

    def some(self, low: int, high: int) -> str:
        """Return so many words in a row."""
        count = self._random.randint(low, high)
        first = self._random.randrange(len(self._words) - count)
        return " ".join(self._words[first : first + count])

    def happens(self, share: float) -> bool:
        """Tell whether what happens so often happens now."""
        return self._random.random() < share


async def measure(folder: Path, turns: int = TURNS) -> dict[str, Any]:
    """Store turns, and say what they take."""
    say(f"storage of {turns:,} turns")
    with running_mongod(folder / "storage") as url:
        server = _server(folder / "storage")
        async with open_database(url, name="bench", timeout_s=30.0) as database:
            await ensure_indexes(database)
            before = await _sizes(url, database)
            async with open_stores(database) as stores:
                server_s, client_s = _cpu_s(server), time.process_time()
                await _store_all(stores, turns)
                server_s, client_s = _cpu_s(server) - server_s, time.process_time() - client_s
                after = await _sizes(url, database)
                counted_s = await _count(database, stores, server)
    scaled = {name: round((size - before.get(name, 0)) / turns * MILLION / GIB, 3) for name, size in after.items()}
    return {
        "turns": turns,
        "gib_per_million_turns": {name: size for name, size in sorted(scaled.items(), key=_largest) if size > 0},
        "gib_per_million_turns_in_all": round(sum(scaled.values()), 2),
        "cpu_us_per_turn": {
            "stores": round(client_s / turns * 1e6),
            "mongod": round(server_s / turns * 1e6),
            "to_count_usage": round(counted_s / turns * 1e6),
        },
    }


async def _store_all(stores: Stores, turns: int) -> None:
    words = _Words()
    numbers = iter(range(turns))

    async def go_on() -> None:
        for number in numbers:
            await _store(stores, words, number)

    await asyncio.gather(*(go_on() for _ in range(AT_ONCE)))


async def _store(stores: Stores, words: _Words, number: int) -> None:
    """Write what a turn has written in the course of its life."""
    tenant = f"tenant-{number % TENANTS}"
    turn = uuid7(time.time_ns() // 1_000_000, random.randbytes(10))
    talk = f"talk-{number // (PER_CONVERSATION * TENANTS)}-{number % TENANTS}"
    message = f"message-{number}" if words.happens(1 / 3) else ""
    if message:
        await stores.claims.claim(tenant, "message", message, turn)
    is_first = number // TENANTS % PER_CONVERSATION == 0
    if not is_first:
        await stores.conversations.take(tenant, talk, turn, b"", max_waiting=PER_CONVERSATION)
    record = TurnRecord(
        id=turn,
        tenant=tenant,
        status="completed",
        mode="durable" if words.happens(0.4) else "classic",
        model="agent:assistant",
        served_by="provider/model-large",
        conversation=talk,
        ordinal=number // TENANTS % PER_CONVERSATION + 1,
        key="Ab3dEf7h",
        agent="assistant",
        input=(UserMessage(parts=(TextPart(text=words.some(10, 120)),)),),
        answer=AssistantMessage(text=words.some(40, 400)),
        usage=Usage(input_tokens=900, output_tokens=300),
        finish="stop",
        accepted_at_ms=time.time_ns() // 1_000_000,
        ended_at_ms=time.time_ns() // 1_000_000,
        steps=await _call(stores, words, tenant, turn) if words.happens(0.1) else (),
        gateway="gateway-1",
        dialect="completions",
        message=message,
    )
    if record.mode == "durable":
        await _live(stores, record)
    else:
        await stores.turns.put(tenant, record)
    if message:
        await stores.claims.settle(tenant, "message", message, turn)
    await stores.conversations.release(tenant, talk, turn)


async def _live(stores: Stores, record: TurnRecord) -> None:
    job = Job(kind="model", step=1, pool="default")
    live = LiveTurn(
        id=record.id,
        tenant=record.tenant,
        version=1,
        status="queued",
        mode="durable",
        model=record.model,
        state=random.randbytes(STATE_BYTES),
        jobs=(job,),
        conversation=record.conversation,
        key=record.key,
        input=record.input,
    )
    await stores.live_turns.insert(record.tenant, live)
    await stores.live_turns.begin(record.tenant, record.id, ordinal=record.ordinal)
    await stores.live_turns.finish(record.tenant, record, version=1)


async def _call(stores: Stores, words: _Words, tenant: str, turn: str) -> tuple[Step, ...]:
    """Note a call with an effect, one in five of them approved by somebody; return its step."""
    arguments = f'{{"text":"{words.some(5, 15)}"}}'
    call = f"{turn}-call"
    if words.happens(0.2):
        held = HeldCall(
            id=call,
            name="act",
            version="0" * 64,
            effect="once",
            arguments=arguments,
            sha256="0" * 64,
            sentence=arguments,
            shown=arguments,
        )
        hold = Hold(id=f"{turn}-hold", tenant=tenant, turn=turn, step=1, model="m", calls=(held,))
        await stores.holds.open(tenant, hold, expires_after_s=3600)
        await stores.holds.decide(tenant, hold.id, {call: Verdict(approved=True, by="Ab3dEf7h")})
        deed = AuditRow(id=f"{turn}-deed", tenant=tenant, subject=hold.id, what="approval.decided", by="Ab3dEf7h")
        await stores.audit.append(tenant, deed)
    row = LedgerRow(
        id=call,
        tenant=tenant,
        turn=turn,
        tool="act",
        effect="once",
        state="dispatched",
        by="worker",
        args_sha256="0" * 64,
    )
    await stores.ledger.dispatch(tenant, row)
    result = CallResult(call=call, text=words.some(20, 200))
    await stores.ledger.finish(tenant, call, "worker", result)
    made = ToolCall(id=call, name="act", arguments=arguments)
    return (Step(step=1, model="provider/model-large", calls=(made,), results=(result,)),)


async def _count(database: Database, stores: Stores, server: psutil.Process) -> float:
    """Count the turns' usage as if they were old enough; return the CPU time of both sides, in seconds."""
    older = [{"$set": {"stored_at": {"$subtract": [{"$toDate": "$stored_at"}, 3_600_000]}}}]
    await database.run(database.collection("turns").update_many({}, older))
    before_s = time.process_time() + _cpu_s(server)
    while await stores.usage.roll_up():
        pass
    return time.process_time() + _cpu_s(server) - before_s


async def _sizes(url: str, database: Database) -> dict[str, int]:
    """Return the bytes on disk of every collection's documents, and of every index."""
    with pymongo.MongoClient[dict[str, Any]](url) as client:
        client.admin.command("fsync")
    found = await database.command({"listCollections": 1, "nameOnly": True})
    sizes: dict[str, int] = {}
    for each in found["cursor"]["firstBatch"]:
        name = each["name"]
        told = await database.command({"collStats": name})
        sizes[name] = told["storageSize"]
        sizes |= {f"{name}.{index}": size for index, size in told["indexSizes"].items()}
    return sizes


def _largest(entry: tuple[str, float]) -> float:
    return -entry[1]


def _server(folder: Path) -> psutil.Process:
    """Find the mongod that keeps its data there."""
    (found,) = [each for each in psutil.Process().children() if str(folder) in " ".join(each.cmdline())]
    return found


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
