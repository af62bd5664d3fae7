"""What `kitemesh doctor` looks at, as data: gathered by the probes, judged by `doctor_findings`."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from msgspec import Struct

from kitemesh_contracts.beats import Beat
from kitemesh_contracts.permissions import ServiceName
from kitemesh_contracts.topology import StreamSpec

Reach = Literal["", "unreachable", "refused"]
"""Empty: it answers. `refused`: it answers, and does not know who asks."""


class ConsumerFact(Struct, frozen=True, kw_only=True):
    """A consumer as the server has it; `pending` messages were delivered to nobody so far."""

    config: Mapping[str, Any]
    pending: int = 0


class StreamFact(Struct, frozen=True, kw_only=True):
    """A stream as the server has it."""

    config: Mapping[str, Any]
    messages: int = 0
    consumers: Mapping[str, ConsumerFact] = {}


class BusFacts(Struct, frozen=True, kw_only=True):
    """NATS, as the operator's user sees it.

    Attributes:
        why: What was said where something did not answer.
        jetstream: Whether streams can be asked for.
        leaderless: Streams and consumers of which no server of the cluster can tell the state.
        storage_bytes: Used on disk by all streams; of `storage_max_bytes`, where there is a bound.
        dead: Dead letters that wait for an operator.
        skew_ms: The server's clock less this machine's; `None` when it did not say.

    """

    address: str
    reach: Reach = ""
    why: str = ""
    jetstream: bool = True
    streams: Mapping[str, StreamFact] = {}
    leaderless: Sequence[str] = ()
    storage_bytes: int = 0
    storage_max_bytes: int | None = None
    dead: int = 0
    skew_ms: float | None = None


class StoreFacts(Struct, frozen=True, kw_only=True):
    """MongoDB, as the operator's user sees it.

    Attributes:
        primary: Whether there is a server that takes writes.
        replica_set: Its name; empty for a server that stands alone.
        loopback: It is on this machine, and nobody else's.
        missing: Indexes that are not there, as `collection.name`; `differing` ones index something else.
        usage_lag_s: How far behind the count of usage is; `None` when nothing was ever counted.
        skew_ms: The server's clock less this machine's; `None` when it did not say.

    """

    address: str
    reach: Reach = ""
    why: str = ""
    primary: bool = True
    replica_set: str = ""
    loopback: bool = False
    missing: Sequence[str] = ()
    differing: Sequence[str] = ()
    usage_lag_s: float | None = None
    skew_ms: float | None = None


class AccessFacts(Struct, frozen=True, kw_only=True):
    """What one service may do with the variables that it is told.

    Attributes:
        denied: What NATS does not let it do and this release needs.
        lacking: What MongoDB does not let it do and this release needs, as `action on collection`.

    """

    service: ServiceName
    bus: Reach = ""
    denied: Sequence[str] = ()
    store: Reach = ""
    lacking: Sequence[str] = ()


class Heard(NamedTuple):
    """A replica that was heard.

    Attributes:
        silent_s: Since its last sign of life.
        skew_ms: Its clock less this machine's; `None` for a release that does not say.

    """

    beat: Beat
    silent_s: float
    skew_ms: float | None


class FleetFacts(Struct, frozen=True, kw_only=True):
    """Signs of life, as they were heard for some seconds; `waits` are predictions by stream and pool."""

    listened_s: float
    heard: Sequence[Heard] = ()
    waits: Mapping[tuple[str, str], float] = {}


class GatewayFacts(Struct, frozen=True, kw_only=True):
    """What a gateway answers to whoever has this key; `status` is 0 without an answer."""

    url: str
    status: int = 0
    why: str = ""


class CatalogFacts(Struct, frozen=True, kw_only=True):
    """The catalog file.

    Attributes:
        problems: Its mistakes; the rest is empty when there are any.
        model_pools: Which pools of model-runners it needs.
        tool_pools: Which pools of tool-executors it needs; none when it has no tools.

    """

    path: str
    problems: Sequence[str] = ()
    model_pools: Sequence[str] = ()
    tool_pools: Sequence[str] = ()


class Facts(Struct, frozen=True, kw_only=True):
    """Everything.

    Attributes:
        release: Of this command.
        wanted: Streams and consumers that this release needs; without pools' when the catalog is unreadable.
        replicas: Copies of each stream; `None` when nobody said how many there are to be.
        turn_queue_max: Turns that may wait; `None` when nobody said how many.
        out_max_bytes: Memory for captured deltas; `None` when nobody said how much.
        access: `None` when nobody said where the services' variables are.
        fleet: `None` when NATS does not answer.
        pepper_characters: Of the secret under which keys are digested.
        disk_free_ratio: Of the disk that the data folder is on; `None` when no cluster runs from it.

    """

    release: str
    wanted: Sequence[StreamSpec]
    replicas: int | None
    turn_queue_max: int | None
    out_max_bytes: int | None
    bus: BusFacts
    store: StoreFacts
    fleet: FleetFacts | None
    gateway: GatewayFacts
    catalog: CatalogFacts
    pepper_characters: int
    access: Sequence[AccessFacts] | None = None
    disk_free_ratio: float | None = None
