"""Alerts about work that waits: queues, workers and the providers they ask."""

from typing import Final

from kitemesh_observability.alert import Alert

_JOBS: Final = 'stream=~"KM_TURN|KM_CONTROL|KM_EVENT|KM_MODEL|KM_TOOL"'


def _unattended(stream: str, service: str) -> str:
    return (
        # What a worker that died had taken comes back only when somebody asks for it.
        "max by (stream, pool) ("
        f'kitemesh_queue_depth{{stream="{stream}"}} + kitemesh_queue_in_flight{{stream="{stream}"}}) > 0 '
        f'unless on (pool) sum by (pool) (kitemesh_slots{{service="{service}"}}) > 0'
    )


ALERTS: Final = (
    Alert(
        "KitemeshQueueWait",
        "pool:kitemesh_predicted_wait_seconds:max > {30s|3s}",
        120,
        "page",
        "what comes to {{ $labels.stream }} {{ $labels.pool }} now will wait {{ $value | humanizeDuration }}",
        "Work comes faster than it is done: who asks now waits so long before anything happens.",
        "The dashboard Queues and workers: are all slots in use, or did workers go? Did the provider become slow?",
        "Add replicas of that pool (KM_MODEL: model-runner, KM_TOOL: tool-executor, the others: orchestrator); if "
        "its provider is the limit, refuse earlier: limits of keys, `KITEMESH_MAX_PREDICTED_WAIT_S`.",
    ),
    Alert(
        "KitemeshQueueOld",
        f"max by (stream) (kitemesh_queue_oldest_seconds{{{_JOBS}}}) > {{15m|20s}}",
        60,
        "ticket",
        "the oldest message of {{ $labels.stream }} is {{ $value | humanizeDuration }} old",
        "A message was neither finished nor given up for a quarter of the hour that it may live; work under way "
        "counts.",
        "Which pool it is for (`nats stream view`), and whether anything of that pool is done at all.",
        "Add replicas where everything waits; where one job is that long, nothing. After an hour the sweep drives it "
        "anew.",
    ),
    Alert(
        "KitemeshQueueUnattended",
        f"({_unattended('KM_MODEL', 'model-runner')}) or ({_unattended('KM_TOOL', 'tool-executor')})",
        60,
        "page",
        "nobody works on pool {{ $labels.pool }} of {{ $labels.stream }}",
        "Work waits for a pool that has not one worker; its users wait until their turns time out.",
        "`kitemesh status`: which replicas have `KITEMESH_POOL` set to it, and the catalog: which models or tools "
        "name it.",
        "Start a worker of that pool, or take the pool out of the catalog.",
    ),
    Alert(
        "KitemeshRedeliveries",
        "sum by (queue) (increase(kitemesh_redeliveries_total[15m])) > 5",
        0,
        "ticket",
        "{{ $labels.queue }} was delivered again {{ $value | humanize }} times in a quarter of an hour",
        "Workers die or stall: their work is taken over after six seconds, and users wait that long.",
        "Restarts of that queue's workers, their memory, their event loop's lag, and `delivery.` lines of their logs.",
        "See KitemeshServiceDown and KitemeshLoopLag. A single message that kills its worker becomes a dead letter.",
    ),
    Alert(
        "KitemeshSlotsFull",
        'pool:kitemesh_slots_used:ratio{service=~"model-runner|tool-executor"} > 0.9',
        600,
        "ticket",
        "the slots of {{ $labels.service }} {{ $labels.pool }} are full",
        "Nearly every slot of a pool is in use; the next burst waits.",
        "The dashboard Queues and workers, and whether the CPU of the workers has room.",
        "Add replicas, or raise `KITEMESH_SLOTS` where CPU and the provider's limits allow it.",
    ),
    Alert(
        "KitemeshUpstreamDown",
        # Half open it stays until somebody asks again: only what was open of late says that asking fails.
        "min by (upstream, pool) (min_over_time(kitemesh_upstream_state[2m])) > 0 "
        "and max by (upstream, pool) (max_over_time(kitemesh_upstream_state[15m])) > 1",
        60,
        "ticket",
        "no model-runner of pool {{ $labels.pool }} gets answers from {{ $labels.upstream }}",
        "A provider's model failed several times at every runner of a pool and is left alone, but for single tries. "
        "Groups fall back; who names the model itself gets errors.",
        "`upstream.` lines of the runners' logs, the dashboard Models, the provider's own status page.",
        "The key, the quota or the network are yours to mend, the rest is the provider's. Put another model into the "
        "group meanwhile.",
    ),
    Alert(
        "KitemeshFallbacks",
        "kitemesh:upstream_fallbacks:ratio > 0.1",
        300,
        "ticket",
        "{{ $value | humanizePercentage }} of the model calls go to another model than the first",
        "Groups answer, but not by their first model: quality and costs are another's.",
        "`reason` in the dashboard Models: `open` and `cooling` are the breaker, the others are the provider's errors.",
        "See KitemeshUpstreamDown. If it is to stay so, change the group's order.",
    ),
)
