"""What each service may say and hear on the bus, as data: whatever is not listed here the server refuses.

A service is one user, whichever of its replicas it is, and only its own user can hear its inbox. Questions to other
services are answered on a part of it that those who answer may write to, so that nobody can forge what a stream
answers. It knows neither passwords nor how a server is told.
"""

from collections.abc import Iterable
from typing import Final, Literal, NamedTuple, get_args

from kitemesh_contracts import topology
from kitemesh_contracts.subjects import ASK_CANCEL_ALL, BEAT_ALL, CANCEL_ALL, KEY_ALL, ROOT, TENANT_ALL, beats_of
from kitemesh_contracts.topology import CONTROL, DEAD, EVENT, FEED, MODEL, OUT, TIMER, TOOL, TURN

ServiceName = Literal["gateway", "orchestrator", "model-runner", "tool-executor"]

SERVICES: Final[tuple[ServiceName, ...]] = get_args(ServiceName)
OPERATOR: Final = "operator"
"""The user of `kitemesh bootstrap` and the other verbs, which may do everything."""

INBOX: Final = "_INBOX"
ANSWERS: Final = "ask"
"""What follows an inbox's beginning where other services answer; no other token of an inbox is this word."""

_API: Final = "$JS.API"
_CTL_ALL: Final = f"{ROOT}.ctl.>"
_LIVE_ALL: Final = f"{ROOT}.live.*.*.*.*"
_POOLS: Final = tuple(f"{_API}.CONSUMER.NAMES.{stream}" for stream in (MODEL, TOOL))
"""To look whether the pools of a changed catalog have queues."""


class BusRights(NamedTuple):
    """What one user may do; every entry may hold wildcards."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def inbox_prefix(service: str) -> str:
    """Return where the inboxes of a service begin."""
    return f"{INBOX}.{service}"


def bus_rights(service: ServiceName) -> BusRights:
    """List what a service may do on the bus."""
    own = f"{inbox_prefix(service)}.>"
    publish, subscribe = _RIGHTS[service]
    return BusRights((*publish, *_POOLS, f"{ROOT}.beat.{service}.*", own), (*subscribe, own))


def _direct(*streams: str) -> tuple[str, ...]:
    return tuple(f"{_API}.DIRECT.GET.{stream}" for stream in streams)


def _takes(stream: str, consumers: Iterable[str] = ("*",)) -> tuple[str, ...]:
    """List what it takes to work on a stream: to ask for messages, to look how many wait, and to answer for them."""
    return tuple(
        subject
        for consumer in consumers
        for subject in (
            f"{_API}.CONSUMER.MSG.NEXT.{stream}.{consumer}",
            f"{_API}.CONSUMER.INFO.{stream}.{consumer}",
            f"$JS.ACK.{stream}.{consumer}.>",
        )
    )


def _takes_all(*streams: str) -> tuple[str, ...]:
    return tuple(
        subject
        for spec in topology.topology()
        if spec.name in streams
        for subject in _takes(spec.name, (consumer.name for consumer in spec.consumers))
    )


def _looks(*streams: str) -> tuple[str, ...]:
    """List what it takes to see which messages a stream has; it tells nothing of what is in them."""
    return tuple(f"{_API}.STREAM.INFO.{stream}" for stream in streams)


def _measures(*streams: str) -> tuple[str, ...]:
    """List what it takes to see how much the queues of streams hold."""
    return tuple(f"{_API}.CONSUMER.LIST.{stream}" for stream in streams)


def _counts(*streams: str) -> tuple[str, ...]:
    """List what it takes to see how much waits for whom; it tells nothing of what is in it."""
    return tuple(f"{_API}.CONSUMER.INFO.{stream}.*" for stream in streams)


def _buries(*streams: str) -> tuple[str, ...]:
    """List what it takes to move what nobody could handle."""
    return tuple(f"{_API}.STREAM.MSG.{verb}.{stream}" for verb in ("GET", "DELETE") for stream in streams)


def _restores(*streams: str) -> tuple[str, ...]:
    """List what it takes to make streams again that the server lost with its memory."""
    made = tuple(
        f"{_API}.{verb}.{stream}" for verb in ("STREAM.INFO", "STREAM.CREATE", "CONSUMER.LIST") for stream in streams
    )
    return (f"{_API}.STREAM.LIST", *made)


_WORK: Final = (TURN, CONTROL, EVENT, MODEL, TOOL)
_IN_MEMORY: Final = tuple(spec.name for spec in topology.topology() if spec.storage == "memory")

_GATEWAY: Final = BusRights(
    publish=(
        f"{ROOT}.turn.start.*",
        f"{ROOT}.control.start.*",
        f"{ROOT}.control.decide.*",
        f"{ROOT}.control.cancel.*",
        # The end of a turn whose conversation was deleted.
        f"{ROOT}.live.*.*.0.0",
        f"{ROOT}.feed.*.turn.accepted.*",
        f"{ROOT}.feed.*.feed.mark.*",
        CANCEL_ALL,
        KEY_ALL,
        TENANT_ALL,
        ASK_CANCEL_ALL,
        f"{inbox_prefix('orchestrator')}.{ANSWERS}.>",
        *_direct(OUT, FEED),
        *_looks(*_WORK, DEAD),
        *_counts(*_WORK),
        # Of what was given up, references are all that is kept.
        *_buries(DEAD),
    ),
    subscribe=(
        f"{ROOT}.live.>",
        f"{ROOT}.out.>",
        f"{ROOT}.feed.>",
        _CTL_ALL,
        ASK_CANCEL_ALL,
        BEAT_ALL,
    ),
)

_ORCHESTRATOR: Final = BusRights(
    publish=(
        f"{ROOT}.control.start.*",
        f"{ROOT}.control.decide.*",
        f"{ROOT}.model.*.*.*.*",
        f"{ROOT}.tool.*.*.*.*",
        f"{ROOT}.timer.at.*.*",
        f"{ROOT}.dead.*.*",
        _LIVE_ALL,
        f"{ROOT}.feed.*.turn.*.*",
        f"{ROOT}.feed.*.approval.*.*",
        CANCEL_ALL,
        ASK_CANCEL_ALL,
        *_takes_all(TURN, CONTROL, EVENT, TIMER, DEAD),
        *_looks(*_WORK, DEAD),
        *_measures(*_WORK, TIMER, DEAD),
        topology.ACCOUNT_STATISTICS,
        *_buries(*_WORK),
        *_restores(*_IN_MEMORY),
    ),
    subscribe=(_CTL_ALL, BEAT_ALL),
)

_MODEL_RUNNER: Final = BusRights(
    publish=(
        f"{ROOT}.event.step.*.*",
        _LIVE_ALL,
        f"{ROOT}.out.*.*.*.*.*.*",
        *_takes(MODEL),
        *_direct(OUT),
    ),
    subscribe=(CANCEL_ALL, beats_of("gateway")),
)

_TOOL_EXECUTOR: Final = BusRights(
    publish=(
        f"{ROOT}.event.call.*.*",
        f"{ROOT}.event.step.released.*",
        _LIVE_ALL,
        *_takes(TOOL),
    ),
    subscribe=(CANCEL_ALL, beats_of("gateway")),
)

_RIGHTS: Final[dict[ServiceName, BusRights]] = {
    "gateway": _GATEWAY,
    "orchestrator": _ORCHESTRATOR,
    "model-runner": _MODEL_RUNNER,
    "tool-executor": _TOOL_EXECUTOR,
}
