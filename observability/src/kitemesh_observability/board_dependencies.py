"""The dashboard of NATS, MongoDB and the processes themselves."""

from typing import Final

from kitemesh_observability.board import Dashboard, Panel, Query, Row, mean, ours, quantiles, rate

_SERVICE: Final = '{service=~"$service"}'
_WHO: Final = "{{service}} {{instance}}"

DASHBOARD: Final = Dashboard(
    "kitemesh-dependencies",
    "kitemesh / Dependencies and processes",
    "Whether NATS and MongoDB answer, how fast, what they refuse, and how the processes are.",
    (
        Row(
            "NATS and MongoDB",
            (
                Panel(
                    "Reached",
                    "By each process, from its last real operation.",
                    "state",
                    (
                        Query(
                            f"min by (service, dependency) (kitemesh_dependency_up{_SERVICE})",
                            "{{service}} {{dependency}}",
                        ),
                    ),
                    names=((0, "not reached", "red"), (1, "reached", "green")),
                ),
                Panel(
                    "MongoDB's time",
                    "For a call, by kind. Turns wait for several; above 0.5 s see KitemeshStoreSlow.",
                    "seconds",
                    quantiles("kitemesh_store_duration_seconds", "operation", of=(0.5, 0.99)),
                    thresholds=((0.1, "yellow"), (0.5, "red")),
                ),
                Panel(
                    "MongoDB's calls",
                    "A second, by service and kind.",
                    "a second",
                    (
                        Query(
                            rate(f"kitemesh_store_duration_seconds_count{_SERVICE}", "service, operation"),
                            "{{service}} {{operation}}",
                        ),
                    ),
                    stacked=True,
                ),
                Panel(
                    "Writes in a group",
                    "Mean number of writes that travelled together. It grows with load; that is what it is for.",
                    "number",
                    (Query(mean("kitemesh_store_group_size", "service"), "{{service}}"),),
                    width=6,
                ),
                Panel(
                    "Reconnects to NATS",
                    "In a quarter of an hour. See KitemeshBusFlaps.",
                    "number",
                    (
                        Query(
                            f"sum by (service) (increase(kitemesh_bus_reconnects_total{_SERVICE}[15m]))", "{{service}}"
                        ),
                    ),
                    width=6,
                ),
                Panel(
                    "NATS errors",
                    "Since the processes started, by kind: permission is a missing right. Slow consumers are counted "
                    "by NATS, whose log names them: processes that read too slowly and were cut off.",
                    "number",
                    (
                        Query(f"sum by (service, kind) (kitemesh_bus_errors_total{_SERVICE})", "{{service}} {{kind}}"),
                        Query("max(kitemesh_slow_consumers_total)", "slow consumers"),
                    ),
                    width=6,
                ),
                Panel(
                    "Denied by MongoDB",
                    "Operations that a role does not allow, since the processes started. See KitemeshStoreDenied.",
                    "number",
                    (Query(f"sum by (service) (kitemesh_store_denied_total{_SERVICE})", "{{service}}"),),
                    thresholds=((1, "red"),),
                    width=6,
                ),
            ),
        ),
        Row(
            "Processes",
            (
                Panel(
                    "CPU",
                    "Cores in use. A process uses at most one: near 1, add replicas.",
                    "number",
                    (Query(ours(f"rate(process_cpu_seconds_total{_SERVICE}[$__rate_interval])"), _WHO),),
                    thresholds=((0.7, "yellow"), (0.9, "red")),
                ),
                Panel(
                    "Memory",
                    "Resident. See KitemeshMemoryGrows.",
                    "bytes",
                    (Query(ours(f"process_resident_memory_bytes{_SERVICE}"), _WHO),),
                ),
                Panel(
                    "Event loop's lag",
                    "How late the loop is: more work than a core gives. See KitemeshLoopLag.",
                    "seconds",
                    (Query(f"kitemesh_loop_lag_seconds{_SERVICE}", _WHO),),
                    thresholds=((0.05, "yellow"), (0.1, "red")),
                ),
                Panel(
                    "Open files",
                    "Sockets included; their limit is the process's `nofile`.",
                    "number",
                    (Query(ours(f"process_open_fds{_SERVICE}"), _WHO),),
                ),
                Panel(
                    "Releases",
                    "Replicas by service and release. More than one release for long: see KitemeshVersionMix.",
                    "number",
                    (Query("count by (service, version) (kitemesh_build_info)", "{{service}} {{version}}"),),
                    "table",
                ),
                Panel(
                    "Own share of limits, catalog refused",
                    "1 while a gateway limits by itself because MongoDB does not answer, or a catalog file was "
                    "refused.",
                    "state",
                    (
                        Query("max(kitemesh_limits_local)", "own share of limits"),
                        Query("max(kitemesh_catalog_refused)", "catalog refused"),
                    ),
                    names=((0, "no", "green"), (1, "yes", "red")),
                ),
            ),
        ),
    ),
)
