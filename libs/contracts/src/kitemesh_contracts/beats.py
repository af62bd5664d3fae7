"""Signs of life: every replica of every service says every 2 s that it is there."""

from typing import Final, Literal

from msgspec import Struct

BEAT_EVERY_S: Final = 2.0

GATEWAY_SILENCE_S: Final = 10.0
"""A classic job whose gateway was silent for this long has no client any more and is cancelled."""

Health = Literal["degraded", "down"]
"""`degraded`: some calls are tried, to see whether it is back. `down`: none are."""


class Queue(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a worker knows of one queue.

    Attributes:
        stream: Where the queue is.
        pool: Whose it is; empty for a stream without pools.
        priority: Which of the pool's; empty for a stream without priorities.
        waiting: Messages that nobody works on, when it last heard; all workers of a pool speak of the same ones.
        lanes: The same, lane by lane; empty where there is one.
        done: How many this replica has finished since it started.

    """

    stream: str
    waiting: int = 0
    done: int = 0
    pool: str = ""
    priority: str = ""
    lanes: tuple[int, ...] = ()


class Beat(Struct, frozen=True, kw_only=True, tag="beat", omit_defaults=True):
    """One sign of life.

    Attributes:
        load: Work in hand: open turns at a gateway, used slots at a worker.
        slots: How much it may have in hand at once; 0 where there is no such bound.
        queues: Those that it takes from.
        health: How the upstreams of catalog models look from here, those that are not well.
        up_s: How long the replica has run.
        now_ms: What its clock says, for whoever looks whether clocks agree; nothing else may go by it.

    """

    service: str
    replica: str
    version: str
    load: int
    slots: int = 0
    queues: tuple[Queue, ...] = ()
    health: dict[str, Health] = {}
    up_s: float = 0.0
    now_ms: int = 0
