"""Streams and consumers as data; one bootstrap command makes the server agree with it.

The waits follow from what the cluster promises: work is taken over within 10 s of a crash, and a message that kills
its worker is delivered at most five times. Change them together.
"""

import zlib
from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple

from kitemesh_contracts.commands import Priority
from kitemesh_contracts.subjects import ROOT

Retention = Literal["workqueue", "limits"]
Storage = Literal["file", "memory"]
Discard = Literal["old", "new"]

PRIORITIES: Final[tuple[Priority, ...]] = ("interactive", "batch")
"""Priority tokens, most urgent first."""
WEIGHTS: Final[dict[str, int]] = {"interactive": 8, "batch": 1}
"""How the slots are shared out while every priority has work; what one leaves over the others get."""

ORCHESTRATOR_ACK_WAIT_S: Final = 5.0
WORKER_ACK_WAIT_S: Final = 6.0
WORKER_HEARTBEAT_S: Final = 2.0
WORKER_DELIVERIES_MAX: Final = 4
DUPLICATE_WINDOW_S: Final = 600.0

_HOUR_S: Final = 3600.0
_DAY_S: Final = 24 * _HOUR_S
JOB_MAX_AGE_S: Final = _HOUR_S
FEED_MAX_AGE_S: Final = 900.0
_MIB: Final = 1024 * 1024
OUT_MAX_BYTES: Final = 256 * _MIB

TURN: Final = "KM_TURN"
CONTROL: Final = "KM_CONTROL"
EVENT: Final = "KM_EVENT"
MODEL: Final = "KM_MODEL"
TOOL: Final = "KM_TOOL"
OUT: Final = "KM_OUT"
FEED: Final = "KM_FEED"
TIMER: Final = "KM_TIMER"
DEAD: Final = "KM_DEAD"

ADVISORY_MAX_DELIVERIES: Final = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES"
ADVISORY_TERMINATED: Final = "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED"
ADVISORY_ALL: Final = "$JS.EVENT.ADVISORY.>"
ACCOUNT_STATISTICS: Final = "$SYS.REQ.ACCOUNT.PING.STATZ"
"""Asks the servers what they count of one's own account; every one of them answers, the nearest first."""


class ConsumerSpec(NamedTuple):
    """A durable pull consumer with explicit acks.

    Attributes:
        max_deliver: Deliveries before the server gives up and sends an advisory.
        max_ack_pending: Deliveries that may be outstanding over all its workers.

    """

    name: str
    stream: str
    filter_subject: str
    ack_wait_s: float
    max_deliver: int
    max_ack_pending: int = 10_000


class StreamSpec(NamedTuple):
    """A stream, its limits and its consumers. `-1` means no limit, as on the server."""

    name: str
    subjects: tuple[str, ...]
    retention: Retention
    storage: Storage
    max_age_s: float
    max_msgs: int = -1
    max_bytes: int = -1
    discard: Discard = "old"
    allow_direct: bool = False
    allow_schedules: bool = False
    duplicate_window_s: float = DUPLICATE_WINDOW_S
    consumers: tuple[ConsumerSpec, ...] = ()


class Pool(NamedTuple):
    """A set of workers that scale together.

    Attributes:
        lanes: Queues that tenants are hashed over, for fairness.

    """

    name: str
    lanes: int = 1


def lane_of(tenant: str, lanes: int) -> int:
    """Choose a tenant's lane: stochastic fair queueing, the same on every machine."""
    return zlib.crc32(tenant.encode()) % lanes


def lane_consumer(pool: str, priority: str, lane: int) -> str:
    """Name the durable consumer of one pool, priority and lane."""
    return f"{pool}-{priority}-{lane}"


def pool_of(stream: str, consumer: str) -> str | None:
    """Return whose pool a stream's consumer is: empty where there are none, `None` for one that is not ours."""
    if stream not in (MODEL, TOOL):
        return ""
    pool, *rest = consumer.rsplit("-", 2)
    return pool if len(rest) == 2 and rest[0] in PRIORITIES and rest[1].isdecimal() else None  # noqa: PLR2004  and lane


class Lane(NamedTuple):
    """A consumer that shares its workers with others.

    Attributes:
        priority: Empty where there are none.
        number: Among the lanes of its priority.
        weight: Its share of the slots, against that of the others; see `WEIGHTS`.

    """

    consumer: str
    priority: str = ""
    number: int = 0
    weight: int = 1


