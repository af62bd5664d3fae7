"""Every metric of every service, in one list; `docs/metrics.md` is generated from it.

Base units, `_total` on counters, labels from closed sets: never a tenant, an id or a text from outside.
"""

from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Gauge, disable_created_metrics
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from kitemesh_runtime.instruments import Counter, Histogram

# One more line for each counter and each histogram, of which nothing is made.
disable_created_metrics()  # type: ignore[no-untyped-call]  # it takes nothing

REGISTRY: Final = CollectorRegistry()

FAST_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
WAIT_BUCKETS: Final = (*FAST_BUCKETS, 30.0, 60.0, 120.0, 300.0, 600.0)
TURN_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
HOLD_BUCKETS: Final = (
    *(1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0),
    *(days * 86400.0 for days in (1, 2, 7, 14, 30)),
)
GROUP_BUCKETS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)

# As the semantic conventions for generative AI list them, and on to ten minutes.
OPERATION_BUCKETS: Final = (
    *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
    *(163.84, 327.68, 655.36),
)
FIRST_TOKEN_BUCKETS: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(30.0, 60.0, 120.0, 300.0, 600.0),
)
OUTPUT_TOKEN_BUCKETS: Final = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
TOKEN_BUCKETS: Final = tuple(4.0**power for power in range(14))

