"""The dashboard of queues and of the workers that take from them."""

from typing import Final

from kitemesh_observability.board import Dashboard, Panel, Query, Row, quantiles, rate

_JOBS: Final = 'stream=~"KM_TURN|KM_CONTROL|KM_EVENT|KM_MODEL|KM_TOOL"'
_POOL: Final = 'pool=~"$pool"'
_NAME: Final = "{{stream}} {{pool}}"

DASHBOARD: Final = Dashboard(
    "kitemesh-queues",
    "kitemesh / Queues and workers",
    "What waits, for how long, and who works on it. Depths are said by the stream's leader, so all replicas agree.",
    (
        Row(
            "Waiting",
            (
                Panel(
                    "Depth",
                    "Messages that nobody has taken yet. Falling back to zero is well, growing is too few workers.",
                    "number",
                    (Query(f"pool:kitemesh_queue_depth:max{{{_POOL}}}", _NAME),),
                ),
                Panel(
                    "Predicted wait",
                    "How long what is published now will wait. Autoscalers follow it; above 30 s see "
                    "KitemeshQueueWait.",
                    "seconds",
                    (Query(f"pool:kitemesh_predicted_wait_seconds:max{{{_POOL}}}", _NAME),),
                    thresholds=((5, "yellow"), (30, "red")),
                ),
                Panel(
                    "Age of the oldest",
                    "Work under way counts: a model call of a minute makes its queue a minute old. See "
                    "KitemeshQueueOld.",
                    "seconds",
                    (Query(f"max by (stream) (kitemesh_queue_oldest_seconds{{{_JOBS}}})", "{{stream}}"),),
                    thresholds=((300, "yellow"), (900, "red")),
                ),
                Panel(
                    "In flight",
                    "Messages delivered and not acknowledged.",
                    "number",
                    (Query(f"max by (stream, pool) (kitemesh_queue_in_flight{{{_POOL}}})", _NAME),),
                ),
                Panel(
                    "Drain rate",
                    "Messages that all workers of a pool finish a second.",
                    "a second",
                    (Query(f"max by (stream, pool) (kitemesh_queue_drain_rate{{{_POOL}}})", _NAME),),
                ),
                Panel(
                    "Waiting, as workers say",
                    "The same as the depth, from the workers' signs of life, which admission goes by. Apart from it "
                    "for long: signs of life do not arrive.",
                    "number",
                    (Query(f"max by (stream, pool) (kitemesh_queue_waiting{{{_POOL}}})", _NAME),),
                ),
                Panel(
                    "Time waited",
                    "What messages that were taken had waited.",
                    "seconds",
                    quantiles("kitemesh_queue_wait_seconds", "queue", of=(0.5, 0.99)),
                    width=12,
                ),
                Panel(
                    "Time held",
                    "From delivery to acknowledgement.",
                    "seconds",
                    quantiles("kitemesh_delivery_duration_seconds", "queue", of=(0.5, 0.99)),
                    width=12,
                ),
            ),
        ),
        Row(
            "Workers",
            (
                Panel(
                    "Replicas",
                    "That answer Prometheus, by service.",
                    "number",
                    (
                        Query(
                            'count by (service, pool) (kitemesh_build_info{service=~"$service"})',
                            "{{service}} {{pool}}",
                        ),
                    ),
                ),
                Panel(
                    "Slots used",
                    "Share in use. Workers at 90 % for ten minutes: add replicas (KitemeshSlotsFull).",
                    "share",
                    (Query(f'pool:kitemesh_slots_used:ratio{{service=~"$service", {_POOL}}}', "{{service}} {{pool}}"),),
                    thresholds=((0.7, "yellow"), (0.9, "red")),
                ),
                Panel(
                    "Deliveries",
                    "Handled a second, by what became of them.",
                    "a second",
                    (Query(rate("kitemesh_deliveries_total", "queue, outcome") + " > 0", "{{queue}} {{outcome}}"),),
                    stacked=True,
                ),
            ),
        ),
        Row(
            "Trouble",
            (
                Panel(
                    "Redeliveries",
                    "Deliveries that were not the first, a second: workers die or stall. See KitemeshRedeliveries.",
                    "a second",
                    (Query(rate("kitemesh_redeliveries_total", "queue"), "{{queue}}"),),
                ),
                Panel(
                    "Being delivered again",
                    "Messages that were delivered more than once and are not finished, as the stream's leader says.",
                    "number",
                    (Query(f"max by (stream, pool) (kitemesh_queue_redelivered{{{_POOL}}})", _NAME),),
                ),
                Panel(
                    "Dead letters waiting",
                    "Messages given up that somebody has to look at: kitemesh dead list.",
                    "number",
                    (Query('max(kitemesh_dead_letters_waiting{service="orchestrator"})'),),
                    "stat",
                    ((1, "red"),),
                    width=4,
                ),
                Panel(
                    "Dead letters",
                    "Messages given up.",
                    "number",
                    (Query("sum by (stream, reason) (kitemesh_dead_letters_total)", "{{stream}} {{reason}}"),),
                    width=4,
                ),
            ),
        ),
    ),
)
