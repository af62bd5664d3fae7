"""A cluster whose agents have tools with effects at a stub, a further gateway of it, and what clients ask them."""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from pymongo import MongoClient
from pymongo.database import Database

from cluster import LOOPBACK, Cluster, Reply, free_port, running_cluster
from kitemesh_contracts.topology import TOOL
from kitemesh_runtime.bus_nats import open_bus
from kitemesh_runtime.driver_mongo import open_database
from kitemesh_runtime.issuing import issue
from kitemesh_runtime.stores_mongo import open_stores
from tool_stub import ToolStub, start_tool_stub

T = TypeVar("T")

Change = Callable[[dict[str, Any]], None]

PATIENCE_S = 30.0
DATABASE = "kitemesh"
TEXT = {"type": "string"}
STUB_QUERY = ("mode", "times", "delay_ms")
"""Arguments that tell the stub how to answer."""

AGENTS: dict[str, dict[str, Any]] = {
    "clerk": {},
    "strict": {"on_held": "reject"},
    "patient": {"on_held": "queue"},
    "hasty": {},
    "board": {},
    "chief": {},
    "curt": {"on_busy": "reject"},
    "hurried": {"on_busy": "cancel_previous"},
}
"""Agents that differ in what holds mean to them; `HELD` says for how long and for whom each of them holds."""

HELD: dict[str, dict[str, Any]] = {
    "hasty": {"expires_after_s": 1.0},
    "board": {"decide": "batch"},
    "chief": {"scope": "admin"},
}


def http_tool(url: str, *, method: str = "POST", **more: Any) -> dict[str, Any]:
    """Define a tool of the stub; it takes an `id` and what the stub's query says."""
    properties = {"id": TEXT, "amount": {"type": "number"}, **dict.fromkeys(STUB_QUERY, TEXT)}
    return {
        "kind": "http",
        "method": method,
        "url": url,
        "query": list(STUB_QUERY),
        "allow_networks": ["127.0.0.0/8"],
        "parameters": {
            "type": "object",
            "properties": properties,
            "required": ["id"],
            "additionalProperties": False,
        },
        **more,
    }


def tools_at(stub: str) -> dict[str, Any]:
    """Define one tool of each effect class, two of which are held, one forbidden, and one that no agent has."""
    return {
        "look": http_tool(f"{stub}/safe/look/{{{{id}}}}", method="GET"),
        "charge": http_tool(f"{stub}/keyed/charge/{{{{id}}}}", effect="keyed"),
        "note": http_tool(f"{stub}/once/note/{{{{id}}}}"),
        "pay": http_tool(f"{stub}/keyed/pay/{{{{id}}}}", effect="keyed", sentence="Pay {{amount}} to {{id}}"),
        "wipe": http_tool(f"{stub}/once/wipe/{{{{id}}}}", sentence="Wipe {{id}} for good"),
        "ban": http_tool(f"{stub}/once/ban/{{{{id}}}}"),
        "sign": signing(stub),
        "admin": http_tool(f"{stub}/once/admin/{{{{id}}}}"),
    }


def signing(stub: str) -> dict[str, Any]:
    """Define a held tool with an argument that nobody may see."""
    tool = http_tool(f"{stub}/once/sign/{{{{id}}}}", secret_arguments=["code"])
    return {**tool, "parameters": {**tool["parameters"], "properties": {"id": TEXT, "code": TEXT}}, "query": []}


def catalog_at(stub: str) -> dict[str, Any]:
    """Return a catalog for the stub."""
    held = {"tools": ["pay", "wipe", "sign"], "then": "hold"}
    tools = [name for name in tools_at(stub) if name != "admin"]
    return {
        "version": 1,
        "providers": {"scripted": {"kind": "scripted"}},
        "models": {"scripted": {"provider": "scripted"}},
        "agents": {name: {"model": "scripted", "tools": tools, **rules} for name, rules in AGENTS.items()},
        "tools": tools_at(stub),
        "policies": [
            {"tools": ["ban"], "then": "deny", "reason": "Nobody is banned here."},
            *({**held, "agents": [agent], **terms} for agent, terms in HELD.items()),
            held,
        ],
    }


