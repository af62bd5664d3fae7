"""Gathers what `kitemesh doctor` judges of NATS: streams, consumers, room, dead letters, and signs of life."""

import asyncio
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from kitemesh_cli.doctor_facts import BusFacts, ConsumerFact, FleetFacts, Heard, Reach, StreamFact
from kitemesh_contracts.errors import Bug, KitemeshError, Unavailable
from kitemesh_contracts.subjects import DEAD_ALL
from kitemesh_contracts.topology import DEAD, MODEL, TOOL, StreamSpec
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.bus_nats import open_bus
from kitemesh_runtime.clock import SystemClock
from kitemesh_runtime.fleet import Fleet
from kitemesh_runtime.jetstream_nats import Refused, ask
from kitemesh_runtime.masking import mask_url
from kitemesh_runtime.one_line import one_line
from kitemesh_runtime.settings import Settings

CONNECT_S: Final = 1.5
ASK_S: Final = 2.0
LOOK_S: Final = 5.0
"""For all questions together, however slow each answer is."""


class _Leader(Struct, frozen=True, kw_only=True):
    leader: str = ""


class _State(Struct, frozen=True, kw_only=True):
    messages: int = 0
    subjects: dict[str, int] | None = None


class _Stream(Struct, frozen=True, kw_only=True):
    config: dict[str, Any]
    state: _State = _State()
    cluster: _Leader | None = None
    ts: str = ""


class _Streams(Struct, frozen=True, kw_only=True):
    total: int = 0
    streams: list[_Stream] | None = None
    missing: list[str] | None = None


class _Consumer(Struct, frozen=True, kw_only=True):
    name: str
    config: dict[str, Any]
    num_pending: int = 0


class _Consumers(Struct, frozen=True, kw_only=True):
    total: int = 0
    consumers: list[_Consumer] | None = None
    missing: list[str] | None = None


class _Limits(Struct, frozen=True, kw_only=True):
    max_storage: int = -1


class _Account(Struct, frozen=True, kw_only=True):
    storage: int = 0
    limits: _Limits = _Limits()


_STREAMS: Final = msgspec.json.Decoder(_Streams)
_STREAM: Final = msgspec.json.Decoder(_Stream)
_CONSUMERS: Final = msgspec.json.Decoder(_Consumers)
_ACCOUNT: Final = msgspec.json.Decoder(_Account)


async def look_at_bus(
    settings: Settings, wanted: tuple[StreamSpec, ...], *, listen_s: float
) -> tuple[BusFacts, FleetFacts | None]:
    """Ask NATS, and listen for signs of life meanwhile; nobody is heard where nobody could sign in."""
    url = settings.nats_url.get_secret_value()
    address = mask_url(url)
    try:
        async with open_bus(url, name="kitemesh-doctor", connect_timeout_s=CONNECT_S) as bus:
            return await asyncio.gather(_look(bus, address, wanted), _listen(bus, wanted, listen_s))
    except Unavailable as exc:
        return BusFacts(address=address, reach=reach_of(exc), why=one_line(exc.message)), None


def reach_of(error: Unavailable) -> Reach:
    """Tell why no connection was made: NATS says itself that it refuses somebody, in words alone."""
    return "refused" if "authorization" in error.message.lower() else "unreachable"


async def _look(bus: Bus, address: str, wanted: tuple[StreamSpec, ...]) -> BusFacts:
    try:
        async with asyncio.timeout(LOOK_S):
            return await _ask_all(bus, address, wanted)
    except Bug as exc:
        # It is known, and may not ask: it is no operator.
        return BusFacts(address=address, reach="refused", why=one_line(exc.message))
    except (Unavailable, Refused) as exc:
        return BusFacts(address=address, jetstream=False, why=one_line(exc.message))
    except TimeoutError:
        return BusFacts(address=address, jetstream=False, why=f"its answers took longer than {LOOK_S:.0f} s")


