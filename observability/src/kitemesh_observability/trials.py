"""For each alert: series under which it fires, when, and series under which it does not.

Written as promtool reads them, a sample every 15 s. It does not know how alerts are worded.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

_NONE: Final[Mapping[str, str]] = MappingProxyType({})
_TARGET: Final = MappingProxyType({"service": "gateway", "instance": "g1"})


class Trial(NamedTuple):
    """How one alert is tried, with an evaluation every 15 s where it fires, and every minute where it does not.

    Attributes:
        faulty: Series and values under which it fires.
        healthy: Those under which it never does.
        quiet_at: When it does not fire yet, for it has not held long enough.
        fires_at: When it does.
        labels: With which, beside its name and severity.
        value: What its texts say in place of the value.

    """

    alert: str
    faulty: Mapping[str, str]
    healthy: Mapping[str, str]
    quiet_at: str
    fires_at: str
    labels: Mapping[str, str] = _NONE
    value: str = ""


def _dependency(alert: str, name: str) -> Trial:
    series = f'kitemesh_dependency_up{{dependency="{name}", service="gateway", instance="g1"}}'
    return Trial(alert, {series: "1x8 0x60"}, {series: "1x90"}, "3m", "3m30s", {**_TARGET, "dependency": name})


def _gauge(alert: str, series: str, fault: str, well: str, at: tuple[str, str], **texts: str) -> Trial:
    value = texts.pop("value", "")
    return Trial(alert, {series: fault}, {series: well}, *at, texts, value)


def _first_event(alert: str, series: str, **labels: str) -> Trial:
    """Try a counter that is not there before its first event; what lies back longer is forgotten."""
    return Trial(alert, {series: "_x8 1x60"}, {series: "3x90"}, "1m45s", "2m15s", labels)


def _event(alert: str, series: str, **labels: str) -> Trial:
    return Trial(alert, {series: "0x8 1x60"}, {series: "3x90"}, "2m", "2m30s", labels)


_FLAPS: Final = 'kitemesh_bus_reconnects_total{service="gateway", instance="g1"}'
_STORE: Final = 'kitemesh_store_duration_seconds_bucket{operation="write", service="gateway", instance="g1", le="%s"}'
_HTTP: Final = 'kitemesh_http_requests_total{dialect="chat", status="%s", service="gateway", instance="g1"}'
_TURNS: Final = 'kitemesh_turns_ended_total{mode="durable", outcome="%s", service="orchestrator", instance="o1"}'
_FIRST: Final = 'kitemesh_first_event_seconds_bucket{service="gateway", instance="g1", le="%s"}'
_OLDEST: Final = 'kitemesh_queue_oldest_seconds{stream="%s", service="orchestrator", instance="o1"}'
_QUEUE: Final = '{stream="KM_MODEL", pool="gpu", service="orchestrator", instance="o1"}'
_SLOTS: Final = '{service="model-runner", pool="%s", instance="r1"}'
_UPSTREAM: Final = 'kitemesh_upstream_state{upstream="openai", service="model-runner", pool="default", instance="%s"}'
_FALLBACK: Final = 'kitemesh_upstream_fallbacks_total{reason="open", service="model-runner", instance="r1"}'
_CALLS: Final = 'gen_ai_client_operation_duration_seconds_count{service="model-runner", instance="r1"}'
_UP: Final = 'up{service="%s", instance="%s"}'
_BUILD: Final = 'kitemesh_build_info{version="%s", service="gateway", instance="%s"}'
_THERE: Final = 'kitemesh_build_info{version="0.1.0", service="%s", instance="%s"}'
_OTHERS: Final = {_THERE % (name, "x1"): "1x90" for name in ("orchestrator", "model-runner", "tool-executor")}
_MEMORY: Final = 'process_resident_memory_bytes{service="gateway", instance="%s"}'
_ORCHESTRATOR: Final = '{service="orchestrator", instance="o1"}'

TRIALS: Final = (
    _gauge("KitemeshServiceDown", _UP % ("gateway", "g1"), "1x8 0x60", "1x90", ("3m", "3m30s"), **_TARGET),
    Trial(
        "KitemeshServiceAbsent",
        # Somebody else's target of that name is no replica of ours.
        {**_OTHERS, _THERE % ("gateway", "g0"): "1x8 stale", _UP % ("gateway", "foreign"): "1x80"},
        {**_OTHERS, _THERE % ("gateway", "g0"): "1x8 stale", _THERE % ("gateway", "g1"): "1x90"},
        "3m",
        "3m30s",
        {"service": "gateway"},
    ),
    _dependency("KitemeshNatsDown", "nats"),
    _dependency("KitemeshMongoDown", "mongodb"),
    Trial("KitemeshBusFlaps", {_FLAPS: "0x8 1x8 2x8 3x40"}, {_FLAPS: "0x8 1x90"}, "6m30s", "7m15s", _TARGET, "3"),
    _event("KitemeshSlowConsumer", f"kitemesh_slow_consumers_total{_ORCHESTRATOR}"),
    _first_event(
        "KitemeshBusDenied",
        'kitemesh_bus_errors_total{kind="permission", service="gateway", instance="g1"}',
        service="gateway",
    ),
    _event("KitemeshStoreDenied", 'kitemesh_store_denied_total{service="gateway", instance="g1"}', service="gateway"),
    Trial(
        "KitemeshStoreSlow",
        {_STORE % "0.5": "0x80", _STORE % "1.0": "0+15x80", _STORE % "+Inf": "0+15x80"},
        {_STORE % "0.005": "0+15x90", _STORE % "0.5": "0+15x90", _STORE % "+Inf": "0+15x90"},
        "9m",
        "11m",
        {"operation": "write"},
        "995ms",
    ),
    _gauge(
        "KitemeshLoopLag",
        'kitemesh_loop_lag_seconds{service="gateway", instance="g1"}',
        "0x8 0.25x60",
        "0.002x90",
        ("4m", "9m"),
        value="250ms",
        **_TARGET,
    ),
    Trial(
        "KitemeshMemoryGrows",
        {_MEMORY % "g1": "60000000+2000000x80", _THERE % ("gateway", "g1"): "1x80"},
        {_MEMORY % "g1": "60000000x90", _THERE % ("gateway", "g1"): "1x90", _MEMORY % "foreign": "3000000000x90"},
        "15m",
        "16m",
        _TARGET,
        "1.963Gi",
    ),
    Trial(
        "KitemeshVersionMix",
        {_BUILD % ("0.1.0", "g1"): "1x200", _BUILD % ("0.2.0", "g2"): "_x8 1x200"},
        {_BUILD % ("0.1.0", "g1"): "1x90", _BUILD % ("0.1.0", "g2"): "1x90"},
        "31m",
        "33m",
        value="2",
    ),
    _gauge(
        "KitemeshCatalogRefused",
        'kitemesh_catalog_refused{service="gateway", instance="g1"}',
        "0x8 1x60",
        "0x90",
        ("7m", "7m30s"),
        service="gateway",
    ),
    Trial(
        "KitemeshErrorRate",
        {_HTTP % "200": "0+9x60", _HTTP % "503": "0+1x60"},
        {_HTTP % "200": "0+99x90", _HTTP % "503": "0+1x90", _HTTP % "404": "0+50x90"},
        "6m",
        "8m",
        value="10%",
    ),
    Trial(
        "KitemeshTurnsFail",
        {_TURNS % "completed": "0+9x60", _TURNS % "failed": "0+1x60"},
        {_TURNS % "completed": "0+99x90", _TURNS % "failed": "0+1x90", _TURNS % "cancelled": "0+50x90"},
        "6m",
        "8m",
        value="10%",
    ),
    Trial(
        "KitemeshFirstTokenSlow",
        {_FIRST % "10.0": "0x60", _FIRST % "30.0": "0+5x60", _FIRST % "+Inf": "0+5x60"},
        {_FIRST % "1.0": "0+5x90", _FIRST % "10.0": "0+5x90", _FIRST % "+Inf": "0+5x90"},
        "4m30s",
        "6m",
        value="29s",
    ),
    _gauge(
        "KitemeshWritesWaiting",
        f"kitemesh_turns_write_waiting{_ORCHESTRATOR}",
        "0x8 4x60",
        "0x90",
        ("3m", "3m30s"),
        value="4",
        instance="o1",
    ),
    Trial(
        "KitemeshStreamsCut",
        {'kitemesh_streams_cut_total{reason="slow_client", service="gateway", instance="g1"}': "_x8 2x8 9x60"},
        {'kitemesh_streams_cut_total{reason="slow_client", service="gateway", instance="g1"}': "20x70 21x20"},
        "4m",
        "4m30s",
        {"reason": "slow_client"},
    ),
    _event(
        "KitemeshPostsGivenUp",
        'kitemesh_posts_given_up_total{service="model-runner", instance="r1"}',
        service="model-runner",
    ),
    _event("KitemeshOutcomeUnknown", 'kitemesh_tool_outcome_unknown_total{service="tool-executor", instance="t1"}'),
    _event("KitemeshRedriven", f"kitemesh_turns_redriven_total{_ORCHESTRATOR}"),
    _gauge(
        "KitemeshDeadLetters",
        f"kitemesh_dead_letters_waiting{_ORCHESTRATOR}",
        "0x8 2x60",
        "0x90",
        ("2m", "2m30s"),
        value="2",
    ),
    _gauge(
        "KitemeshHoldsOld",
        f"kitemesh_holds_oldest_seconds{_ORCHESTRATOR}",
        "14385+15x20",
        "3600x90",
        ("15s", "30s"),
        value="4h 0m 15s",
    ),
    _first_event(
        "KitemeshWebhooksGivenUp",
        'kitemesh_notices_total{outcome="given_up", service="orchestrator", instance="o1"}',
        service="orchestrator",
    ),
    _gauge(
        "KitemeshUsageLag",
        f"kitemesh_usage_lag_seconds{_ORCHESTRATOR}",
        "30x8 320+15x40",
        "30x90",
        ("3m", "3m30s"),
        value="6m 35s",
    ),
    _gauge(
        "KitemeshLimitsLocal",
        'kitemesh_limits_local{service="gateway", instance="g1"}',
        "0x8 1x60",
        "0x90",
        ("4m", "4m30s"),
        instance="g1",
    ),
    _gauge(
        "KitemeshQueueWait",
        'kitemesh_predicted_wait_seconds{stream="KM_MODEL", pool="default", service="gateway", instance="g1"}',
        "0x8 45x60",
        "4x90",
        ("4m", "4m45s"),
        value="45s",
        stream="KM_MODEL",
        pool="default",
    ),
    Trial(
        "KitemeshQueueOld",
        {_OLDEST % "KM_MODEL": "0x8 900+15x60"},
        {_OLDEST % "KM_MODEL": "300x90", _OLDEST % "KM_OUT": "3000x90"},
        "3m15s",
        "3m45s",
        {"stream": "KM_MODEL"},
        "16m 30s",
    ),
    Trial(
        "KitemeshQueueUnattended",
        {
            f"kitemesh_queue_depth{_QUEUE}": "0x8 3x60",
            f"kitemesh_queue_in_flight{_QUEUE}": "0x80",
            f"kitemesh_slots{_SLOTS % 'default'}": "256x80",
        },
        {
            f"kitemesh_queue_depth{_QUEUE}": "3x90",
            f"kitemesh_queue_in_flight{_QUEUE}": "0x90",
            f"kitemesh_slots{_SLOTS % 'gpu'}": "256x90",
        },
        "3m",
        "3m30s",
        {"stream": "KM_MODEL", "pool": "gpu"},
    ),
    _gauge(
        "KitemeshRedeliveries",
        'kitemesh_redeliveries_total{queue="KM_MODEL", service="model-runner", instance="r1"}',
        "0x8 8x60",
        "0x8 2x90",
        ("2m", "2m30s"),
        value="8",
        queue="KM_MODEL",
    ),
    Trial(
        "KitemeshSlotsFull",
        {f"kitemesh_slots{_SLOTS % 'gpu'}": "100x80", f"kitemesh_slots_used{_SLOTS % 'gpu'}": "96x80"},
        {f"kitemesh_slots{_SLOTS % 'gpu'}": "100x90", f"kitemesh_slots_used{_SLOTS % 'gpu'}": "60x90"},
        "9m",
        "10m30s",
        {"service": "model-runner", "pool": "gpu"},
    ),
    Trial(
        "KitemeshUpstreamDown",
        {_UPSTREAM % "r1": "0x8 2x60", _UPSTREAM % "r2": "0x8 2x4 1x4 2x60"},
        # Nobody has asked the second one for a long time: what was wrong then may be well now.
        {
            _UPSTREAM % "r1": "2x90",
            _UPSTREAM % "r2": "0x90",
            _UPSTREAM.replace("openai", "unasked") % "r1": "2x8 1x90",
        },
        "5m",
        "5m30s",
        {"upstream": "openai", "pool": "default"},
    ),
    Trial(
        "KitemeshFallbacks",
        {_FALLBACK: "0+3x60", _CALLS: "0+10x60"},
        {_FALLBACK: "0+1x90", _CALLS: "0+100x90"},
        "4m30s",
        "6m",
        value="30%",
    ),
)

IDLE: Final = {
    **{_HTTP % status: "7x50" for status in ("200", "503")},
    **{_TURNS % outcome: "7x50" for outcome in ("completed", "failed")},
    **{_FIRST % bound: "7x50" for bound in ("1.0", "+Inf")},
    **{_STORE % bound: "7x50" for bound in ("0.5", "+Inf")},
    _FALLBACK: "7x50",
    _CALLS: "7x50",
    f"kitemesh_slots{_SLOTS % 'default'}": "256x50",
    f"kitemesh_slots_used{_SLOTS % 'default'}": "0x50",
}
"""A cluster that was used, and is not."""
