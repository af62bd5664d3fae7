"""What is wrong with NATS and its streams. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from kitemesh_cli.doctor_facts import BusFacts, Facts
from kitemesh_cli.doctor_judgements import Finding, Judgement, Untold, doubted, failed
from kitemesh_contracts.topology import DEAD, OUT, StreamSpec
from kitemesh_runtime.topology_plan import consumer_config, differences, stream_config

BOOTSTRAP: Final = "run `kitemesh bootstrap` with this release and this catalog"
FULL_RATIO: Final = 0.85
DISK_FREE_LEAST_RATIO: Final = 0.05
_NS: Final = 1_000_000_000
_TIMES: Final = frozenset({"max_age", "ack_wait", "duplicate_window"})


def reachable(facts: Facts) -> Judgement:
    """Judge whether NATS answers."""
    bus = facts.bus
    if bus.reach != "unreachable":
        return ()
    return (
        failed(
            bus.address,
            bus.why,
            "start it, or correct KITEMESH_NATS_URL; look whether a network policy or firewall is in between",
        ),
    )


def known(facts: Facts) -> Judgement:
    """Judge whether NATS lets the operator in."""
    bus = facts.bus
    if bus.reach == "unreachable":
        return Untold("NATS does not answer")
    if bus.reach != "refused":
        return ()
    return (
        failed(
            bus.address,
            f"NATS refuses what KITEMESH_NATS_URL signs in with: {bus.why}",
            "use the variables of operator.env from `kitemesh bootstrap --access DIR`, and let the server include and"
            " reload nats-users.conf",
        ),
    )


def jetstream(facts: Facts) -> Judgement:
    """Judge whether JetStream is on."""
    bus = facts.bus
    if bus.reach:
        return Untold("nobody could sign in to NATS")
    if bus.jetstream:
        return ()
    return (
        failed(
            bus.address, f"JetStream does not answer: {bus.why}", "switch JetStream on, with a store_dir and limits"
        ),
    )


def leaders(facts: Facts) -> Judgement:
    """Judge whether every stream and consumer has a leader."""
    return _untold(facts.bus) or [
        failed(each, "no server of the NATS cluster leads it", "start the NATS servers that are down; two of three do")
        for each in facts.bus.leaderless
    ]


def streams(facts: Facts) -> Judgement:
    """Judge whether every stream is there."""
    return _untold(facts.bus) or [failed(spec.name, "the stream does not exist", BOOTSTRAP) for spec in _absent(facts)]


def consumers(facts: Facts) -> Judgement:
    """Judge whether every consumer of the streams that are there is there, too."""
    return _untold(facts.bus) or [
        failed(
            f"{spec.name}/{consumer.name}",
            f"the consumer does not exist: nobody is given what comes to {consumer.filter_subject}",
            BOOTSTRAP,
        )
        for spec in facts.wanted
        if spec.name in facts.bus.streams and spec.name not in facts.bus.leaderless
        for consumer in spec.consumers
        if consumer.name not in facts.bus.streams[spec.name].consumers
    ]


def configuration(facts: Facts) -> Judgement:
    """Judge whether streams and consumers are configured as this release needs them."""
    return _untold(facts.bus) or list(_differing(facts))


def storage(facts: Facts) -> Judgement:
    """Judge whether messages have room."""
    bus = facts.bus
    if missing := _untold(bus):
        return missing
    found: list[Finding] = []
    bound = bus.storage_max_bytes
    if bound and bus.storage_bytes > FULL_RATIO * bound:
        found.append(
            failed(
                "JetStream",
                f"{bus.storage_bytes / bound:.0%} of the storage of NATS is used, {bus.storage_bytes:,} bytes",
                "give it more, or find out with `kitemesh status` what waits and why nobody takes it",
            )
        )
    for spec in facts.wanted:
        stream = bus.streams.get(spec.name)
        most = 0 if stream is None else int(stream.config.get("max_msgs", -1))
        if stream is not None and spec.discard == "new" and 0 < FULL_RATIO * most < stream.messages:
            found.append(
                doubted(
                    spec.name,
                    f"{stream.messages:,} of {most:,} turns that may wait do: soon more are refused with 429",
                    "start further orchestrators and model-runners, or raise KITEMESH_TURN_QUEUE_MAX and bootstrap",
                )
            )
    if facts.disk_free_ratio is not None and facts.disk_free_ratio < DISK_FREE_LEAST_RATIO:
        found.append(
            failed("disk", f"{facts.disk_free_ratio:.1%} of the data folder's disk is free", "make room on that disk")
        )
    return found


def dead_letters(facts: Facts) -> Judgement:
    """Judge whether messages were given up."""
    if missing := _untold(facts.bus):
        return missing
    if not facts.bus.dead:
        return ()
    return (
        doubted(
            DEAD,
            f"{facts.bus.dead} dead letter{'' if facts.bus.dead == 1 else 's'}: messages that nobody could handle",
            "`kitemesh dead list` shows them; requeue each when its cause is gone, or drop it",
        ),
    )


def _untold(bus: BusFacts) -> Untold | None:
    if bus.reach:
        return Untold("nobody could sign in to NATS")
    return None if bus.jetstream else Untold("JetStream does not answer")


def _absent(facts: Facts) -> Iterator[StreamSpec]:
    for spec in facts.wanted:
        if spec.name not in facts.bus.streams and spec.name not in facts.bus.leaderless:
            yield spec


def _differing(facts: Facts) -> Iterator[Finding]:
    for spec in facts.wanted:
        stream = facts.bus.streams.get(spec.name)
        if stream is None:
            continue
        wanted = stream_config(spec, facts.replicas or 1)
        if facts.replicas is None:
            del wanted["num_replicas"]
        if facts.turn_queue_max is None and spec.discard == "new":
            del wanted["max_msgs"]
        if facts.out_max_bytes is None and spec.name == OUT:
            del wanted["max_bytes"]
        if set(stream.config.get("subjects", ())) == set(spec.subjects):
            wanted["subjects"] = stream.config["subjects"]
        yield from _named(spec.name, stream.config, wanted)
        for consumer in spec.consumers:
            found = stream.consumers.get(consumer.name)
            if found is not None:
                yield from _named(f"{spec.name}/{consumer.name}", found.config, consumer_config(consumer))


def _named(about: str, current: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[Finding]:
    for field in differences(dict(current), dict(wanted)):
        is_, ought = _shown(field, current.get(field, "not set")), _shown(field, wanted[field])
        yield failed(about, f"{field} is {is_}, this release needs {ought}", BOOTSTRAP)


def _shown(field: str, value: Any) -> str:
    if field in _TIMES and isinstance(value, int):
        return f"{value / _NS:g} s"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
