"""What has to change on the server so that its streams and consumers are those of the topology. Pure.

It knows which differences are safe to remove and which are not: a plan with drift must not be carried out at all.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from kitemesh_contracts.topology import ConsumerSpec, StreamSpec

Config = dict[str, Any]
"""A stream's or consumer's configuration as JetStream's JSON has it. Fields that are not ours are kept."""

_NS: Final = 1_000_000_000

STREAM_FIXED: Final = ("retention", "storage")
CONSUMER_FIXED: Final = ("deliver_policy", "ack_policy", "filter_subject", "durable_name", "replay_policy")


class Found(NamedTuple):
    """A stream on the server and its consumers by name."""

    config: Config
    consumers: dict[str, Config]


class Step(NamedTuple):
    """One question to JetStream and, in words, what it changes."""

    question: str
    body: Config
    wanted: Config
    says: tuple[str, ...]


class Plan(NamedTuple):
    """What to do, what is left alone, and what stands in the way of doing anything."""

    steps: list[Step]
    notes: list[str]
    drift: list[str]


def plan(specs: Sequence[StreamSpec], found: Mapping[str, Found], *, replicas: int) -> Plan:
    """Compare the topology with what is on the server."""
    result = Plan([], [], [])
    ours = {spec.name for spec in specs}
    for spec in specs:
        for name, foreign in found.items():
            if name not in ours:
                result.drift.extend(_overlaps(spec, name, foreign.config))
        _plan_stream(spec, found.get(spec.name), replicas, result)
        existing = found[spec.name].consumers if spec.name in found else {}
        for consumer in spec.consumers:
            _plan_consumer(consumer, existing.get(consumer.name), result)
        named = {consumer.name for consumer in spec.consumers}
        result.notes.extend(
            f"left consumer {name} of stream {spec.name} alone: the topology does not name it"
            for name in sorted(existing.keys() - named)
        )
    return result


def stream_config(spec: StreamSpec, replicas: int) -> Config:
    """Return a stream's configuration as JetStream's JSON has it."""
    return {
        "name": spec.name,
        "subjects": list(spec.subjects),
        "retention": spec.retention,
        "storage": spec.storage,
        "discard": spec.discard,
        "max_msgs": spec.max_msgs,
        "max_bytes": spec.max_bytes,
        "max_age": int(spec.max_age_s * _NS),
        "duplicate_window": int(spec.duplicate_window_s * _NS),
        "allow_direct": spec.allow_direct,
        "allow_msg_schedules": spec.allow_schedules,
        "num_replicas": replicas,
    }


def consumer_config(spec: ConsumerSpec) -> Config:
    """Return a consumer's configuration as JetStream's JSON has it."""
    return {
        "name": spec.name,
        "durable_name": spec.name,
        "filter_subject": spec.filter_subject,
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "replay_policy": "instant",
        "ack_wait": int(spec.ack_wait_s * _NS),
        "max_deliver": spec.max_deliver,
        "max_ack_pending": spec.max_ack_pending,
    }


def overlap(one: str, other: str) -> bool:
    """Tell whether some subject matches both patterns."""
    left, right = one.split("."), other.split(".")
    for a, b in zip(left, right, strict=False):
        if ">" in (a, b):
            return True
        if a != b and "*" not in (a, b):
            return False
    return len(left) == len(right)


def differences(current: Config, wanted: Config) -> list[str]:
    """Name the fields of `wanted` that are different; a field that JetStream left out is off."""
    return [field for field, value in wanted.items() if current.get(field, False) != value]


def _plan_stream(spec: StreamSpec, found: Found | None, replicas: int, result: Plan) -> None:
    wanted = stream_config(spec, replicas)
    if found is None:
        result.steps.append(Step(f"STREAM.CREATE.{spec.name}", wanted, wanted, (f"created stream {spec.name}",)))
        return
    current = found.config
    what = f"stream {spec.name}"
    result.drift.extend(_fixed(what, current, wanted, STREAM_FIXED))
    extra = [subject for subject in current.get("subjects", []) if subject not in spec.subjects]
    result.drift.extend(f"{what}: subject {subject} is not in the topology" for subject in extra)
    if set(current.get("subjects", [])) == set(spec.subjects):
        wanted["subjects"] = current["subjects"]
    changed = [field for field in differences(current, wanted) if field not in STREAM_FIXED]
    if changed:
        says = tuple(_change(what, field, current, wanted) for field in changed)
        result.steps.append(Step(f"STREAM.UPDATE.{spec.name}", {**current, **wanted}, wanted, says))


def _plan_consumer(spec: ConsumerSpec, current: Config | None, result: Plan) -> None:
    wanted = consumer_config(spec)
    question = f"CONSUMER.CREATE.{spec.stream}.{spec.name}.{spec.filter_subject}"
    what = f"consumer {spec.name} of stream {spec.stream}"
    if current is None:
        body = {"stream_name": spec.stream, "config": wanted, "action": "create"}
        result.steps.append(Step(question, body, wanted, (f"created {what}",)))
        return
    if "deliver_subject" in current:
        result.drift.append(f"{what}: it is a push consumer")
    result.drift.extend(_fixed(what, current, wanted, CONSUMER_FIXED))
    changed = [field for field in differences(current, wanted) if field not in CONSUMER_FIXED]
    if changed:
        says = tuple(_change(what, field, current, wanted) for field in changed)
        body = {"stream_name": spec.stream, "config": {**current, **wanted}, "action": "update"}
        result.steps.append(Step(question, body, wanted, says))


def _fixed(what: str, current: Config, wanted: Config, fields: tuple[str, ...]) -> list[str]:
    return [
        f"{what}: {field} is {current.get(field, 'not set')}, the topology says {wanted[field]}"
        for field in fields
        if current.get(field) != wanted[field]
    ]


def _overlaps(spec: StreamSpec, name: str, config: Config) -> list[str]:
    return [
        f"stream {spec.name}: subject {ours} overlaps {theirs} of stream {name}"
        for ours in spec.subjects
        for theirs in config.get("subjects", [])
        if overlap(ours, theirs)
    ]


def _change(what: str, field: str, current: Config, wanted: Config) -> str:
    return f"changed {field} of {what} from {current.get(field, False)} to {wanted[field]}"
