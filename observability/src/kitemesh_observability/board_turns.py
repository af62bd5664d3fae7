"""The dashboard of turns: how they end, where their time goes, what tools did, and what waits for people."""

from typing import Final

from kitemesh_observability.board import Dashboard, Panel, Query, Row, quantiles, rate

DASHBOARD: Final = Dashboard(
    "kitemesh-turns",
    "kitemesh / Turns and approvals",
    "Turns and their endings, tool calls, and calls that wait for a person.",
    (
        Row(
            "Turns",
            (
                Panel(
                    "Ended",
                    "A second, by mode and outcome.",
                    "a second",
                    (Query("kitemesh:turns_ended:rate", "{{mode}} {{outcome}}"),),
                    stacked=True,
                ),
                Panel(
                    "Failing",
                    "Share of the turns that failed. Above 5 %: see KitemeshTurnsFail.",
                    "share",
                    (Query("kitemesh:turns_failed:ratio"),),
                    thresholds=((0.01, "yellow"), (0.05, "red")),
                ),
                Panel(
                    "Time by place",
                    "p95 of the time that turns spend in one place. start_queue and model_queue: add workers; "
                    "provider: not ours; store: MongoDB.",
                    "seconds",
                    quantiles("kitemesh_hop_seconds", "hop", of=(0.95,)),
                ),
                Panel(
                    "Writes that wait",
                    "Answered turns that MongoDB did not take yet. Above 0: restart no orchestrator.",
                    "number",
                    (
                        Query(
                            'sum by (instance) (kitemesh_turns_write_waiting{service="orchestrator"})', "{{instance}}"
                        ),
                    ),
                    thresholds=((1, "red"),),
                ),
                Panel(
                    "Driven on by the sweep",
                    "Jobs published again, in the last hour. Expected after NATS lost its store, and at no other time.",
                    "number",
                    (Query("sum(increase(kitemesh_turns_redriven_total[1h]))"),),
                ),
                Panel(
                    "Answered without being stored",
                    "Turns whose write had failed when they were answered, in the last hour.",
                    "number",
                    (Query("sum(increase(kitemesh_turns_unstored_total[1h]))"),),
                ),
            ),
        ),
        Row(
            "Approvals",
            (
                Panel(
                    "Open",
                    "Calls that wait for a person, of all tenants.",
                    "number",
                    (Query('max(kitemesh_holds_open{service="orchestrator"})'),),
                    "stat",
                    width=4,
                ),
                Panel(
                    "Oldest",
                    "Since when the oldest waits. Above four hours: see KitemeshHoldsOld.",
                    "seconds",
                    (Query('max(kitemesh_holds_oldest_seconds{service="orchestrator"})'),),
                    "stat",
                    ((3_600, "yellow"), (14_400, "red")),
                    width=4,
                ),
                Panel(
                    "Opened and ended",
                    "A second. Expired ones are calls that nobody decided.",
                    "a second",
                    (
                        Query(rate("kitemesh_holds_opened_total"), "opened"),
                        Query(rate("kitemesh_holds_ended_total", "status"), "{{status}}"),
                    ),
                ),
                Panel(
                    "Time to a decision",
                    "From opening to the end, by how it ended.",
                    "seconds",
                    quantiles("kitemesh_hold_wait_seconds", "status", of=(0.5, 0.95)),
                ),
            ),
        ),
        Row(
            "Tools",
            (
                Panel(
                    "Calls",
                    "Tool calls ended a second, by kind and outcome.",
                    "a second",
                    (Query(rate("kitemesh_tool_calls_total", "kind, outcome"), "{{kind}} {{outcome}}"),),
                    stacked=True,
                    width=6,
                ),
                Panel(
                    "Duration",
                    "Of a tool call, with its repetitions.",
                    "seconds",
                    quantiles("kitemesh_tool_duration_seconds", "kind", of=(0.5, 0.95)),
                    width=6,
                ),
                Panel(
                    "Outcome unknown",
                    "Calls of which it is not known whether they took effect, in the last day: kitemesh tools unknown.",
                    "number",
                    (Query("sum(increase(kitemesh_tool_outcome_unknown_total[1d]))"),),
                    "stat",
                    ((1, "red"),),
                    width=4,
                ),
                Panel(
                    "Usage counted",
                    "How long ago the turns ended that are counted last. Above five minutes: see KitemeshUsageLag.",
                    "seconds",
                    (Query('max(kitemesh_usage_lag_seconds{service="orchestrator"})'),),
                    "stat",
                    ((120, "yellow"), (300, "red")),
                    width=4,
                ),
                Panel(
                    "Webhooks",
                    "Tries to call one, a second: delivered, retried, given_up.",
                    "a second",
                    (Query(rate("kitemesh_notices_total", "outcome"), "{{outcome}}"),),
                    width=4,
                ),
            ),
        ),
    ),
)