class ToolCluster(NamedTuple):
    """A cluster and the stub that its tools reach."""

    cluster: Cluster
    stub: ToolStub
    catalog: Path

    def change(self, change: Change) -> None:
        """Put a changed catalog in the place of the present one, in one piece; the services take their time over it."""
        catalog = yaml.safe_load(self.catalog.read_text())
        change(catalog)
        fresh = self.catalog.with_suffix(".new")
        fresh.write_text(yaml.safe_dump(catalog, sort_keys=False))
        fresh.rename(self.catalog)

    @contextlib.contextmanager
    def store(self) -> Iterator[Database[dict[str, Any]]]:
        """Look into the cluster's database, and change it, as nobody should."""
        with MongoClient[dict[str, Any]](self.cluster.environment()["KITEMESH_MONGO_URL"]) as client:
            yield client[DATABASE]


@contextlib.contextmanager
def tool_cluster(folder: Path, change: Change | None = None, **environ: str) -> Iterator[ToolCluster]:
    """Start a stub and a cluster that knows it; `change` adds to the catalog."""
    folder.mkdir(parents=True, exist_ok=True)
    with start_tool_stub(folder) as stub:
        path, catalog = folder / "catalog.yaml", catalog_at(stub.url)
        if change is not None:
            change(catalog)
        path.write_text(yaml.safe_dump(catalog, sort_keys=False))
        with running_cluster(folder, KITEMESH_CATALOG=str(path), **environ) as cluster:
            yield ToolCluster(cluster, stub, path)


def tool_jobs(cluster: Cluster) -> int:
    """Count the tool jobs that are queued or in an executor's hands."""

    async def count() -> int:
        async with open_bus(cluster.environment()["KITEMESH_NATS_URL"], name="test") as bus:
            info = await bus.request(f"$JS.API.STREAM.INFO.{TOOL}", b"", timeout_s=5)
        return int(json.loads(info)["state"]["messages"])

    return asyncio.run(count())


class Gateway(Cluster):
    """A further gateway of a cluster."""

    def __init__(self, first: Cluster, port: int, process: subprocess.Popen[bytes]) -> None:
        self.port = port
        self.key = first.key
        self.origin = f"http://{LOOPBACK}:{port}"
        self.process = process


@contextlib.contextmanager
def another_gateway(cluster: Cluster, folder: Path) -> Iterator[Gateway]:
    """Start a further gateway, which may be dead when this is left."""
    port, log = free_port(), folder / f"gateway-{time.monotonic_ns()}.log"
    environment = {**cluster.environment("gateway"), "KITEMESH_PORT": str(port), "KITEMESH_HEALTH_PORT": "0"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "kitemesh_gateway"], stdout=output, stderr=output, env=environment
        )
    gateway = Gateway(cluster, port, process)
    try:
        until(lambda: process.poll() is not None or _answers(gateway))
        assert process.poll() is None, log.read_text()[-2000:]
        yield gateway
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(PATIENCE_S)


def _answers(gateway: Cluster) -> bool:
    try:
        return gateway.call("/v1/models").status == 200
    except OSError:
        return False


def make_keys(cluster: Cluster, *wanted: tuple[str, tuple[str, ...]]) -> list[str]:
    """Make keys, each for a tenant and with scopes; here, since each process of the command takes its time."""
    environment = cluster.environment()
    pepper = environment["KITEMESH_KEY_PEPPER"].encode()

    async def make() -> list[str]:
        url = environment["KITEMESH_MONGO_URL"]
        async with open_database(url, name=DATABASE, driver="pymongo") as database, open_stores(database) as stores:
            made = [await issue(stores.keys, pepper, tenant=tenant, scopes=scopes) for tenant, scopes in wanted]
        return [text for text, _ in made]

    return asyncio.run(make())


class Held(NamedTuple):
    """A held answer, as a client remembers it."""

    model: str
    approval: str
    execution: str
    conversation: str
    calls: tuple[str, ...]

    def resumption(self, *approved: str, **more: Any) -> dict[str, Any]:
        """Return the body that approves these calls, and denies the rest."""
        return {
            "model": self.model,
            "approval_id": self.approval,
            "approved_tool_execution_ids": list(approved),
            **more,
        }

    @property
    def whole(self) -> dict[str, Any]:
        """The body that approves every call."""
        return self.resumption(*self.calls)


