"""Alerts about turns and their streams: what users feel, and what was lost, given up or left undone."""

from typing import Final

from kitemesh_observability.alert import Alert, grew

ALERTS: Final = (
    Alert(
        "KitemeshErrorRate",
        "kitemesh:http_errors:ratio > 0.05 and on () kitemesh:http_errors:rate > 1 / 60",
        300,
        "page",
        "{{ $value | humanizePercentage }} of the requests are answered with a 5xx",
        "More than one request in twenty is answered with a server's error.",
        "The dashboard Traffic: which code (`store.down`, `bus.down`, `upstream.…`), in which dialect, since when.",
        "`bus.down`, `store.down`: see the alerts of NATS and MongoDB. `upstream.…`: the provider; let the group "
        "fall back to another model. `internal`: go back to the release before.",
    ),
    Alert(
        "KitemeshTurnsFail",
        "kitemesh:turns_failed:ratio > 0.05 and on () kitemesh:turns_failed:rate > 1 / 60",
        300,
        "page",
        "{{ $value | humanizePercentage }} of the turns fail",
        "More than one turn in twenty ends as failed. Streams show it as an error, and nobody else does: their "
        "status was 200.",
        "The dashboard Models (providers' errors), then `turn.ended` in the orchestrators' logs with its `code`.",
        "`upstream.…`: the provider, or its key; let the group fall back. `turn.lost`, `turn.exhausted`: workers "
        "die; see their logs. `tool.…`: the tool's server.",
    ),
    Alert(
        "KitemeshFirstTokenSlow",
        "kitemesh:first_event_seconds:p95 > 10",
        300,
        "page",
        "one stream in twenty waits longer than {{ $value | humanizeDuration }} for its first word",
        "From the request to the first event of its stream it takes longer than ten seconds for one stream in twenty.",
        "The dashboard Turns and approvals, by hop: start_queue and model_queue are queues, provider is the provider.",
        "Queues: add replicas of who takes from them. Provider: ask it, or put a faster model first in the group.",
    ),
    Alert(
        "KitemeshWritesWaiting",
        "sum by (instance) (kitemesh_turns_write_waiting) > 0",
        60,
        "page",
        "{{ $value }} answered turns of {{ $labels.instance }} are not stored yet",
        "MongoDB did not take turns that were answered. They are missing from their conversations, and lost if that "
        "orchestrator dies now.",
        "MongoDB: see KitemeshMongoDown; is its disk full?",
        "Bring MongoDB back and restart no orchestrator: the writes are repeated until they are taken.",
    ),
    Alert(
        "KitemeshStreamsCut",
        grew("kitemesh_streams_cut_total", "reason", "15m", 5),
        0,
        "ticket",
        "streams are cut: {{ $labels.reason }}",
        "Clients that did not read what was sent to them were cut off. Durable streams can be resumed.",
        "`stream.cut` in the gateways' logs: one client, or many at once? Many at once are the network or a proxy.",
        "One client: it has to read. Many: the proxy before the gateways, which may hold back or collect what is sent.",
    ),
    Alert(
        "KitemeshPostsGivenUp",
        "sum by (service) (increase(kitemesh_posts_given_up_total[15m])) > 0",
        0,
        "ticket",
        "{{ $labels.service }} could not keep frames for replay",
        "KM_OUT or KM_FEED did not take frames or news. Streams resume from the stored steps instead, with less "
        "detail.",
        "`nats stream report`: are KM_OUT and KM_FEED there, does NATS have memory left (`max_memory_store`)?",
        "Run `kitemesh bootstrap` where a stream is missing; else give NATS more memory.",
    ),
    Alert(
        "KitemeshOutcomeUnknown",
        "sum(increase(kitemesh_tool_outcome_unknown_total[15m])) > 0",
        0,
        "ticket",
        "of a tool call it is not known whether it took effect",
        "A process died, or a tool broke off, between a `once` call and its result. Nobody repeats the call.",
        "`kitemesh tools unknown` lists the calls; the other side knows each by `x-kitemesh-execution-id`.",
        "Look at the other side whether it happened, and tell the conversation. If it goes on: why do executors die?",
    ),
    Alert(
        "KitemeshRedriven",
        "sum(increase(kitemesh_turns_redriven_total[15m])) > 0",
        0,
        "ticket",
        "jobs of stored turns had to be published again",
        "The sweep found turns whose job was gone from the bus, and drove them on. Users waited some seconds longer.",
        "Whether NATS lost its store, or a worker was frozen for half a minute: `delivery.` lines of the workers' "
        "logs.",
        "Nothing for the turns. After NATS lost its store: `kitemesh bootstrap`. If it goes on without such a "
        "reason, report it.",
    ),
    Alert(
        "KitemeshDeadLetters",
        'max(kitemesh_dead_letters_waiting{service="orchestrator"}) > 0',
        0,
        "ticket",
        "{{ $value }} messages were given up and wait to be looked at",
        "A message killed its worker again and again, or could not be read. Its turn has failed; nothing is tried "
        "again.",
        "`kitemesh dead list` and `kitemesh dead show ID`: which turn, why, how often.",
        "`kitemesh dead requeue ID` once the reason is gone: no effect that is finished is repeated. `kitemesh dead "
        "drop ID` otherwise.",
    ),
    Alert(
        "KitemeshHoldsOld",
        'max(kitemesh_holds_oldest_seconds{service="orchestrator"}) > {4h|15s}',
        0,
        "ticket",
        "a call has waited {{ $value | humanizeDuration }} for a person",
        "Tool calls wait for approval and nobody decides. A call that expires is denied, after a day by default.",
        "`kitemesh approvals list`: whose are they, and does the webhook that tells of them arrive?",
        "Tell who decides. A rule that nobody answers needs another `expires_after_s`, or another policy in the "
        "catalog.",
    ),
    Alert(
        "KitemeshWebhooksGivenUp",
        grew('kitemesh_notices_total{outcome="given_up"}', "service", "15m"),
        0,
        "ticket",
        "a webhook was given up",
        "A webhook was not taken for a day, or was refused for good: somebody was not told of a hold or an ending.",
        "`notice.given_up` in the orchestrators' logs, which names the webhook and its error.",
        "Mend the receiver or the catalog's address; what was missed is in the feed and in `kitemesh approvals list`.",
    ),
    Alert(
        "KitemeshUsageLag",
        'max(kitemesh_usage_lag_seconds{service="orchestrator"}) > {5m|45s}',
        60,
        "ticket",
        "usage was counted last {{ $value | humanizeDuration }} ago",
        "No orchestrator counts usage. After an hour what is deleted meanwhile is not counted.",
        "`sweep.failed` in the orchestrators' logs; may they write to the collection `usage` (KitemeshStoreDenied)?",
        "Mend the role or MongoDB; counting catches up by itself.",
    ),
    Alert(
        "KitemeshLimitsLocal",
        "max by (instance) (kitemesh_limits_local) == 1",
        120,
        "ticket",
        "{{ $labels.instance }} limits by its own share",
        "MongoDB does not answer this gateway's limiter, so it allows its share of each limit: clients whose "
        "requests come to one gateway are refused earlier.",
        "MongoDB from that gateway: see KitemeshMongoDown and KitemeshStoreSlow.",
        "Bring MongoDB back; the gateway returns to common limits by itself.",
    ),
)
