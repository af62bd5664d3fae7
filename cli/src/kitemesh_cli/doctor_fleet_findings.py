"""What is wrong with the services: who is there, what they may do, and what waits for them. Pure."""

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Final

from kitemesh_cli.doctor_facts import Facts, FleetFacts, Heard, Reach
from kitemesh_cli.doctor_judgements import Finding, Judgement, Untold, doubted, failed
from kitemesh_contracts.permissions import SERVICES, ServiceName
from kitemesh_contracts.topology import MODEL, TOOL

SKEW_MOST_MS: Final = 1000
SILENCE_MOST_S: Final = 3.5
WAIT_MOST_S: Final = 60.0
BOOTSTRAP_ACCESS: Final = (
    "run `kitemesh bootstrap --access DIR`, reload nats-server, and start the service with DIR's variables"
)
ADDRESS: Final = "correct the URL in its variables, or look whether a network policy is in between"
_NOBODY_SAID: Final = Untold(
    "--access DIR names the folder of `kitemesh bootstrap --access`, with the services' variables"
)
_UNHEARD: Final = Untold("no signs of life can be heard without NATS")
_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
_WELL: Final = 200
_WORKERS: Final = {MODEL: "model-runner", TOOL: "tool-executor"}


def bus_access(facts: Facts) -> Judgement:
    """Judge what each service may do on NATS."""
    return _access(
        facts, "NATS", facts.bus.reach, [(each.service, each.bus, each.denied) for each in facts.access or ()]
    )


def store_access(facts: Facts) -> Judgement:
    """Judge what each service may do in MongoDB."""
    tried = [(each.service, each.store, each.lacking) for each in facts.access or ()]
    return _access(facts, "MongoDB", facts.store.reach, tried)


def present(facts: Facts) -> Judgement:
    """Judge whether every service, and every pool of the catalog, has a replica."""
    if facts.fleet is None:
        return _UNHEARD
    heard = facts.fleet.heard
    there = {each.beat.service for each in heard}
    found = [
        failed(service, "no replica gives signs of life", f"start {service}s, and look at the logs of those that ended")
        for service in SERVICES
        if service not in there and not (service == "tool-executor" and not facts.catalog.tool_pools)
    ]
    pools = ((MODEL, facts.catalog.model_pools), (TOOL, facts.catalog.tool_pools))
    return [
        *found,
        *(
            failed(
                f"{_WORKERS[stream]}/{pool}",
                f"no {_WORKERS[stream]} takes from pool {pool}, which the catalog names",
                f"start one with KITEMESH_POOL={pool}",
            )
            for stream, names in pools
            for pool in names
            if _WORKERS[stream] in there and not _takes(heard, stream, pool)
        ),
    ]


def silent(facts: Facts) -> Judgement:
    """Judge whether a replica stopped giving signs of life while it was listened to."""
    if facts.fleet is None:
        return _UNHEARD
    return [
        doubted(
            f"{each.beat.service}/{each.beat.replica}",
            f"its last sign of life was {each.silent_s:.1f} s ago, and one is due every 2 s",
            "it ended, froze or was cut off just now: look at its log",
        )
        for each in facts.fleet.heard
        if each.silent_s > SILENCE_MOST_S
    ]


def versions(facts: Facts) -> Judgement:
    """Judge whether all replicas run the release that this command is of."""
    if facts.fleet is None:
        return _UNHEARD
    return [
        doubted(
            f"{each.beat.service}/{each.beat.replica}",
            f"it runs {each.beat.version}, this command is {facts.release}",
            "finish the upgrade or roll it back; during a rollout this is as it should be",
        )
        for each in facts.fleet.heard
        if each.beat.version != facts.release
    ]


def clocks(facts: Facts) -> Judgement:
    """Judge whether clocks agree: each against the middle one of all, this machine's among them."""
    if facts.fleet is None and facts.store.skew_ms is None:
        return Untold("no other clock could be asked")
    skews: dict[str, float] = {"this machine": 0.0}
    named = {"NATS": facts.bus.skew_ms, "MongoDB": facts.store.skew_ms}
    heard = () if facts.fleet is None else facts.fleet.heard
    named |= {f"{each.beat.service}/{each.beat.replica}": each.skew_ms for each in heard}
    skews |= {name: skew for name, skew in named.items() if skew is not None}
    middle = median(skews.values())
    return [
        doubted(
            name,
            f"its clock is {abs(skew - middle) / 1000:.1f} s {'ahead of' if skew > middle else 'behind'} the others",
            "let the machine keep time by NTP; times that people see, budgets and lifetimes of keys go by it",
        )
        for name, skew in skews.items()
        if abs(skew - middle) > SKEW_MOST_MS
    ]