async def _ask_all(bus: Bus, address: str, wanted: tuple[StreamSpec, ...]) -> BusFacts:
    began_s = time.time()
    streams, leaderless, told = await _streams(bus)
    skew_ms = _skew_ms(told, (began_s + time.time()) / 2)
    account = await ask(bus, "INFO", {}, _ACCOUNT, timeout_s=ASK_S)
    names = [spec.name for spec in wanted if spec.name in streams]
    consumers = await asyncio.gather(*(_consumers(bus, name) for name in names))
    dead = await _dead(bus) if DEAD in streams else 0
    found = dict(zip(names, consumers, strict=True))
    bound = account.limits.max_storage
    return BusFacts(
        address=address,
        streams={
            name: StreamFact(
                config=stream.config,
                messages=stream.state.messages,
                consumers=found[name][0] if name in found else {},
            )
            for name, stream in streams.items()
        },
        leaderless=[*leaderless, *(each for _, missing in found.values() for each in missing)],
        storage_bytes=account.storage,
        storage_max_bytes=bound if bound > 0 else None,
        dead=dead,
        skew_ms=skew_ms,
    )


async def _streams(bus: Bus) -> tuple[dict[str, _Stream], list[str], str]:
    """Return the streams by name, those that nobody leads, and the server's time where there is a stream."""
    found: dict[str, _Stream] = {}
    leaderless: list[str] = []
    while True:
        page = await ask(bus, "STREAM.LIST", {"offset": len(found)}, _STREAMS, timeout_s=ASK_S)
        leaderless += page.missing or ()
        found |= {each.config["name"]: each for each in page.streams or ()}
        if not page.streams or len(found) >= page.total:
            break
    leaderless += [name for name, each in found.items() if each.cluster is not None and not each.cluster.leader]
    return found, list(dict.fromkeys(leaderless)), next((each.ts for each in found.values()), "")


async def _consumers(bus: Bus, stream: str) -> tuple[Mapping[str, ConsumerFact], list[str]]:
    found: dict[str, ConsumerFact] = {}
    missing: list[str] = []
    while True:
        page = await ask(bus, f"CONSUMER.LIST.{stream}", {"offset": len(found)}, _CONSUMERS, timeout_s=ASK_S)
        missing += [f"{stream}/{each}" for each in page.missing or ()]
        found |= {
            each.name: ConsumerFact(config=each.config, pending=each.num_pending) for each in page.consumers or ()
        }
        if not page.consumers or len(found) >= page.total:
            return found, missing


async def _dead(bus: Bus) -> int:
    """Count the dead letters; a stream also has what the server said of them, which nobody waits for."""
    found = await ask(bus, f"STREAM.INFO.{DEAD}", {"subjects_filter": DEAD_ALL}, _STREAM, timeout_s=ASK_S)
    return sum((found.state.subjects or {}).values())


async def _listen(bus: Bus, wanted: tuple[StreamSpec, ...], listen_s: float) -> FleetFacts | None:
    fleet = Fleet(SystemClock())
    try:
        await fleet.listen(bus)
        await asyncio.sleep(listen_s)
    except KitemeshError:
        return None
    waits: dict[tuple[str, str], float] = {}
    for spec in wanted:
        pools = {consumer.filter_subject.split(".")[3] for consumer in spec.consumers if spec.name in (MODEL, TOOL)}
        for pool in pools or {""}:
            predicted_s = fleet.predicted_wait_s(spec.name, pool)
            if predicted_s is not None:
                waits[spec.name, pool] = predicted_s
    heard = [Heard(each.beat, each.silent_s, each.skew_ms) for each in fleet.seen()]
    return FleetFacts(listened_s=listen_s, heard=heard, waits=waits)


def _skew_ms(told: str, asked_s: float) -> float | None:
    if not told:
        return None
    return round((datetime.fromisoformat(told).timestamp() - asked_s) * 1000)