def lane_consumers(pool: str, lanes: int) -> list[Lane]:
    """List all the consumers of a pool, most urgent priority first."""
    return [
        Lane(lane_consumer(pool, priority, lane), priority, lane, WEIGHTS[priority])
        for priority in PRIORITIES
        for lane in range(lanes)
    ]


def _lanes(stream: str, kind: str, pools: Iterable[Pool]) -> tuple[ConsumerSpec, ...]:
    return tuple(
        ConsumerSpec(
            name=lane_consumer(pool.name, priority, lane),
            stream=stream,
            filter_subject=f"{ROOT}.{kind}.{pool.name}.{priority}.{lane}.*",
            ack_wait_s=WORKER_ACK_WAIT_S,
            max_deliver=WORKER_DELIVERIES_MAX,
        )
        for pool in pools
        for priority in PRIORITIES
        for lane in range(pool.lanes)
    )


def _orchestrator(stream: str, name: str, subject: str) -> ConsumerSpec:
    return ConsumerSpec(name, stream, subject, ack_wait_s=ORCHESTRATOR_ACK_WAIT_S, max_deliver=5)


def topology(
    model_pools: Sequence[Pool] = (Pool("default"),),
    tool_pools: Sequence[Pool] = (Pool("default"),),
    *,
    turn_queue_max: int = 10_000,
    out_max_bytes: int = OUT_MAX_BYTES,
    feed_max_bytes: int = 32 * _MIB,
) -> tuple[StreamSpec, ...]:
    """List every stream with its consumers.

    Args:
        model_pools: Pools of model-runners.
        tool_pools: Pools of tool-executors.
        turn_queue_max: Accepted turns that may wait; more are refused. The only stream that refuses.
        out_max_bytes: Memory for the captured deltas of durable turns.
        feed_max_bytes: Memory for the news that a reader who was away can still be told.

    """
    return (
        StreamSpec(
            TURN,
            (f"{ROOT}.turn.start.*",),
            "workqueue",
            "file",
            _HOUR_S,
            max_msgs=turn_queue_max,
            discard="new",
            consumers=(_orchestrator(TURN, "orchestrator-turn", f"{ROOT}.turn.start.*"),),
        ),
        StreamSpec(
            CONTROL,
            (f"{ROOT}.control.*.*",),
            "workqueue",
            "file",
            _HOUR_S,
            consumers=(_orchestrator(CONTROL, "orchestrator-control", f"{ROOT}.control.*.*"),),
        ),
        StreamSpec(
            EVENT,
            (f"{ROOT}.event.*.*.*",),
            "workqueue",
            "file",
            _HOUR_S,
            allow_direct=True,
            consumers=(_orchestrator(EVENT, "orchestrator-event", f"{ROOT}.event.*.*.*"),),
        ),
        StreamSpec(
            MODEL,
            (f"{ROOT}.model.*.*.*.*",),
            "workqueue",
            "file",
            JOB_MAX_AGE_S,
            consumers=_lanes(MODEL, "model", model_pools),
        ),
        StreamSpec(
            TOOL,
            (f"{ROOT}.tool.*.*.*.*",),
            "workqueue",
            "file",
            JOB_MAX_AGE_S,
            consumers=_lanes(TOOL, "tool", tool_pools),
        ),
        StreamSpec(
            OUT,
            (f"{ROOT}.out.>",),
            "limits",
            "memory",
            _HOUR_S,
            max_bytes=out_max_bytes,
            allow_direct=True,
        ),
        StreamSpec(
            FEED,
            (f"{ROOT}.feed.>",),
            "limits",
            "memory",
            FEED_MAX_AGE_S,
            max_bytes=feed_max_bytes,
            allow_direct=True,
        ),
        StreamSpec(
            TIMER,
            (f"{ROOT}.timer.>",),
            "limits",
            "file",
            _DAY_S,
            allow_schedules=True,
            consumers=(ConsumerSpec("timers", TIMER, f"{ROOT}.timer.due.>", ORCHESTRATOR_ACK_WAIT_S, 5),),
        ),
        StreamSpec(
            DEAD,
            (f"{ROOT}.dead.>", f"{ADVISORY_MAX_DELIVERIES}.>", f"{ADVISORY_TERMINATED}.>"),
            "limits",
            "file",
            14 * _DAY_S,
            consumers=(
                ConsumerSpec("dead-exhausted", DEAD, f"{ADVISORY_MAX_DELIVERIES}.>", ORCHESTRATOR_ACK_WAIT_S, -1),
                ConsumerSpec("dead-terminated", DEAD, f"{ADVISORY_TERMINATED}.>", ORCHESTRATOR_ACK_WAIT_S, -1),
            ),
        ),
    )
