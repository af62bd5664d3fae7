"""Make the server's streams and consumers those of the topology, or tell exactly why not.

Run by one bootstrap command, never by workers. What to change is decided in `topology_plan`; here it is asked and done.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from kitemesh_contracts.errors import Conflict, ErrorCode, Unavailable
from kitemesh_contracts.topology import StreamSpec
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.jetstream_nats import NOT_FOUND, Refused, ask
from kitemesh_runtime.topology_plan import Config, Found, differences, plan

BOOTSTRAP: Final = "run `kitemesh bootstrap`"


class _Info(Struct, frozen=True, kw_only=True):
    config: dict[str, Any] = {}
    name: str = ""


class _Streams(Struct, frozen=True, kw_only=True):
    total: int = 0
    streams: list[_Info] | None = None
    missing: list[str] | None = None


class _Consumers(Struct, frozen=True, kw_only=True):
    total: int = 0
    consumers: list[_Info] | None = None
    missing: list[str] | None = None


_INFO: Final = msgspec.json.Decoder(_Info)
_STREAMS: Final = msgspec.json.Decoder(_Streams)
_CONSUMERS: Final = msgspec.json.Decoder(_Consumers)


async def apply(bus: Bus, specs: Sequence[StreamSpec], *, replicas: int) -> list[str]:
    """Create what is missing, change what may be changed, and say so, a sentence for each; twice is the same as once.

    Consumers that the topology does not name are mentioned and left alone, for they may still hold work.

    Args:
        bus: The connection.
        specs: The topology.
        replicas: Of every stream: 1 on one machine, 3 in production.

    Raises:
        Conflict: Something on the server differs in a way that no update heals; the message lists every such
            difference, and nothing was changed.
        Refused: The server would not do it; what was done before stays done.
        Unavailable: JetStream does not answer.

    """
    todo = plan(specs, await _find(bus, specs), replicas=replicas)
    if todo.drift:
        listing = "\n".join(f"- {sentence}" for sentence in todo.drift)
        raise Conflict(
            ErrorCode.INTERNAL, f"The server's streams do not fit the topology; nothing was changed.\n{listing}"
        )
    done: list[str] = []
    for step in todo.steps:
        answer = await ask(bus, step.question, step.body, _INFO)
        ignored = differences(answer.config, step.wanted)
        if ignored:
            raise Conflict(
                ErrorCode.INTERNAL,
                f"The server took {step.question} without {', '.join(ignored)}; nats-server 2.12 or newer is needed.",
            )
        done.extend(step.says)
    return done + todo.notes


async def replicas_of(bus: Bus, stream: str) -> int | None:
    """Return how many copies a stream has; `None` when it does not exist.

    Raises:
        Unavailable: JetStream does not answer.

    """
    try:
        found = await ask(bus, f"STREAM.INFO.{stream}", {}, _INFO)
    except Refused as exc:
        if exc.error.code == NOT_FOUND:
            return None
        raise
    return int(found.config.get("num_replicas", 1))


async def check(bus: Bus, specs: Sequence[StreamSpec]) -> None:
    """Return if every stream and consumer is there.

    Raises:
        Unavailable: Some are missing, and the message names them; or JetStream does not answer.

    """
    wanted = {f"stream {spec.name}": f"STREAM.INFO.{spec.name}" for spec in specs}
    for spec in specs:
        for consumer in spec.consumers:
            question = f"CONSUMER.INFO.{spec.name}.{consumer.name}"
            wanted[f"consumer {consumer.name} of stream {spec.name}"] = question
    present = await asyncio.gather(*(_exists(bus, question) for question in wanted.values()))
    missing = [what for what, there in zip(wanted, present, strict=True) if not there]
    if missing:
        raise Unavailable(ErrorCode.BUS_DOWN, f"Missing on the message bus: {', '.join(missing)}; {BOOTSTRAP}.")


async def _exists(bus: Bus, question: str) -> bool:
    try:
        await ask(bus, question, {}, _INFO)
    except Refused as exc:
        if exc.error.code == NOT_FOUND:
            return False
        raise
    return True


async def _find(bus: Bus, specs: Sequence[StreamSpec]) -> dict[str, Found]:
    configs: dict[str, Config] = {}
    while True:
        page = await ask(bus, "STREAM.LIST", {"offset": len(configs)}, _STREAMS)
        _complete(page.missing)
        configs |= {info.config["name"]: info.config for info in page.streams or ()}
        if not page.streams or len(configs) >= page.total:
            break
    ours = {spec.name for spec in specs}
    return {
        name: Found(config, await _consumers(bus, name) if name in ours else {}) for name, config in configs.items()
    }


async def _consumers(bus: Bus, stream: str) -> dict[str, Config]:
    configs: dict[str, Config] = {}
    while True:
        page = await ask(bus, f"CONSUMER.LIST.{stream}", {"offset": len(configs)}, _CONSUMERS)
        _complete(page.missing)
        configs |= {info.name: info.config for info in page.consumers or ()}
        if not page.consumers or len(configs) >= page.total:
            return configs


def _complete(missing: list[str] | None) -> None:
    """Refuse to plan on half the truth: part of the cluster did not say what it has."""
    if missing:
        raise Unavailable(ErrorCode.BUS_DOWN, f"The message bus cannot tell the state of {', '.join(missing)}.")
