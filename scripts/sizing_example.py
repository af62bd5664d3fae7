"""The worked example of docs/sizing.md: loads, what they come to, and how many processes that is."""

# ruff: noqa: INP001  a script, not a package

import math
from typing import Final, NamedTuple

from sizing_costs import (
    CLASSIC,
    CLASSIC_STREAM,
    DURABLE,
    DURABLE_STREAM,
    PROCESSES,
    TOOLS,
    WHOLE,
    Costs,
    Use,
    read_costs,
)

from kitemesh_contracts.topology import OUT, topology

BUSY: Final = 0.6
"""Of a core, on average: the rest is for peaks, and for what the process beside it did."""
SLOTS_BUSY: Final = 0.7
SPARE: Final = 1
"""A process more than needed: one may be away."""
LEAST: Final = 2
RUNNER_SLOTS: Final = 400
EXECUTOR_SLOTS: Final = 64
FIRST_TOKEN_S: Final = 0.6
TOKENS_PER_S: Final = 50
TOOLS_S: Final = 0.5
CALL_TOKENS: Final = 20
"""Of the first step, which calls the tools."""
_MS: Final = 1000
_KIB_PER_MIB: Final = 1024
_DAY_S: Final = 86_400
DAY_SHARE: Final = 0.4
"""Of the peak, on average over a day."""
GIB_PER_MILLION: Final = 2.8
"""On disk, with indexes; the larger of what docs/benchmarks.md has."""


class Load(NamedTuple):
    """One kind of turns of the example.

    Attributes:
        turn: Its cost without tokens; `token` is that of each of them.
        has_reader: Somebody waits at a gateway.

    """

    name: str
    per_s: int
    turn: str
    token: str
    tokens: int
    has_tools: bool = False
    has_reader: bool = True

    @property
    def model_s(self) -> float:
        """Time in model calls."""
        calling_s = FIRST_TOKEN_S + CALL_TOKENS / TOKENS_PER_S if self.has_tools else 0.0
        return calling_s + FIRST_TOKEN_S + self.tokens / TOKENS_PER_S

    @property
    def turn_s(self) -> float:
        """Time from question to end."""
        return self.model_s + (TOOLS_S if self.has_tools else 0.0)

    @property
    def all_tokens(self) -> int:
        """Tokens of all its steps."""
        return self.tokens + (CALL_TOKENS if self.has_tools else 0)


EXAMPLE: Final = (
    Load("people who chat, classic and streamed", 500, CLASSIC, CLASSIC_STREAM, 200),
    Load("programs, classic and whole", 400, CLASSIC, WHOLE, 100),
    Load("agents, durable and streamed, two tools", 60, TOOLS, DURABLE_STREAM, 200, has_tools=True),
    Load("background runs, durable", 40, DURABLE, WHOLE, 200, has_reader=False),
)


def example_table() -> str:
    """Return the worked example."""
    costs = read_costs()
    cores = {load: {each: _cores(costs, load, each) for each in PROCESSES} for load in EXAMPLE}
    all_cores = {each: sum(use[each] for use in cores.values()) for each in PROCESSES}
    lines = [
        f"| {load.name} | {load.per_s} | {load.all_tokens} | {load.turn_s:.1f} | {load.per_s * load.turn_s:,.0f} |"
        f" {' | '.join(f'{cores[load][each]:.2f}' for each in PROCESSES)} |\n"
        for load in EXAMPLE
    ]
    total = sum(load.per_s for load in EXAMPLE)
    in_flight = sum(load.per_s * load.turn_s for load in EXAMPLE)
    lines.append(
        f"| all | {total:,} | | | {in_flight:,.0f} | {' | '.join(f'{all_cores[each]:.2f}' for each in PROCESSES)} |\n"
    )
    return "".join(
        [
            f"\n| turns | a second | tokens | last, s | under way | {' | '.join(PROCESSES.values())} |\n",
            f"|---|---|---|---|---|{'---|' * len(PROCESSES)}\n",
            *lines,
            "\n| what | how much | from |\n|---|---|---|\n",
            *(f"| {what} | {much} | {reckoned} |\n" for what, much, reckoned in _needs(costs, all_cores)),
            "\n",
        ]
    )