HTTP_REQUESTS: Final = Counter(
    "kitemesh_http_requests_total",
    "HTTP requests answered, by dialect and status.",
    ["dialect", "status"],
    registry=REGISTRY,
)
KEY_LOOKUPS: Final = Counter(
    "kitemesh_key_lookups_total",
    "API keys that the store was asked for, by outcome: known, unknown or failed.",
    ["outcome"],
    registry=REGISTRY,
)
HTTP_REFUSALS: Final = Counter(
    "kitemesh_http_refusals_total",
    "Requests that were answered with an error, by its code.",
    ["code"],
    registry=REGISTRY,
)
LIMIT_REFUSALS: Final = Counter(
    "kitemesh_limit_refusals_total",
    "Requests refused because a key or a tenant is at its limit of requests, tokens or turns.",
    ["dimension"],
    registry=REGISTRY,
)
LIMITS_LOCAL: Final = Gauge(
    "kitemesh_limits_local",
    "1 while the store does not answer and this gateway allows its own share of each limit.",
    registry=REGISTRY,
)
HTTP_DURATION: Final = Histogram(
    "kitemesh_http_duration_seconds",
    "Time from the request's first byte to the answer's last, by dialect.",
    ["dialect"],
    buckets=TURN_BUCKETS,
    registry=REGISTRY,
)
HTTP_OPEN: Final = Gauge("kitemesh_http_open", "Requests in hand, streams included.", registry=REGISTRY)
FIRST_EVENT: Final = Histogram(
    "kitemesh_first_event_seconds",
    "Time from the request to the first event of its stream.",
    buckets=TURN_BUCKETS,
    registry=REGISTRY,
)
STREAMS_OPEN: Final = Gauge("kitemesh_streams_open", "SSE streams open now.", registry=REGISTRY)
STREAMS_CUT: Final = Counter("kitemesh_streams_cut_total", "Streams cut, by reason.", ["reason"], registry=REGISTRY)
FRAMES_RELAYED: Final = Counter("kitemesh_frames_relayed_total", "Delta frames relayed to clients.", registry=REGISTRY)
FRAMES_LOST: Final = Counter(
    "kitemesh_frames_lost_total",
    "Turns whose live frames had a gap and were completed from the closing event.",
    registry=REGISTRY,
)
STREAM_REPAIRS: Final = Counter(
    "kitemesh_stream_repairs_total",
    "Gaps in durable streams: repaired from what is captured or stored, lost until the closing event, or diverged.",
    ["outcome"],
    registry=REGISTRY,
)
STREAM_RESUMES: Final = Counter(
    "kitemesh_stream_resumes_total",
    "Durable streams that were attached to: replayed from the beginning, resumed at a position, or refused for a gap.",
    ["outcome"],
    registry=REGISTRY,
)
TURNS_ENDED: Final = Counter(
    "kitemesh_turns_ended_total", "Turns ended, by mode and outcome.", ["mode", "outcome"], registry=REGISTRY
)
TURNS_UNSTORED: Final = Counter(
    "kitemesh_turns_unstored_total", "Turns answered while their write to the store had failed.", registry=REGISTRY
)
TURNS_WAITING: Final = Gauge(
    "kitemesh_turns_write_waiting", "Ended turns whose write is being retried.", registry=REGISTRY
)
DELIVERIES: Final = Counter(
    "kitemesh_deliveries_total", "Deliveries handled, by queue and outcome.", ["queue", "outcome"], registry=REGISTRY
)
DELIVERY_DURATION: Final = Histogram(
    "kitemesh_delivery_duration_seconds",
    "Time a delivery was held, by queue.",
    ["queue"],
    buckets=TURN_BUCKETS,
    registry=REGISTRY,
)
REDELIVERIES: Final = Counter(
    "kitemesh_redeliveries_total",
    "Deliveries that were not the first of their message, by queue.",
    ["queue"],
    registry=REGISTRY,
)
QUEUE_WAIT: Final = Histogram(
    "kitemesh_queue_wait_seconds",
    "Time a message waited in its queue.",
    ["queue"],
    buckets=WAIT_BUCKETS,
    registry=REGISTRY,
)
QUEUE_DEPTH: Final = Gauge(
    "kitemesh_queue_depth",
    "Messages that nobody works on, by stream and pool, as the queue's leader says; NaN when it could not be asked.",
    ["stream", "pool"],
    registry=REGISTRY,
)
QUEUE_IN_FLIGHT: Final = Gauge(
    "kitemesh_queue_in_flight",
    "Messages delivered and not yet acknowledged, by stream and pool, as the queue's leader says.",
    ["stream", "pool"],
    registry=REGISTRY,
)
QUEUE_REDELIVERED: Final = Gauge(
    "kitemesh_queue_redelivered",
    "Messages delivered more than once and not yet acknowledged, by stream and pool, as the queue's leader says.",
    ["stream", "pool"],
    registry=REGISTRY,
)
QUEUE_OLDEST: Final = Gauge(
    "kitemesh_queue_oldest_seconds",
    "Age of a stream's oldest message, in hand or not, by the leader's own clock; 0 when it has none.",
    ["stream"],
    registry=REGISTRY,
)
QUEUE_WAITING: Final = Gauge(
    "kitemesh_queue_waiting",
    "Messages that nobody works on, by stream and pool, as its workers last said.",
    ["stream", "pool"],
    registry=REGISTRY,
)
PREDICTED_WAIT: Final = Gauge(
    "kitemesh_predicted_wait_seconds",
    "How long an interactive job that is published now will wait, by stream and pool: what waits, over what is done.",
    ["stream", "pool"],
    registry=REGISTRY,
)
DRAIN_RATE: Final = Gauge(
    "kitemesh_queue_drain_rate",
    "Messages finished in a second, by stream and pool, as its workers last said.",
    ["stream", "pool"],
    registry=REGISTRY,
)
SLOTS: Final = Gauge("kitemesh_slots", "Work that this process may do at once.", registry=REGISTRY)
SLOTS_USED: Final = Gauge("kitemesh_slots_used", "Work that this process does now.", registry=REGISTRY)
DEAD_LETTERS: Final = Counter(
    "kitemesh_dead_letters_total", "Messages given up, by stream and reason.", ["stream", "reason"], registry=REGISTRY
)
DEAD_LETTERS_WAITING: Final = Gauge(
    "kitemesh_dead_letters_waiting",
    "Messages given up that nobody has requeued or dropped yet.",
    registry=REGISTRY,
)
MODEL_DURATION: Final = Histogram(
    "gen_ai_client_operation_duration_seconds",
    "Time of a model call; the error is empty for one that went well.",
    ["gen_ai_operation_name", "gen_ai_provider_name", "error_type"],
    buckets=OPERATION_BUCKETS,
    registry=REGISTRY,
)
MODEL_FIRST_TOKEN: Final = Histogram(
    "gen_ai_server_time_to_first_token_seconds",
    "Time from a model call to its first token.",
    ["gen_ai_operation_name", "gen_ai_provider_name"],
    buckets=FIRST_TOKEN_BUCKETS,
    registry=REGISTRY,
)
MODEL_PER_TOKEN: Final = Histogram(
    "gen_ai_server_time_per_output_token_seconds",
    "Time that a call took for each token after its first.",
    ["gen_ai_operation_name", "gen_ai_provider_name"],
    buckets=OUTPUT_TOKEN_BUCKETS,
    registry=REGISTRY,
)
MODEL_USAGE: Final = Histogram(
    "gen_ai_client_token_usage",
    "Tokens of a model call, input or output, as its provider reports them.",
    ["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_token_type"],
    buckets=TOKEN_BUCKETS,
    registry=REGISTRY,
)
MODEL_TOKENS: Final = Counter(
    "kitemesh_model_tokens_total", "Tokens in and out, as providers report them.", ["direction"], registry=REGISTRY
)
UPSTREAM_STATE: Final = Gauge(
    "kitemesh_upstream_state",
    "How a provider's worst model looks from here: 0 well, 1 tried again by one call at a time, 2 not asked.",
    ["upstream"],
    registry=REGISTRY,
)
UPSTREAM_FALLBACKS: Final = Counter(
    "kitemesh_upstream_fallbacks_total",
    "Times that the next model was asked instead: by the failure's code, or because the one before it was open (failed "
    "too often) or cooling (asked to be left alone).",
    ["reason"],
    registry=REGISTRY,
)
TOOL_CALLS: Final = Counter(
    "kitemesh_tool_calls_total", "Tool calls ended, by kind and outcome.", ["kind", "outcome"], registry=REGISTRY
)
TOOL_DURATION: Final = Histogram(
    "kitemesh_tool_duration_seconds",
    "Time of a tool call, with its repetitions.",
    ["kind"],
    buckets=TURN_BUCKETS,
    registry=REGISTRY,
)
TOOL_OUTCOME_UNKNOWN: Final = Counter(
    "kitemesh_tool_outcome_unknown_total",
    "Tool calls of which it is not known whether they took effect.",
    registry=REGISTRY,
)
HOLDS_OPEN: Final = Gauge("kitemesh_holds_open", "Holds that wait for a person, of all tenants.", registry=REGISTRY)
HOLDS_OPENED: Final = Counter("kitemesh_holds_opened_total", "Holds opened.", registry=REGISTRY)
HOLDS_ENDED: Final = Counter(
    "kitemesh_holds_ended_total", "Holds ended: decided, expired or cancelled.", ["status"], registry=REGISTRY
)
HOLDS_OLDEST: Final = Gauge(
    "kitemesh_holds_oldest_seconds", "Age of the oldest hold that waits for a person; 0 without one.", registry=REGISTRY
)
HOLD_WAIT: Final = Histogram(
    "kitemesh_hold_wait_seconds",
    "Time from a hold's opening to its end: decided, expired or cancelled.",
    ["status"],
    buckets=HOLD_BUCKETS,
    registry=REGISTRY,
)
TURNS_REDRIVEN: Final = Counter(
    "kitemesh_turns_redriven_total", "Jobs of stored turns published again by the sweep.", registry=REGISTRY
)
USAGE_LAG: Final = Gauge(
    "kitemesh_usage_lag_seconds",
    "How long ago the turns ended that are counted last; half a minute while all is well.",
    registry=REGISTRY,
)
NOTICES: Final = Counter(
    "kitemesh_notices_total", "Tries to call a webhook: delivered, retried or given_up.", ["outcome"], registry=REGISTRY
)
HOP: Final = Histogram(
    "kitemesh_hop_seconds",
    "Time that turns spent in one place: gateway (until accepted), start_queue, orchestrator, model_queue, runner, "
    "provider (to its first token), store, relay.",
    ["hop"],
    buckets=WAIT_BUCKETS,
    registry=REGISTRY,
)
NEWS_LOST: Final = Counter(
    "kitemesh_news_lost_total", "News that their tenants' feeds could not be told.", registry=REGISTRY
)
FEED_READERS: Final = Gauge("kitemesh_feed_readers", "Readers of feeds that are connected now.", registry=REGISTRY)
DEPENDENCY_UP: Final = Gauge(
    "kitemesh_dependency_up",
    "1 while the last real operation on the dependency succeeded.",
    ["dependency"],
    registry=REGISTRY,
)
STORE_DURATION: Final = Histogram(
    "kitemesh_store_duration_seconds",
    "Time of one call of MongoDB, answered or not: read, write, group (of writes) or command; searches are left out.",
    ["operation"],
    buckets=FAST_BUCKETS,
    registry=REGISTRY,
)
STORE_GROUP_SIZE: Final = Histogram(
    "kitemesh_store_group_size", "Writes that travelled together.", buckets=GROUP_BUCKETS, registry=REGISTRY
)
STORE_DENIED: Final = Counter(
    "kitemesh_store_denied_total",
    "Operations that MongoDB refused because this service's role does not allow them.",
    registry=REGISTRY,
)
BUS_RECONNECTS: Final = Counter("kitemesh_bus_reconnects_total", "Reconnects to NATS.", registry=REGISTRY)
SLOW_CONSUMERS: Final = Counter(
    "kitemesh_slow_consumers_total",
    "Connections that NATS cut for reading too slowly, as its servers say; they do not tell whom they cut.",
    registry=REGISTRY,
)
BUS_ERRORS: Final = Counter(
    "kitemesh_bus_errors_total", "Asynchronous errors of the NATS connection, by kind.", ["kind"], registry=REGISTRY
)
POSTS_GIVEN_UP: Final = Counter(
    "kitemesh_posts_given_up_total",
    "Frames and news that no stream acknowledged in time: they cannot be read again.",
    registry=REGISTRY,
)
CATALOG_REFUSED: Final = Gauge(
    "kitemesh_catalog_refused",
    "1 while the catalog file has mistakes, or names pools without queues, and what was read before serves on.",
    registry=REGISTRY,
)
BUILD_INFO: Final = Gauge("kitemesh_build_info", "1, by this process's version.", ["version"], registry=REGISTRY)
LOOP_LAG: Final = Gauge("kitemesh_loop_lag_seconds", "How late the event loop's last tick was.", registry=REGISTRY)

for _collector in (ProcessCollector, PlatformCollector, GCCollector):
    _collector(registry=REGISTRY)


class Description(NamedTuple):
    """One metric, as the documentation lists it."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]


def describe() -> list[Description]:
    """List our own metrics, sorted by name."""
    rows = []
    for metric in globals().values():
        if isinstance(metric, Counter | Gauge | Histogram):
            (family,) = metric.describe()
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = tuple(metric._labelnames)  # noqa: SLF001  the library shows them nowhere else
            rows.append(Description(name, family.type, family.documentation, labels))
    return sorted(rows)