def calling(*calls: tuple[str, Mapping[str, Any]], then: str = "") -> str:
    """Write what makes the scripted model call tools in one step; `then` is for the next one."""
    lines = [f"@call {name} {json.dumps(dict(arguments))}" for name, arguments in calls]
    return "\n".join([*lines, "@then", then] if then else lines)


def question(text: str, agent: str = "clerk", **more: Any) -> dict[str, Any]:
    """Return a chat body."""
    return {"model": f"agent:{agent}", "messages": [{"role": "user", "content": text}], **more}


def ask(gateway: Cluster, text: str, agent: str = "clerk", *, key: str | None = "", **more: Any) -> Reply:
    """Ask an agent."""
    return gateway.call("/v1/chat/completions", question(text, agent, **more), key=key)


def read_held(answer: Mapping[str, Any]) -> Held:
    """Read a whole answer that is held."""
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "tool_calls", answer
    assert choice["message"]["content"] is None
    mine = answer["kitemesh"]
    calls = tuple(call["id"] for call in choice["message"]["tool_calls"])
    return Held(answer["model"], mine["approval_id"], mine["execution_id"], mine.get("conversation_id", ""), calls)


def hold(gateway: Cluster, text: str, agent: str = "clerk", *, key: str | None = "", **more: Any) -> Held:
    """Ask an agent for something that is held."""
    reply = ask(gateway, text, agent, key=key, **more)
    assert reply.status == 200, reply.body
    return read_held(reply.json())


def resume(gateway: Cluster, body: Mapping[str, Any], *, key: str | None = "") -> Reply:
    """Answer a hold and wait for the rest of its turn."""
    return gateway.call("/v1/chat/resume", dict(body), key=key)


def decide(gateway: Cluster, held: Held, *decisions: Mapping[str, Any], key: str | None = "") -> Reply:
    """Decide calls of a hold without waiting for the rest of its turn."""
    body = {"decisions": [dict(each) for each in decisions]}
    return gateway.call(f"/v1/approvals/{held.approval}/decide", body, key=key)


def verdicts(calls: Iterable[str], *, approved: bool, **more: Any) -> list[dict[str, Any]]:
    """Say the same of several calls."""
    return [{"tool_execution_id": call, "approved": approved, **more} for call in calls]


def cancel(gateway: Cluster, execution: str, *, key: str | None = "") -> Reply:
    """Cancel an execution."""
    return gateway.call(f"/v1/executions/{execution}/cancel", {}, key=key)


def execution(gateway: Cluster, held: Held | str) -> dict[str, Any]:
    """Return an execution."""
    name = held if isinstance(held, str) else held.execution
    return dict(gateway.call(f"/v1/executions/{name}").json())


def approval(gateway: Cluster, held: Held) -> dict[str, Any]:
    """Return an approval."""
    return dict(gateway.call(f"/v1/approvals/{held.approval}").json())


def content(reply: Reply) -> str:
    """Return the text of a whole answer that ended."""
    assert reply.status == 200, reply.body
    (choice,) = reply.json()["choices"]
    assert choice["finish_reason"] == "stop", reply.body
    return str(choice["message"]["content"])


def until(condition: Callable[[], T], *, timeout_s: float = PATIENCE_S) -> T:
    """Ask again until the answer is true, and return it."""
    end_s = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < end_s, f"waited in vain for {condition}"
        time.sleep(0.02)
    return found


def ended(gateway: Cluster, held: Held | str, status: str) -> dict[str, Any]:
    """Return an execution once it has ended, which must be in that way."""
    found = until(lambda: _over(execution(gateway, held)))
    assert found["status"] == status, found
    return found


def _over(shown: dict[str, Any]) -> dict[str, Any] | None:
    return shown if shown.get("status") in {"completed", "failed", "cancelled", "expired"} else None


def called(shown: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the calls of an execution by their id."""
    return {call["id"]: call for step in shown["steps"] for call in step["tool_calls"]}
