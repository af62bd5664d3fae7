"""The table of limits in docs/sizing.md: what each bound is about, what it is in the code, and who changes it.

It reads the values where they are enforced and knows no number itself.
"""

# ruff: noqa: INP001  a script, not a package

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from pydantic import BaseModel

from kitemesh_cli.settings import BootstrapSettings
from kitemesh_contracts import commands, topology
from kitemesh_gateway import backlog, events, http_server, paging, passages, strict_json
from kitemesh_gateway.dialects import completions_models, files, keys_bodies, limits_bodies, native_bodies
from kitemesh_gateway.settings import GatewaySettings
from kitemesh_model_runner import attempt
from kitemesh_model_runner import files as prompt_files
from kitemesh_model_runner.settings import RunnerSettings
from kitemesh_orchestrator import endings, jobs, judging, turn
from kitemesh_orchestrator.settings import OrchestratorSettings
from kitemesh_runtime import blobs_mongo, documents_mongo, knowledge, posting_nats, schemas, tenancy, writer_mongo
from kitemesh_runtime.catalog import Agent, History, OpenAIProvider, PoolPart, Role
from kitemesh_runtime.catalog_tools import Limits, Policy, PythonTool
from kitemesh_runtime.settings import PREFIX
from kitemesh_tool_executor import results, tool_python
from kitemesh_tool_executor.settings import ExecutorSettings

_FIXED: Final = "fixed"
_CATALOG: Final = "catalog"
_KIB: Final = 1024
_MIB: Final = 1024 * _KIB
_MINUTE_S: Final = 60
_HOUR_S: Final = 60 * _MINUTE_S
_DAY_S: Final = 24 * _HOUR_S


class Row(NamedTuple):
    """A bound: what of, how much, and by what it is changed."""

    what: str
    value: str
    by: str = _FIXED


def limits_table() -> str:
    """Return every section."""
    parts = []
    for title, rows in SECTIONS.items():
        lines = [f"| {row.what} | {row.value} | {row.by} |\n" for row in rows()]
        parts += [f"\n### {title}\n\n| limit | value | changed by |\n|---|---|---|\n", *lines]
    return "".join(parts) + "\n"


def _requests() -> Iterator[Row]:
    yield _setting(GatewaySettings, "max_body_bytes", "request body", size)
    yield _setting(GatewaySettings, "max_file_body_bytes", "the same where files are taken", size)
    yield Row("one image or PDF; one text file", f"{size(files.MAX_BINARY_BYTES)}; {size(files.MAX_TEXT_BYTES)}")
    yield Row("files in a request", number(files.MAX_FILES))
    yield Row("headers; one line of them", f"{http_server.MAX_HEADERS}; {number(http_server.MAX_LINE_BYTES)} bytes")
    yield Row("depth of JSON; values in it", f"{strict_json.MAX_DEPTH}; {number(strict_json.MAX_VALUES)}")
    yield Row("messages of a request that are used", number(completions_models.MAX_USED_MESSAGES))
    yield Row("tools that a request offers", number(completions_models.MAX_TOOLS))
    yield Row("`metadata`", size(completions_models.MAX_METADATA_BYTES))
    yield Row("decisions in one request", number(native_bodies.MAX_DECISIONS))
    yield Row("entries of a page", f"{paging.PAGE}, at most {paging.PAGE_MAX}", "`limit`")
    yield _setting(GatewaySettings, "body_timeout_s", "time for the body", time)


def _streams() -> Iterator[Row]:
    yield _setting(GatewaySettings, "max_streams", "open turns of a gateway, each as often as it is followed", number)
    yield _setting(GatewaySettings, "max_unsent_bytes", "bytes that wait for one client", size)
    yield _setting(GatewaySettings, "slow_client_s", "time that a byte may wait for its client", time)
    yield Row("readers of `/v1/events`, of one tenant at one gateway", number(events.READERS_MAX))
    yield Row("frames that a stream buffers while it catches up", number(backlog.MAX_FRAMES))


