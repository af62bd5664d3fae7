"""Stand-ins around the executor: a tool that does as told, a catalog in memory, a ledger that can be away."""

import asyncio
from typing import Any, NamedTuple, Self

from kitemesh_contracts import canonical
from kitemesh_contracts.commands import CallOrder, RunCalls
from kitemesh_contracts.content import CallResult
from kitemesh_contracts.errors import ErrorCode, Unavailable
from kitemesh_runtime.catalog import Catalog
from kitemesh_runtime.clock import SystemClock
from kitemesh_runtime.ledger import LedgerRow
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.stores_memory import memory_stores
from kitemesh_tool_executor.dispatch import Dispatcher
from kitemesh_tool_executor.registry import Registry
from kitemesh_tool_executor.results import Results
from kitemesh_tool_executor.tool import Call
from kitemesh_tool_executor.tool_webhook import webhook_definition
from kitemesh_tool_executor.work import Work

TENANT = "acme"
TURN = "turn-1"
EFFECTS = ("safe", "keyed", "once")


class Crash(BaseException):
    """The process dies here."""


class ToldTool:
    """A tool that does one told thing after the other, then returns `done`."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.script: list[BaseException | str] = []
        self.hangs = False
        self.asked = asyncio.Event()

    async def run(self, call: Call) -> str:
        self.calls.append(call)
        self.asked.set()
        if self.hangs:
            await asyncio.Event().wait()
        told = self.script.pop(0) if self.script else "done"
        if isinstance(told, BaseException):
            raise told
        return told


class OneTool:
    """A kind whose every tool is the same."""

    def __init__(self, tool: ToldTool) -> None:
        self.only = tool
        self.made: list[str] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Own nothing."""

    def tool(self, name: str, _: Catalog) -> ToldTool:
        self.made.append(name)
        return self.only


class Source:
    """A catalog that a test replaces."""

    def __init__(self, **more: Any) -> None:
        self.current = catalog_of(**more)


def catalog_of(**more: Any) -> Catalog:
    tools: dict[str, Any] = {
        effect: {
            "kind": "http",
            "url": "https://example.com/x",
            "effect": effect,
            "timeout_s": 5,
            "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}},
            "max_result_bytes": 600_000,
            **more,
        }
        for effect in EFFECTS
    }
    hook = {"url": "https://example.com/hook", "events": ["turn.failed"], "secret": {"env": "X"}}
    pools = {"tool": {"default": {}, "webhooks": {}}}
    return Catalog.model_validate(
        {"providers": {}, "models": {}, "tools": tools, "webhooks": {"ops": hook}, "pools": pools}
    )


class Outage:
    """A ledger that is away for the next calls of the methods named."""

    def __init__(self, ledger: Any) -> None:
        self._ledger = ledger
        self.away: dict[str, int] = {}
        self.afterwards = False
        self.tried: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._ledger, name)

        async def call(*args: Any) -> Any:
            self.tried.append(name)
            left = self.away.get(name, 0)
            if left:
                self.away[name] = left - 1
                if self.afterwards:
                    # It was done, and only the answer is lost.
                    await method(*args)
                raise Unavailable(ErrorCode.STORE_DOWN, "the store does not answer")
            return await method(*args)

        return call


class Rig(NamedTuple):
    """A dispatcher and all that it works with."""

    dispatcher: Dispatcher
    tool: ToldTool
    stores: Stores
    ledger: Outage
    source: Source

    def order(self, name: str, arguments: str = '{"n":1}', **more: Any) -> CallOrder:
        definition = self.source.current.tools.get(name)
        fields = {
            "id": "call-1",
            "name": name,
            "arguments": arguments,
            "sha256": canonical.sha256(arguments),
            "version": definition.version() if definition else "",
        }
        return CallOrder(**{**fields, **more})

    async def row(self) -> LedgerRow | None:
        return await self.stores.ledger.get(TENANT, "call-1")

    async def run(self, order: CallOrder, work: Work | None = None) -> CallResult:
        async with asyncio.timeout(10):
            return await self.dispatcher.run(order, work or work_of())


def rig(clock: SystemClock | None = None, **tool: Any) -> Rig:
    told, clock = ToldTool(), clock or SystemClock()
    stores, source = memory_stores(clock), Source(**tool)
    ledger = Outage(stores.ledger)
    kind = OneTool(told)
    registry = Registry(source, {"http": kind, "webhook": kind}, webhook_definition)
    # No pause between two tries.
    dispatcher = Dispatcher(
        registry=registry,
        ledger=ledger,
        live_turns=stores.live_turns,
        results=Results(stores.blobs),
        clock=clock,
        chance=lambda: -1.0,
    )
    return Rig(dispatcher, told, stores, ledger, source)


def work_of(
    by: str = "me", *, repeated: bool = False, reason: str | None = None, queued_s: float = 0.0, **more: Any
) -> Work:
    fields: dict[str, Any] = {
        "turn": TURN,
        "tenant": TENANT,
        "gateway": "g",
        "mode": "classic",
        "step": 1,
        "attempt": 1,
        "calls": (),
        "budget_s": 30.0,
    }
    job = RunCalls(**{**fields, **more})
    return Work(job, by=by, repeated=repeated, reason=reason, queued_s=queued_s, began_s=SystemClock().monotonic())


def code(result: CallResult) -> ErrorCode | None:
    return result.error.code if result.error else None
