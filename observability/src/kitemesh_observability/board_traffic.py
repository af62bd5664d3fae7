"""The dashboard of what clients ask and what they get."""

from typing import Final

from kitemesh_observability.board import Dashboard, Panel, Query, Row, quantiles, rate

_HTTP: Final = "kitemesh_http_requests_total"

DASHBOARD: Final = Dashboard(
    "kitemesh-traffic",
    "kitemesh / Traffic",
    "Requests, errors and times at the gateways, by dialect.",
    (
        Row(
            "Now",
            (
                Panel("Requests", "Answered a second.", "requests a second", (Query(rate(_HTTP)),), "stat", width=6),
                Panel(
                    "Errors",
                    "Share of the requests that got a 5xx. Above 5 %: see KitemeshErrorRate in the runbook.",
                    "share",
                    (Query("kitemesh:http_errors:ratio"),),
                    "stat",
                    ((0.01, "yellow"), (0.05, "red")),
                    width=6,
                ),
                Panel(
                    "First event, p95",
                    "From the request to the first event of its stream. Above 10 s: see KitemeshFirstTokenSlow.",
                    "seconds",
                    (Query("kitemesh:first_event_seconds:p95"),),
                    "stat",
                    ((3, "yellow"), (10, "red")),
                    width=6,
                ),
                Panel(
                    "Gateways",
                    "Replicas that answer Prometheus.",
                    "number",
                    (Query('count(kitemesh_build_info{service="gateway"})'),),
                    "stat",
                    width=6,
                ),
            ),
        ),
        Row(
            "Requests",
            (
                Panel(
                    "By dialect",
                    "Answered a second. A dialect that falls to nothing is a client that cannot reach us.",
                    "requests a second",
                    (Query("kitemesh:http_requests:rate", "{{dialect}}"),),
                    stacked=True,
                ),
                Panel(
                    "By status",
                    "Answered a second. 429 are limits and full queues, 503 dependencies; the codes are below.",
                    "requests a second",
                    (Query(rate(_HTTP, "status"), "{{status}}"),),
                    stacked=True,
                ),
                Panel(
                    "In hand",
                    "Requests that a gateway works on. Gateways that differ much are badly balanced.",
                    "number",
                    (Query('sum by (instance) (kitemesh_http_open{service="gateway"})', "{{instance}}"),),
                ),
                Panel(
                    "Duration by dialect",
                    "From a request's first byte to its answer's last, the model's time included. For where it goes "
                    "see Turns and approvals.",
                    "seconds",
                    quantiles("kitemesh_http_duration_seconds", "dialect", of=(0.5, 0.95)),
                    width=12,
                ),
                Panel(
                    "First event of streams",
                    "What a person waits before anything appears.",
                    "seconds",
                    quantiles("kitemesh_first_event_seconds"),
                    width=12,
                ),
            ),
        ),
        Row(
            "Refusals",
            (
                Panel(
                    "By code",
                    "Requests answered with an error, a second. Each code's meaning is on the gateway's /docs.",
                    "requests a second",
                    (Query(rate("kitemesh_http_refusals_total", "code") + " > 0", "{{code}}"),),
                    width=12,
                    stacked=True,
                ),
                Panel(
                    "Limits",
                    "Requests refused because a key or tenant is at its limit. Raise the limit, or talk to who sends "
                    "them.",
                    "requests a second",
                    (Query(rate("kitemesh_limit_refusals_total", "dimension"), "{{dimension}}"),),
                    width=6,
                ),
                Panel(
                    "Keys asked for",
                    "Keys looked up in the store. Many unknown ones are a client with an old key, or somebody "
                    "guessing.",
                    "a second",
                    (Query(rate("kitemesh_key_lookups_total", "outcome"), "{{outcome}}"),),
                    width=6,
                ),
            ),
        ),
    ),
)