def _turns() -> Iterator[Row]:
    yield _setting(GatewaySettings, "turn_budget_s", "time of a turn", time)
    yield _setting(GatewaySettings, "max_predicted_wait_s", "predicted wait beyond which turns are refused", time)
    yield _setting(OrchestratorSettings, "max_waiting", "turns that wait in one conversation", number)
    yield Row("attempts of a step", number(turn.MAX_ATTEMPTS))
    yield Row("an answer", f"{size(attempt.MAX_CHARACTERS, 'characters')}")
    yield Row("files of one prompt", size(prompt_files.FILES_MAX_BYTES))
    yield _catalog(Agent, "tools", "server tools of an agent")
    yield _catalog(Limits, "steps", "model calls of a turn")
    yield _catalog(Limits, "calls", "tool calls of a turn")
    yield _catalog(Limits, "parallel", "tool calls of a step")
    yield _catalog(History, "turns", "earlier turns that a model is shown")
    yield _catalog(History, "characters", "characters of them")
    yield Row("characters of long tool results that a model is shown again", number(jobs.RESULTS_MAX_CHARS))
    yield _catalog(OpenAIProvider, "total_timeout_s", "a model call", time)
    yield Row("answered turns that wait for MongoDB in an orchestrator", number(endings.MAX_UNSTORED))


def _tools() -> Iterator[Row]:
    yield _catalog(PythonTool, "max_result_bytes", "result of a call", size)
    yield _catalog(PythonTool, "timeout_s", "time of a call", time)
    yield _catalog(PythonTool, "memory_mb", "memory of a Python tool, MiB")
    yield Row("calls of one Python tool at once, in an executor", number(tool_python.CHILDREN_MAX))
    yield Row("schema of a tool: bytes; depth", f"{size(schemas.SCHEMA_MAX_BYTES)}; {schemas.SCHEMA_MAX_DEPTH}")
    classic, durable = time(judging.HOLD_CLASSIC_S), time(judging.HOLD_DURABLE_S)
    most = time(_most(Policy, "expires_after_s"))
    yield Row("a hold", f"{classic} classic, {durable} durable; at most {most}", _CATALOG)


def _queues() -> Iterator[Row]:
    streams = {stream.name: stream for stream in topology.topology()}
    out, feed = streams[topology.OUT], streams[topology.FEED]
    yield _setting(BootstrapSettings, "turn_queue_max", "accepted turns that wait for an orchestrator", number)
    yield Row("a job, start or event that nobody takes", time(topology.JOB_MAX_AGE_S))
    deliveries = f"{streams[topology.TURN].consumers[0].max_deliver}; {topology.WORKER_DELIVERIES_MAX}"
    yield Row("deliveries of an event; of a job", deliveries)
    yield Row("how long frames of durable turns are kept at the most, `KM_OUT`", time(out.max_age_s))
    yield _setting(OrchestratorSettings, "out_max_bytes", "memory for those frames, the oldest go first", size)
    yield Row("news in memory, `KM_FEED`", f"{size(feed.max_bytes)}, {time(feed.max_age_s)}")
    yield Row("dead letters", time(streams[topology.DEAD].max_age_s))
    yield Row("message that travels whole; a larger one is stored and named", size(commands.INLINE_MAX_BYTES))
    frames = f"{number(posting_nats.POSTS_MAX)}, {size(posting_nats.POSTS_MAX_BYTES)}"
    yield Row("frames that a model-runner has out and unacknowledged", frames)
    yield _catalog(PoolPart, "lanes", "lanes of a pool")
    for model, what in (
        (OrchestratorSettings, "messages in hand of an orchestrator, for each queue"),
        (RunnerSettings, "model calls in hand of a model-runner"),
        (ExecutorSettings, "tool jobs in hand of an executor"),
    ):
        yield _setting(model, "slots", what, number)


