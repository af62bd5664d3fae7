"""What the route of the cluster answers, and how it is rendered. Pure."""

from collections.abc import Iterable, Sequence
from typing import Literal

from msgspec import Struct

from kitemesh_contracts.permissions import SERVICES
from kitemesh_runtime.cluster_view import QueueView
from kitemesh_runtime.fleet import SILENCE_S, Seen


class ReplicaOut(Struct, frozen=True, kw_only=True):
    """One process of a service.

    Attributes:
        state: `silent`: it was stopped, died, or cannot be heard; it is told of for a minute.
        up_s: How long it has run, as it said last.
        load: Work in hand: open turns at a gateway, used slots elsewhere.
        slots: How much it may have in hand at once; 0 where there is no such bound.
        silent_s: For how long it has not been heard; every replica speaks every two seconds.
        clock_skew_ms: How far its clock is ahead of the answering server's, less what its word took to come; `null`
            where its release does not say.

    """

    replica: str
    state: Literal["alive", "silent"]
    version: str
    up_s: float
    load: int
    slots: int
    silent_s: float
    clock_skew_ms: int | None


class ServiceOut(Struct, frozen=True, kw_only=True):
    """A service.

    Attributes:
        versions: That its living replicas have; more than one while they are replaced.

    """

    service: str
    versions: tuple[str, ...]
    replicas: tuple[ReplicaOut, ...]


class QueueOut(Struct, frozen=True, kw_only=True):
    """One queue.

    Attributes:
        pool: Empty for a stream without pools.
        priority: Empty for a stream without priorities.
        waiting: Messages that nobody works on; `null` when nobody knows.
        lanes: The same, lane by lane; empty where there is one.
        drain_rate: How many messages all workers finish a second.
        predicted_wait_s: How long what comes now will wait; `null` when nobody knows.
        workers: Replicas that take from it.
        slots: Of them all, which they share out over all their queues.

    """

    stream: str
    pool: str
    priority: str
    waiting: int | None
    lanes: tuple[int, ...]
    drain_rate: float
    predicted_wait_s: float | None
    workers: int
    slots: int


class UpstreamOut(Struct, frozen=True, kw_only=True):
    """A model of the catalog.

    Attributes:
        health: How its provider looks to the model-runners of its pool; `unknown` where there is none of them.

    """

    model: str
    pool: str
    health: Literal["ok", "degraded", "down", "unknown"]


class HoldsOut(Struct, frozen=True, kw_only=True):
    """Approvals that nobody has decided, of all tenants; `null` when the store does not answer.

    Attributes:
        oldest_s: How long the oldest has waited; 0 without one.

    """

    open: int | None
    oldest_s: float | None


class DependencyOut(Struct, frozen=True, kw_only=True):
    """Something that the cluster stands on, as the answering server sees it.

    Attributes:
        since_s: For how long it has been as it is.
        reason: Why it is down; empty when it is up.

    """

    up: bool
    since_s: float
    reason: str


class DependenciesOut(Struct, frozen=True, kw_only=True):
    """What the cluster stands on."""

    nats: DependencyOut
    mongodb: DependencyOut


class ClusterOut(Struct, frozen=True, kw_only=True):
    """The shape of the cluster, from what every replica says every two seconds.

    Attributes:
        dead_letters: How many messages were given up and are kept; `null` when the bus does not answer.
        gateway: The replica that answers.

    """

    gateway: str
    services: tuple[ServiceOut, ...]
    queues: tuple[QueueOut, ...]
    upstreams: tuple[UpstreamOut, ...]
    holds: HoldsOut
    dead_letters: int | None
    dependencies: DependenciesOut


def services_out(seen: Sequence[Seen]) -> tuple[ServiceOut, ...]:
    """Render who is there: the cluster's services, each of them even if it has no replica, then any other."""
    others = sorted({each.beat.service for each in seen} - set(SERVICES))
    return tuple(_service(name, [each for each in seen if each.beat.service == name]) for name in (*SERVICES, *others))


def queues_out(views: Iterable[QueueView]) -> tuple[QueueOut, ...]:
    """Render queues."""
    return tuple(
        QueueOut(
            stream=view.stream,
            pool=view.pool,
            priority=view.priority,
            waiting=view.waiting,
            lanes=view.lanes,
            drain_rate=round(view.rate, 3),
            predicted_wait_s=None if view.predicted_s is None else round(view.predicted_s, 3),
            workers=view.workers,
            slots=view.slots,
        )
        for view in views
    )


def _service(name: str, seen: Sequence[Seen]) -> ServiceOut:
    return ServiceOut(
        service=name,
        versions=tuple(sorted({each.beat.version for each in seen if each.silent_s <= SILENCE_S})),
        replicas=tuple(
            ReplicaOut(
                replica=beat.replica,
                state="alive" if silent_s <= SILENCE_S else "silent",
                version=beat.version,
                up_s=beat.up_s,
                load=beat.load,
                slots=beat.slots,
                silent_s=round(silent_s, 1),
                clock_skew_ms=skew_ms,
            )
            for beat, silent_s, skew_ms in seen
        ),
    )
