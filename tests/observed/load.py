"""What clients do on a healthy day: all dialects, both modes, streams that are left and resumed, tools and approvals.

Each activity is repeated at its own pace until the load ends. A request that fails is counted, for when faults are
under way it may; what a request is answered is the other tests' business.
"""

import asyncio
import contextlib
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

import aiohttp

from cluster import GROUP
from observed.catalog import FALLING, FAR_MODEL, SECOND
from tool_cluster import calling

ASK_S: Final = 60.0
PACE_S: Final = 1.0

Activity = Callable[["Client"], Awaitable[None]]


class Client:
    """Asks gateways by turns.

    Attributes:
        statuses: Of all answers.

    """

    def __init__(self, session: aiohttp.ClientSession, origins: Sequence[str], key: str) -> None:
        self.statuses: Final[Counter[int]] = Counter()
        self._session = session
        self._origins = itertools.cycle(origins)
        self._headers = {"Authorization": f"Bearer {key}"}
        self._numbers = itertools.count()

    def name(self) -> str:
        """Make up a name that nothing else has."""
        return f"observed-{next(self._numbers)}"

    @contextlib.asynccontextmanager
    async def asking(
        self, path: str, body: Any = None, *, method: str = "", origin: str = "", **headers: str
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask the next gateway, or a certain one, and have the answer while inside."""
        method = method or ("GET" if body is None else "POST")
        url = (origin or next(self._origins)) + path
        async with self._session.request(method, url, json=body, headers={**self._headers, **headers}) as reply:
            self.statuses[reply.status] += 1
            yield reply

    async def call(self, path: str, body: Any = None, *, method: str = "", origin: str = "", **headers: str) -> Any:
        """Ask, and return the answer's JSON; of a stream, or another text, nothing."""
        async with self.asking(path, body, method=method, origin=origin, **headers) as reply:
            content = await reply.read()
        return json.loads(content) if reply.content_type.endswith("json") and content else None


def chat(text: str, model: str = GROUP, **more: Any) -> dict[str, Any]:
    """Return a chat body."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


CHAT: Final = "/v1/chat/completions"
_STREAMED: Final = {"stream": True, "stream_options": {"include_usage": True}}
_DURABLE: Final = {"metadata": {"mode": "durable"}}


async def completions(client: Client) -> None:
    """Ask whole and streamed, of the scripted model and of the upstream's."""
    await client.call(CHAT, chat("Hello"))
    await client.call(CHAT, chat("@delay_ms 20\n@count 20", **_STREAMED))
    await client.call(CHAT, chat("Hello", FALLING))
    await client.call(CHAT, chat("Hello", SECOND, **_STREAMED))
    await client.call(CHAT, chat("@reason 3\n@echo far", FAR_MODEL))


async def resumed_streams(client: Client) -> None:
    """Leave a durable stream in its middle and come back elsewhere; join another one late."""
    body = chat("@delay_ms 30\n@count 20", **_STREAMED, **_DURABLE)
    last = ""
    async with client.asking(CHAT, body) as reply:
        for _ in range(6):
            for line in (await reply.content.readuntil(b"\n\n")).decode().splitlines():
                last = line.removeprefix("id: ") if line.startswith("id: ") else last
        execution = reply.headers["x-execution-id"]
    await client.call(CHAT, body, **{"Last-Event-ID": last})
    await client.call(f"/v1/executions/{execution}/stream")
    keyed = {"Idempotency-Key": client.name()}
    for _ in range(2):
        await client.call(CHAT, chat("@echo once", **_DURABLE), **keyed)


async def other_dialects(client: Client) -> None:
    """Use the other published APIs."""
    await client.call("/run/api/chat", {"messages": [{"role": "user", "content": "Hello", "id": client.name()}]})
    await client.call("/run/v1/chat/completions", chat("Hello", stream=False))
    retrieved = {"metadata": {"enable_l0_retrieval": True}}
    await client.call("/api/kernel2/chat", {"messages": [{"role": "user", "content": "turbine blades"}], **retrieved})
    said = await client.call("/api/agents/clerk/chat", {"message": "Hello"})
    await client.call("/api/agents/clerk/chat", {"message": "Again", "conversation_id": said["conversation_id"]})
    await client.call("/api/agents/clerk/chat?limit=5")


async def tools(client: Client) -> None:
    """Have tools called: all effect classes, one that fails, one that is forbidden."""
    name = client.name()
    steps = [("look", {"id": name}), ("charge", {"id": name}), ("note", {"id": name})]
    await client.call(CHAT, chat(calling(*steps), "agent:clerk"))
    await client.call(CHAT, chat(calling(("look", {"id": name, "mode": "404"})), "agent:clerk"))
    await client.call(CHAT, chat(calling(("ban", {"id": name})), "agent:clerk", **_STREAMED, **_DURABLE))


async def approvals(client: Client) -> None:
    """Have a hold approved, one denied, one run out and one cancelled."""
    for approves in (True, False):
        held = await client.call(CHAT, chat(calling(("pay", {"id": client.name()})), "agent:clerk"))
        calls = [call["id"] for call in held["choices"][0]["message"]["tool_calls"]]
        await client.call(
            "/v1/chat/resume",
            {
                "model": held["model"],
                "approval_id": held["kitemesh"]["approval_id"],
                "approved_tool_execution_ids": calls if approves else [],
            },
        )
    await client.call(CHAT, chat(calling(("pay", {"id": client.name()})), "agent:hasty"))
    held = await client.call(CHAT, chat(calling(("pay", {"id": client.name()})), "agent:clerk", **_DURABLE))
    await client.call(f"/v1/executions/{held['kitemesh']['execution_id']}/cancel", {})


async def native(client: Client) -> None:
    """Use the native routes."""
    accepted = await client.call("/v1/executions", chat("@echo later", metadata={"mode": "durable"}))
    await client.call(f"/v1/executions/{accepted['id']}")
    for path in ("/v1/executions", "/v1/approvals", "/v1/conversations", "/v1/usage", "/v1/models", "/v1/cluster"):
        await client.call(path)


async def news(client: Client) -> None:
    """Read the tenant's feed for a while."""
    async with client.asking("/v1/events") as reply:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                while await reply.content.readline():
                    continue


async def mistakes(client: Client) -> None:
    """Ask for what there is not, and with a key that nobody has."""
    await client.call(CHAT, chat("Hello", "nobody"))
    await client.call("/v1/executions/nothing")
    await client.call("/v1/models", Authorization="Bearer km_" + "x" * 57)


async def leaving(client: Client) -> None:
    """Begin a classic stream and go away."""
    async with client.asking(CHAT, chat("@delay_ms 50\n@count 40", stream=True)) as reply:
        await reply.content.readline()


ACTIVITIES: Final[tuple[Activity, ...]] = (
    completions,
    completions,
    resumed_streams,
    other_dialects,
    tools,
    approvals,
    native,
    news,
    mistakes,
    leaving,
)


class Load:
    """The clients; made by `running_load`.

    Attributes:
        done: How often each activity came to its end.
        broken: How often each did not, and why the last time.

    """

    def __init__(self, client: Client) -> None:
        self.client: Final = client
        self.done: Final[Counter[str]] = Counter()
        self.broken: Final[Counter[str]] = Counter()
        self.reasons: Final[dict[str, str]] = {}

    async def repeat(self, activity: Activity) -> None:
        """Do the same for ever."""
        name = activity.__name__
        while True:
            try:
                async with asyncio.timeout(ASK_S):
                    await activity(self.client)
                self.done[name] += 1
            except (
                aiohttp.ClientError,
                TimeoutError,
                OSError,
                asyncio.IncompleteReadError,
                KeyError,
                TypeError,
            ) as exc:
                # While a fault is under way an answer may be none, or not what comes on a healthy day.
                self.broken[name] += 1
                self.reasons[name] = f"{type(exc).__name__}: {exc}"[:200]
            await asyncio.sleep(PACE_S)


@contextlib.asynccontextmanager
async def running_load(origins: Sequence[str], key: str) -> AsyncIterator[Load]:
    """Have clients while inside."""
    timeout = aiohttp.ClientTimeout(total=ASK_S)
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        load = Load(Client(session, origins, key))
        tasks = [asyncio.create_task(load.repeat(activity)) for activity in ACTIVITIES]
        try:
            yield load
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