def _stores() -> Iterator[Row]:
    yield Row("a document", size(documents_mongo.DOCUMENT_MAX_BYTES))
    yield Row("a blob; beyond it is cut into chunks", size(blobs_mongo.INLINE_MAX_BYTES))
    yield Row("tool result within its turn; beyond it is a blob", size(results.INLINE_MAX_BYTES))
    yield Row("writes in a group", f"{writer_mongo.GROUP_MAX}, {size(writer_mongo.GROUP_MAX_BYTES)}")
    waiting = f"{number(writer_mongo.QUEUE_MAX)}, {size(writer_mongo.QUEUE_MAX_BYTES)}"
    yield Row("writes that wait, of each kind in each process", waiting)
    yield Row("a document of the knowledge base", f"{size(knowledge.DOCUMENT_MAX_CHARS, 'characters')}")
    shown = f"{passages.SHOWN_PASSAGES}, {number(passages.SHOWN_CHARS)} characters"
    yield Row("passages in a prompt", shown)
    yield _catalog(Role, "knowledge", "bases that a role searches")
    days = tenancy.DEFAULT_DAYS
    kept = f"{days['turns']} days; {days['audit']} days"
    yield Row("turns, conversations and holds; ledger, audit and usage", kept, "`kitemesh tenants set --retention`")


def _keys() -> Iterator[Row]:
    yield Row("life of a key that has an end", time(keys_bodies.LIFETIME_MAX_S), "the key")
    yield Row("grace of a rotated key", time(keys_bodies.GRACE_MAX_S), "the rotation")
    yield Row("models that a key or tenant names", number(limits_bodies.MODELS_MAX))
    yield Row("a limit per minute", number(limits_bodies.LIMIT_MAX), "the key, the tenant")
    yield _setting(GatewaySettings, "limit_burst_s", "of a limit per minute at once, seconds' worth", number)
    yield _setting(GatewaySettings, "address_lookups_per_s", "unknown keys that an address tries in a second", number)


SECTIONS: Final = {
    "Requests": _requests,
    "Streams": _streams,
    "Turns": _turns,
    "Tools and holds": _tools,
    "Queues and workers": _queues,
    "Stores": _stores,
    "Keys": _keys,
}


def size(count: float, unit: str = "") -> str:
    """Write a number of bytes, or of something that is bounded like them."""
    for factor, prefix in ((1024 * _MIB, "Gi"), (_MIB, "Mi"), (_KIB, "Ki")):
        if count >= factor and count % factor == 0:
            return f"{count / factor:g} {prefix} {unit}" if unit else f"{count / factor:g} {prefix}B"
    return f"{number(count)} {unit or 'bytes'}"


def time(seconds: float) -> str:
    """Write a time in the largest unit that it is a multiple of."""
    for factor, unit in ((_DAY_S, "days"), (_HOUR_S, "h"), (_MINUTE_S, "min")):
        if seconds >= factor and seconds % factor == 0 and (factor, seconds) != (_DAY_S, _DAY_S):
            return f"{number(seconds / factor)} {unit}"
    return f"{seconds:g} s"


def number(count: float) -> str:
    """Write a number."""
    return f"{count:,.0f}" if float(count).is_integer() else f"{count:g}"


def _setting(model: type[BaseModel], name: str, what: str, written: Any) -> Row:
    return Row(what, written(model.model_fields[name].default), f"`{PREFIX}{name.upper()}`")


def _catalog(model: type[BaseModel], name: str, what: str, written: Any = number) -> Row:
    default, most = model.model_fields[name].default, _most(model, name)
    ordinary = default if isinstance(default, int | float) else 0
    bound = written(most)
    return Row(what, f"{written(ordinary)}, at most {bound}" if 0 < ordinary < most else bound, _CATALOG)


def _most(model: type[BaseModel], name: str) -> float:
    """Return the upper bound of a field."""
    bounds = [
        getattr(each, key)
        for each in model.model_fields[name].metadata
        for key in ("le", "max_length")
        if hasattr(each, key)
    ]
    (found,) = bounds
    return float(found)
