"""What is computed once for dashboards, alerts and autoscalers. Knows no file format."""

from typing import Final, NamedTuple


class Recording(NamedTuple):
    """A series that Prometheus computes and keeps, named level:metric:operation; `expr` is as an alert's."""

    name: str
    expr: str


RECORDINGS: Final = (
    Recording("kitemesh:http_requests:rate", "sum by (dialect) (rate(kitemesh_http_requests_total[5m]))"),
    Recording(
        "kitemesh:http_errors:rate",
        'sum(rate(kitemesh_http_requests_total{status=~"5.."}[5m])) or vector(0)',
    ),
    # Of nothing there is no share: no series, rather than one that is no number.
    Recording("kitemesh:http_errors:ratio", "kitemesh:http_errors:rate / (sum(kitemesh:http_requests:rate) > 0)"),
    Recording("kitemesh:turns_ended:rate", "sum by (mode, outcome) (rate(kitemesh_turns_ended_total[5m]))"),
    Recording("kitemesh:turns_failed:rate", 'sum(kitemesh:turns_ended:rate{outcome="failed"}) or vector(0)'),
    Recording("kitemesh:turns_failed:ratio", "kitemesh:turns_failed:rate / (sum(kitemesh:turns_ended:rate) > 0)"),
    Recording(
        "kitemesh:first_event_seconds:p95",
        "histogram_quantile(0.95, sum by (le) (rate(kitemesh_first_event_seconds_bucket[5m]))) >= 0",
    ),
    Recording(
        "operation:kitemesh_store_duration_seconds:p99",
        "histogram_quantile(0.99, sum by (le, operation) (rate(kitemesh_store_duration_seconds_bucket[5m]))) >= 0",
    ),
    Recording("pool:kitemesh_queue_depth:max", "max by (stream, pool) (kitemesh_queue_depth)"),
    Recording("pool:kitemesh_predicted_wait_seconds:max", "max by (stream, pool) (kitemesh_predicted_wait_seconds)"),
    Recording(
        "pool:kitemesh_slots_used:ratio",
        "sum by (service, pool) (kitemesh_slots_used) / (sum by (service, pool) (kitemesh_slots) > 0)",
    ),
    Recording(
        "kitemesh:upstream_fallbacks:ratio",
        "sum(rate(kitemesh_upstream_fallbacks_total[5m])) / "
        "(sum(rate(gen_ai_client_operation_duration_seconds_count[5m])) > 0)",
    ),
)
