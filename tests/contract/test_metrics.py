"""Every metric on the list is counted somewhere, and no label is fed by what comes from outside."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from prometheus_client import Gauge

from kitemesh_runtime import metrics
from kitemesh_runtime.instruments import Counter, Histogram

METRICS: Final = {
    name: value for name, value in vars(metrics).items() if isinstance(value, Counter | Gauge | Histogram)
}

LABELS: Final = {
    "code": "an error code",
    "dependency": "nats or mongodb",
    "dialect": "what a route is for, or none",
    "dimension": "what is bounded",
    "direction": "in or out",
    "error_type": "an error code, or empty",
    "gen_ai_operation_name": "chat",
    "gen_ai_provider_name": "a kind of provider",
    "gen_ai_token_type": "input or output",
    "hop": "a place where turns spend time",
    "kind": "a word of this code",
    "mode": "classic or durable",
    "operation": "a kind of call of the store",
    "outcome": "a word of this code, or an error code",
    "pool": "the operator's, from the catalog",
    "queue": "a stream",
    "reason": "a word of this code, or an error code",
    "status": "an HTTP status of this server's, or how a hold ended",
    "stream": "a stream",
    "upstream": "the operator's, from the catalog",
    "version": "this release",
}
"""What each label may hold. A tenant, a key, a model, an id, a path or a text is none of it."""

FED: Final = {
    ("BUILD_INFO", "version('kitemesh-runtime')"): "the release",
    ("BUS_ERRORS", "kind"): "the words beside it",
    ("DEAD_LETTERS", "_how"): "the words beside it",
    ("DEAD_LETTERS", "_stream"): "WORK_STREAMS",
    ("DEAD_LETTERS", "letter.stream"): "only streams of the topology are looked after",
    ("DELIVERIES", "outcome"): "the words beside it",
    ("DELIVERIES", "queue"): "a stream, by each composition root",
    ("DELIVERY_DURATION", "queue"): "a stream, by each composition root",
    ("DEPENDENCY_UP", "each.name"): "the dependencies of the foundation",
    ("DRAIN_RATE", "pool"): "of a worker of this cluster, from its settings",
    ("DRAIN_RATE", "stream"): "of a worker of this cluster",
    ("HOLDS_ENDED", "status"): "HoldStatus",
    ("HOLD_WAIT", "status"): "HoldStatus",
    ("HOP", "hop"): "the words beside it",
    ("HTTP_DURATION", "label"): "the labels of the gateway's endpoints",
    ("HTTP_REFUSALS", "code"): "ErrorCode",
    ("HTTP_REQUESTS", "label"): "the labels of the gateway's endpoints",
    ("HTTP_REQUESTS", "str(status)"): "the statuses of MEANINGS, 200, 202, 204 and 499",
    ("KEY_LOOKUPS", "outcome"): "the words beside it",
    ("LIMIT_REFUSALS", "dimension"): "the words beside it",
    ("MODEL_DURATION", "_CHAT"): "chat",
    ("MODEL_DURATION", "error"): "ErrorCode, or empty",
    ("MODEL_DURATION", "kind"): "Provider.kind",
    ("MODEL_FIRST_TOKEN", "_CHAT"): "chat",
    ("MODEL_FIRST_TOKEN", "kind"): "Provider.kind",
    ("MODEL_PER_TOKEN", "_CHAT"): "chat",
    ("MODEL_PER_TOKEN", "kind"): "Provider.kind",
    ("MODEL_USAGE", "_CHAT"): "chat",
    ("MODEL_USAGE", "kind"): "Provider.kind",
    ("PREDICTED_WAIT", "pool"): "of a worker of this cluster, from its settings",
    ("PREDICTED_WAIT", "stream"): "of a worker of this cluster",
    ("QUEUE_DEPTH", "pool"): "of a consumer that bootstrap made",
    ("QUEUE_DEPTH", "stream"): "QUEUES",
    ("QUEUE_IN_FLIGHT", "pool"): "of a consumer that bootstrap made",
    ("QUEUE_IN_FLIGHT", "stream"): "QUEUES",
    ("QUEUE_OLDEST", "stream"): "AGED",
    ("QUEUE_REDELIVERED", "pool"): "of a consumer that bootstrap made",
    ("QUEUE_REDELIVERED", "stream"): "QUEUES",
    ("QUEUE_WAIT", "queue"): "a stream, by each composition root",
    ("QUEUE_WAITING", "pool"): "of a worker of this cluster, from its settings",
    ("QUEUE_WAITING", "stream"): "of a worker of this cluster",
    ("REDELIVERIES", "queue"): "a stream, by each composition root",
    ("STORE_DURATION", "kind"): "the words beside it",
    ("NOTICES", "outcome"): "the words beside it",
    ("STREAMS_CUT", "reason"): "the words beside it",
    ("STREAM_REPAIRS", "outcome"): "the words beside it",
    ("STREAM_RESUMES", "outcome"): "the words beside it",
    ("TOOL_CALLS", "kind"): "Kind of a tool",
    ("TOOL_CALLS", "outcome"): "a word of the tool-executor, or an ErrorCode",
    ("TOOL_DURATION", "kind"): "Kind of a tool",
    ("TURNS_ENDED", "mode"): "Mode",
    ("TURNS_ENDED", "outcome"): "TurnOutcome",
    ("UPSTREAM_FALLBACKS", "reason"): "a word of the model-runner, or an ErrorCode",
    ("UPSTREAM_STATE", "name"): "a provider of the catalog",
}
"""Every expression that feeds a label, but for plain text, and the closed set that it comes from."""


class Feeding(NamedTuple):
    """A metric's name in the code, and what is put into its labels."""

    metric: str
    expressions: tuple[ast.expr, ...]