def attended(facts: Facts) -> Judgement:
    """Judge whether somebody takes from each queue in which something waits."""
    if facts.fleet is None:
        return _UNHEARD
    return list(_unattended(facts, facts.fleet))


def waits(facts: Facts) -> Judgement:
    """Judge how long what comes now will wait."""
    if facts.fleet is None:
        return _UNHEARD
    return [
        doubted(
            f"{stream}/{pool}" if pool else stream,
            f"what comes now waits {wait_s:.0f} s",
            "start further replicas of those who take from it, or find out why they are slow",
        )
        for (stream, pool), wait_s in facts.fleet.waits.items()
        if wait_s > WAIT_MOST_S
    ]


def upstreams(facts: Facts) -> Judgement:
    """Judge how the model-runners see the models' upstreams."""
    if facts.fleet is None:
        return _UNHEARD
    worst: dict[str, str] = {}
    for each in facts.fleet.heard:
        for model, health in each.beat.health.items():
            if worst.get(model) != "down":
                worst[model] = health
    return [
        doubted(
            model, f"its upstream is {health}", "look at the provider, its address and its key; see docs/upstreams.md"
        )
        for model, health in sorted(worst.items())
    ]


def gateway(facts: Facts) -> Judgement:
    """Judge whether a client would be answered."""
    asked = facts.gateway
    if asked.status == _WELL:
        return ()
    if not asked.status:
        problem, advice = f"it does not answer: {asked.why}", "start it, or name another in KITEMESH_URL"
    elif asked.status in (_UNAUTHORIZED, _FORBIDDEN):
        problem, advice = f"it refuses the key: {asked.why}", "set KITEMESH_KEY to a key that is in force"
    else:
        problem, advice = f"it answers {asked.status}: {asked.why}", "look at its log under the answer's request id"
    return (failed(asked.url, problem, advice),)


def _access(
    facts: Facts, server: str, own: Reach, tried: Sequence[tuple[ServiceName, Reach, Sequence[str]]]
) -> Judgement:
    if facts.access is None:
        return _NOBODY_SAID
    if own == "unreachable" and all(reach == "unreachable" for _, reach, _ in tried):
        return Untold(f"{server} does not answer")
    found: list[Finding] = []
    for service, reach, lacking in tried:
        if reach == "refused":
            found.append(failed(service, f"{server} refuses its user", BOOTSTRAP_ACCESS))
        elif reach:
            found.append(failed(service, f"{server} does not answer at the address that it is told", ADDRESS))
        found += [failed(service, f"{server} does not let it {what}", BOOTSTRAP_ACCESS) for what in lacking]
    return found


def _takes(heard: Sequence[Heard], stream: str, pool: str) -> bool:
    return any(queue.stream == stream and queue.pool == pool for each in heard for queue in each.beat.queues)


def _unattended(facts: Facts, fleet: FleetFacts) -> Iterator[Finding]:
    for spec in facts.wanted:
        stream = facts.bus.streams.get(spec.name)
        for consumer in spec.consumers if stream is not None else ():
            fact = stream.consumers.get(consumer.name) if stream is not None else None
            if fact is None or not fact.pending:
                continue
            # The pool is the third word of km.v1.model.<pool>.…; streams without pools are the orchestrators'.
            pool = consumer.filter_subject.split(".")[3] if spec.name in _WORKERS else ""
            worker = _WORKERS.get(spec.name, "orchestrator")
            is_taken = (
                _takes(fleet.heard, spec.name, pool)
                if pool
                else any(each.beat.service == worker for each in fleet.heard)
            )
            if not is_taken:
                yield failed(
                    f"{spec.name}/{consumer.name}",
                    f"{fact.pending:,} messages wait, and nobody takes them",
                    f"start a {worker}" + (f" with KITEMESH_POOL={pool}" if pool else ""),
                )
