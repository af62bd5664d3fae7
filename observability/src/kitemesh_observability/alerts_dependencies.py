"""Alerts about what has to be there: services, NATS, MongoDB, and the processes themselves."""

from typing import Final

from kitemesh_observability.alert import Alert, grew
from kitemesh_observability.board import ours

SERVICES: Final = ("gateway", "orchestrator", "model-runner", "tool-executor")
_SERVICES: Final = f'{{service=~"{"|".join(SERVICES)}"}}'


def _absent(service: str) -> str:
    return f'label_replace(absent(kitemesh_build_info{{service="{service}"}}), "service", "{service}", "", "")'


ALERTS: Final = (
    Alert(
        "KitemeshServiceDown",
        f"up{_SERVICES} == 0",
        60,
        "ticket",
        "{{ $labels.service }} {{ $labels.instance }} does not answer",
        "A replica does not answer its health port. Others do its work; whatever it held is taken over in ten seconds.",
        "The replica's log and its exit status: 78 means a setting, anything else is in the last lines of the log.",
        "Nothing for a single one: it is started again. If it dies again and again, go back to the release before.",
    ),
    Alert(
        "KitemeshServiceAbsent",
        " or ".join(_absent(service) for service in SERVICES),
        60,
        "page",
        "no {{ $labels.service }} answers",
        "Not one replica of a service answers: turns wait or are refused until one does.",
        "Whether replicas run at all (`kitemesh status`), and if they do, whether Prometheus finds them.",
        "Start one; what waits is taken up at once. If none starts, the first line of its log names the setting or "
        "server that is wrong. A cluster that needs no such service silences this alert.",
    ),
    Alert(
        "KitemeshNatsDown",
        'kitemesh_dependency_up{dependency="nats"} == 0',
        60,
        "page",
        "{{ $labels.service }} {{ $labels.instance }} does not reach NATS",
        "Without NATS no new turn is taken; gateways answer 503.",
        "`/healthz` of the process, which says why, and NATS itself: is a majority of its servers up, is its disk "
        "full?",
        "Bring NATS back; nothing of kitemesh has to be restarted. If it lost its streams, run `kitemesh bootstrap`.",
    ),
    Alert(
        "KitemeshMongoDown",
        'kitemesh_dependency_up{dependency="mongodb"} == 0',
        60,
        "page",
        "{{ $labels.service }} {{ $labels.instance }} does not reach MongoDB",
        "Without MongoDB no new turn is taken; classic turns under way are answered, and their writes wait in memory.",
        "`/healthz` of the process, which says why, and `rs.status()`: is there a primary?",
        "Bring a majority of the members back. Restart no orchestrator meanwhile: it holds the writes that wait.",
    ),
    Alert(
        "KitemeshBusFlaps",
        "sum by (service, instance) (round(increase(kitemesh_bus_reconnects_total[15m]))) >= 3",
        0,
        "ticket",
        "{{ $labels.service }} {{ $labels.instance }} lost NATS {{ $value }} times in a quarter of an hour",
        "A process loses its connection to NATS again and again; each time what was on its way is sent anew.",
        "`bus.` lines of its log, and the log of NATS at the same time: `Slow Consumer`, `Stale Connection`, restarts.",
        "One process: its node's network, or its CPU limit. All of them: NATS is restarted, or its servers elect anew.",
    ),
    Alert(
        "KitemeshSlowConsumer",
        "max(increase(kitemesh_slow_consumers_total[15m])) > 0",
        0,
        "ticket",
        "NATS cut a connection for reading too slowly",
        "A process did not read what NATS had for it, and lost its connection with everything that was on its way.",
        "`Slow Consumer` in the log of NATS names the connection; then that process's event loop and CPU, and the "
        "limits `max_pending` and `write_deadline` of NATS.",
        "Add replicas of that service, or give it a whole core; raise `max_pending` only for bursts.",
    ),
    Alert(
        "KitemeshBusDenied",
        grew('kitemesh_bus_errors_total{kind="permission"}', "service", "15m"),
        0,
        "ticket",
        "NATS denied {{ $labels.service }} a subject",
        "A service asked NATS for what its user may not do. That is no outage; it is a missing right or an intruder.",
        "`bus.denied` in its log, which names the subject, and whether a release was just rolled out.",
        "After an upgrade: `kitemesh bootstrap --access DIR`, reload nats-server, then the services. Without one, "
        "treat that service as suspect.",
    ),
    Alert(
        "KitemeshStoreDenied",
        "sum by (service) (increase(kitemesh_store_denied_total[15m])) > 0",
        0,
        "ticket",
        "MongoDB denied {{ $labels.service }} an operation",
        "A service asked MongoDB for what its role does not allow. That is no outage; it is a missing right or an "
        "intruder.",
        "`store.denied` in its log, which names the command and the collection, and whether a release was just "
        "rolled out.",
        "After an upgrade: `kitemesh bootstrap --access DIR`, then the services. Without one, treat that service as "
        "suspect.",
    ),
    Alert(
        "KitemeshStoreSlow",
        "operation:kitemesh_store_duration_seconds:p99 > 0.5",
        600,
        "ticket",
        "MongoDB takes {{ $value | humanizeDuration }} for a {{ $labels.operation }}",
        "One call of a hundred takes longer than half a second, and turns wait for several of them.",
        "The primary: its disk, its cache, the lag of its secondaries (turns wait for a majority), slow queries in "
        "its log.",
        "Give MongoDB a faster disk or more memory; after a deletion of a large tenant wait until it has passed.",
    ),
    Alert(
        "KitemeshLoopLag",
        "avg_over_time(kitemesh_loop_lag_seconds[5m]) > 0.1",
        120,
        "ticket",
        "{{ $labels.service }} {{ $labels.instance }} is {{ $value | humanizeDuration }} late",
        "A process has more to do than its core gives it, or was stopped; everything in it waits so long.",
        "Its CPU and its CPU limit (throttling looks like this), and what it does: streams at a gateway, slots at a "
        "worker.",
        "Add replicas of that service, remove the CPU limit or raise it to a whole core, or lower `KITEMESH_SLOTS`.",
    ),
    Alert(
        "KitemeshMemoryGrows",
        ours(f"predict_linear(process_resident_memory_bytes{_SERVICES}[1h], {{4h|1m}}) > {{memory}}"),
        900,
        "ticket",
        "{{ $labels.service }} {{ $labels.instance }} will need {{ $value | humanize1024 }}B in four hours",
        "A process will pass 1 GiB in four hours if it goes on like this, and be killed where that is its limit.",
        "What grows with it: open streams, slots in use, writes that wait; if nothing does, memory leaks.",
        "Add replicas for what grows. Else restart that replica when it suits, which loses nothing, and report it.",
    ),
    Alert(
        "KitemeshVersionMix",
        "count(count by (version) (kitemesh_build_info)) > 1",
        1800,
        "ticket",
        "{{ $value }} releases of kitemesh run at once",
        "Neighbouring releases understand each other, so that one can follow the other; that is no state to stay in.",
        "`kitemesh status`, which says which replica runs which release, and what holds the rollout up.",
        "Finish the rollout or take it back, in the order of docs/upgrading.md.",
    ),
    Alert(
        "KitemeshCatalogRefused",
        "max by (service) (kitemesh_catalog_refused) == 1",
        300,
        "ticket",
        "{{ $labels.service }} refused the catalog file",
        "The catalog file has mistakes, or names pools without queues. What was read before serves on; a replica "
        "that starts now does not.",
        "`catalog.` lines of the log, or `kitemesh catalog check FILE`, which names the lines.",
        "Mend the file, or put the last one back; for a new pool run `kitemesh bootstrap`. It is read again by itself.",
    ),
)