@cache
def sources(folder: Path) -> tuple[str, ...]:
    """Read the code of services and libraries, but for the list itself."""
    paths = (path for part in ("libs", "services") for path in (folder / part).rglob("src/**/*.py"))
    return tuple(path.read_text(encoding="utf-8") for path in paths if path.name != "metrics.py")


def feedings(folder: Path) -> Iterator[Feeding]:
    """Find every place where labels are given."""
    for source in sources(folder):
        if ".labels(" not in source:
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "labels":
                yield Feeding(ast.unparse(node.func.value), (*node.args, *(each.value for each in node.keywords)))


def values(expression: ast.expr) -> Iterator[ast.expr]:
    """Return what an expression may be: both sides of a choice."""
    if isinstance(expression, ast.IfExp):
        yield from values(expression.body)
        yield from values(expression.orelse)
    else:
        yield expression


@pytest.fixture
def fed(repository: Path) -> list[Feeding]:
    return list(feedings(repository))


@pytest.mark.requirement("metrics:every-one-counted")
@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_counted_somewhere(name: str, repository: Path) -> None:
    used = re.compile(rf"\b{name}\.")
    assert any(used.search(source) for source in sources(repository))


@pytest.mark.requirement("metrics:closed-labels")
def test_a_label_is_one_of_few(fed: list[Feeding]) -> None:
    assert {label for each in metrics.describe() for label in each.labels} == LABELS.keys()
    labelled = {name for name, metric in METRICS.items() if metric._labelnames}
    assert {each.metric for each in fed} == labelled


@pytest.mark.requirement("metrics:closed-labels")
def test_what_feeds_a_label_is_plain_text_or_comes_from_a_closed_set(fed: list[Feeding]) -> None:
    found = {
        (each.metric, ast.unparse(value))
        for each in fed
        for expression in each.expressions
        for value in values(expression)
        if not (isinstance(value, ast.Constant) and isinstance(value.value, str))
    }
    assert found == FED.keys()


def test_what_a_turn_may_wait_for_is_told_apart_up_to_ten_minutes() -> None:
    times = {
        name: max(metric._kwargs["buckets"])
        for name, metric in METRICS.items()
        if isinstance(metric, Histogram) and metric._name.endswith("_seconds")
    }
    # A call of the store is given up after seconds, and a token is no turn.
    assert {name for name, most in times.items() if most < 600} == {"STORE_DURATION", "MODEL_PER_TOKEN"}


WATCHED: Final = (
    ("kitemesh_bus_errors_total", {"kind": "slow_consumer"}),
    ("kitemesh_dead_letters_total", {"stream": "KM_MODEL", "reason": "exhausted"}),
    ("kitemesh_holds_ended_total", {"status": "expired"}),
    ("kitemesh_notices_total", {"outcome": "given_up"}),
    ("kitemesh_stream_repairs_total", {"outcome": "lost"}),
    ("kitemesh_streams_cut_total", {"reason": "slow_client"}),
    ("kitemesh_turns_ended_total", {"mode": "durable", "outcome": "failed"}),
)


def test_what_alerts_watch_is_shown_before_it_happens() -> None:
    # In a process of its own: here other tests may have counted.
    fresh = f"""
import kitemesh_gateway.app, kitemesh_orchestrator.app
from kitemesh_runtime.metrics import REGISTRY
assert [REGISTRY.get_sample_value(*each) for each in {WATCHED}] == [0.0] * {len(WATCHED)}
"""
    subprocess.run([sys.executable, "-c", fresh], check=True)
