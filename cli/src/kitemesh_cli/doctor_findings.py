"""What is wrong, judged from facts alone, check by check. Pure: it asks nobody and knows no clock."""

from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple

from kitemesh_cli import doctor_bus_findings as bus
from kitemesh_cli import doctor_fleet_findings as fleet
from kitemesh_cli import doctor_store_findings as store
from kitemesh_cli.doctor_facts import Facts
from kitemesh_cli.doctor_judgements import Finding, Judgement, Untold

Level = Literal["ok", "warn", "fail", "untold"]


class Check(NamedTuple):
    """One thing that is looked at.

    Attributes:
        well: What is said of it when nothing is wrong.

    """

    id: str
    well: str
    judge: Callable[[Facts], Judgement]


class Verdict(NamedTuple):
    """What became of a check.

    Attributes:
        note: What is well, or why it cannot be told.

    """

    check: str
    level: Level
    findings: Sequence[Finding]
    note: str


CHECKS: Final = (
    Check("nats.reachable", "NATS answers", bus.reachable),
    Check("nats.user", "NATS knows the operator", bus.known),
    Check("nats.jetstream", "JetStream is on", bus.jetstream),
    Check("nats.leaders", "every stream and consumer has a leader", bus.leaders),
    Check("nats.streams", "every stream is there", bus.streams),
    Check("nats.consumers", "every consumer is there", bus.consumers),
    Check("nats.configuration", "streams and consumers are as this release needs them", bus.configuration),
    Check("nats.storage", "there is room for messages", bus.storage),
    Check("mongodb.reachable", "MongoDB answers", store.reachable),
    Check("mongodb.user", "MongoDB knows the operator", store.known),
    Check("mongodb.primary", "a primary takes writes", store.primary),
    Check("mongodb.replica-set", "its data has copies, or is one machine's own", store.replica_set),
    Check("mongodb.indexes", "every index is there", store.indexes),
    Check("access.nats", "each service may do on NATS what it needs", fleet.bus_access),
    Check("access.mongodb", "each service may do in MongoDB what it needs", fleet.store_access),
    Check("pepper", "the secret under which keys are digested is set", store.pepper),
    Check("catalog", "the catalog can be used", store.catalog),
    Check("services.present", "every service has a replica", fleet.present),
    Check("services.silent", "every replica goes on giving signs of life", fleet.silent),
    Check("services.versions", "all run this release", fleet.versions),
    Check("services.clocks", "clocks agree within a second", fleet.clocks),
    Check("queues.attended", "somebody takes from every queue in which something waits", fleet.attended),
    Check("queues.wait", "nothing waits long", fleet.waits),
    Check("dead-letters", "no dead letter waits", bus.dead_letters),
    Check("upstreams", "every upstream is well", fleet.upstreams),
    Check("gateway", "the gateway answers", fleet.gateway),
    Check("usage", "usage is counted", store.usage),
)


def judge(facts: Facts) -> list[Verdict]:
    """Judge every check, in the order in which a person would look."""
    return [_verdict(check, check.judge(facts)) for check in CHECKS]


def is_well(verdicts: Sequence[Verdict]) -> bool:
    """Tell whether nothing failed; a warning is none, and what cannot be told follows from something that did."""
    return all(each.level != "fail" for each in verdicts)


def _verdict(check: Check, judgement: Judgement) -> Verdict:
    if isinstance(judgement, Untold):
        return Verdict(check.id, "untold", (), judgement.why)
    if not judgement:
        return Verdict(check.id, "ok", (), check.well)
    level: Level = "fail" if any(each.level == "fail" for each in judgement) else "warn"
    return Verdict(check.id, level, tuple(judgement), "")