def _needs(costs: Costs, cores: Use) -> list[tuple[str, str, str]]:
    calls = sum(load.per_s * load.model_s for load in EXAMPLE)
    open_turns = sum(load.per_s * load.turn_s for load in EXAMPLE if load.has_reader)
    jobs = sum(load.per_s * TOOLS_S for load in EXAMPLE if load.has_tools)
    runners = _by_cores(cores["model_runner"]), math.ceil(calls / (RUNNER_SLOTS * SLOTS_BUSY))
    executors = _by_cores(cores["tool_executor"]), math.ceil(jobs / (EXECUTOR_SLOTS * SLOTS_BUSY))
    gateways = _by_cores(cores["gateway"])
    moved = {each: _moved(costs, each) for each in next(iter(costs.turn_kib.values()))}
    (kept,) = [stream.max_bytes / 1024 / 1024 for stream in topology() if stream.name == OUT]
    journal = moved["mongod's journal"]
    frames = sum(load.per_s * load.all_tokens for load in EXAMPLE if load.token == DURABLE_STREAM)
    turns = sum(load.per_s for load in EXAMPLE)
    a_day = turns * _DAY_S * DAY_SHARE / 1e6 * GIB_PER_MILLION
    return [
        (
            "gateways",
            f"{_replicas(gateways)}",
            f"{cores['gateway']:.1f} cores; {open_turns / _replicas(gateways):,.0f} open turns each",
        ),
        ("orchestrators", f"{_replicas(_by_cores(cores['orchestrator']))}", f"{cores['orchestrator']:.2f} cores"),
        (
            "model-runners, `KITEMESH_SLOTS=400`",
            f"{_replicas(max(runners))}",
            f"{cores['model_runner']:.1f} cores ask for {runners[0]}, {calls:,.0f} calls under way for {runners[1]}",
        ),
        (
            "tool-executors",
            f"{_replicas(max(executors))}",
            f"{cores['tool_executor']:.2f} cores, {jobs:.0f} jobs under way",
        ),
        (
            "NATS, each of three servers",
            "4 cores, 2 GiB of memory",
            f"{cores['nats-server']:.1f} cores without copies; they were not measured",
        ),
        (
            "network of NATS",
            f"{moved['nats-server reads']:.0f} MiB/s in, {moved['nats-server writes']:.0f} MiB/s out and to disk",
            "and as much again as JetStream stores, for each further copy",
        ),
        (
            f"how far back `{OUT}` reaches",
            f"{kept / moved[f'kept in {OUT}']:.0f} s",
            f"{kept:.0f} MiB at {moved[f'kept in {OUT}']:.1f} MiB/s, {frames:,} frames a second",
        ),
        (
            "MongoDB, each of three members",
            "4 cores",
            f"{cores['mongod']:.2f} cores and {journal:.1f} MiB/s of journal",
        ),
        (
            "disk of MongoDB",
            f"{a_day:,.0f} GiB a day, {a_day * 30 / 1024:.1f} TiB in 30 days",
            f"{turns * DAY_SHARE:,.0f} turns a second on average, {GIB_PER_MILLION} GiB a million",
        ),
    ]


def _cores(costs: Costs, load: Load, process: str) -> float:
    cpu_ms = costs.turns[load.turn][process] + load.all_tokens * costs.tokens[load.token][process]
    return load.per_s * cpu_ms / _MS


def _moved(costs: Costs, what: str) -> float:
    """Return MiB a second."""
    kib = sum(
        load.per_s * (costs.turn_kib[load.turn][what] + load.all_tokens * costs.token_kib[load.token][what])
        for load in EXAMPLE
    )
    return kib / _KIB_PER_MIB


def _by_cores(cores: float) -> int:
    return math.ceil(cores / BUSY)


def _replicas(needed: int) -> int:
    return max(LEAST, needed + SPARE)
