"""What a turn and a token cost, from docs/bench/baseline.json and docs/bench/sizing.json; a table of docs/sizing.md."""

# ruff: noqa: INP001  a script, not a package

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

BENCH: Final = Path(__file__).resolve().parent.parent / "docs" / "bench"
PROCESSES: Final = {
    "gateway": "gateway",
    "orchestrator": "orchestrator",
    "model_runner": "model-runner",
    "tool_executor": "tool-executor",
    "nats-server": "nats-server",
    "mongod": "mongod",
}
CLASSIC: Final = "classic"
DURABLE: Final = "durable"
TOOLS: Final = "durable, two tools in one step"
WHOLE: Final = "not streamed"
CLASSIC_STREAM: Final = "streamed, classic"
DURABLE_STREAM: Final = "streamed, durable"

Use = dict[str, float]
"""A figure for each process."""


class Costs(NamedTuple):
    """What was measured.

    Attributes:
        turns: CPU of a turn without its tokens, ms.
        tokens: CPU of one token, ms, by how it is read.
        turn_kib: What a turn moves without its tokens.
        token_kib: What one token moves.

    """

    turns: dict[str, Use]
    tokens: dict[str, Use]
    turn_kib: dict[str, Use]
    token_kib: dict[str, Use]


def read_costs() -> Costs:
    """Read what was measured."""
    baseline, sizing = (json.loads((BENCH / f"{name}.json").read_text()) for name in ("baseline", "sizing"))
    paced, count = sizing["sizing"]["turns"], sizing["sizing"]["tokens"]
    modes = {mode: _cpu(figures) for mode, figures in sizing["durable"]["whole_turns"].items()}
    plain = _cpu(baseline)
    durable = _sum(plain, _less(modes[DURABLE], modes[CLASSIC]))
    tools = _cpu(baseline["tools"]["turns"]["both in one step"])
    whole, streamed = _cpu(paced["classic, whole"]), _cpu(paced["classic, streamed"])
    kept, captured = _cpu(paced["durable, whole"]), _cpu(paced["durable, streamed"])
    # What the model-runner reads from its provider it reads for every kind of turn.
    reading = {each: used if each == "model_runner" else 0.0 for each, used in _less(whole, plain).items()}
    kib = {name: figures["kib_per_turn"] for name, figures in paced.items()}
    return Costs(
        turns={CLASSIC: plain, DURABLE: durable, TOOLS: _sum(tools, _less(durable, plain))},
        tokens={
            WHOLE: _each(reading, count),
            CLASSIC_STREAM: _each(_sum(reading, _less(streamed, whole)), count),
            DURABLE_STREAM: _each(_sum(reading, _less(captured, kept)), count),
        },
        turn_kib={
            CLASSIC: kib["classic, whole"],
            DURABLE: kib["durable, whole"],
            TOOLS: _sum(
                kib["durable, whole"], _less(kib["durable with two tools, streamed"], kib["durable, streamed"])
            ),
        },
        token_kib={
            WHOLE: dict.fromkeys(kib["classic, whole"], 0.0),
            CLASSIC_STREAM: _each(_less(kib["classic, streamed"], kib["classic, whole"]), count),
            DURABLE_STREAM: _each(_less(kib["durable, streamed"], kib["durable, whole"]), count),
        },
    )


def costs_table() -> str:
    """Return what a turn and a token cost, and what they move."""
    costs = read_costs()
    rows = {
        **{f"a turn, {name}": use for name, use in costs.turns.items()},
        **{f"each token, {name}": use for name, use in costs.tokens.items()},
    }
    lines = [
        f"| {name} | {' | '.join(_ms(use[each]) for each in PROCESSES)} | {_ms(sum(use.values()))} |\n"
        for name, use in rows.items()
    ]
    moved = {
        **{f"a turn, {name}": use for name, use in costs.turn_kib.items()},
        **{f"each token, {name}": use for name, use in costs.token_kib.items() if any(use.values())},
    }
    names = next(iter(moved.values()))
    more = [f"| {name} | {' | '.join(f'{use[each]:.2f}' for each in names)} |\n" for name, use in moved.items()]
    return "".join(
        [
            f"\n| CPU, ms | {' | '.join(PROCESSES.values())} | all |\n|---|---|---|---|---|---|---|---|\n",
            *lines,
            f"\n| moved, KiB | {' | '.join(names)} |\n|---|---|---|---|---|---|---|\n",
            *more,
            "\n",
        ]
    )


def _cpu(figures: Mapping[str, Any]) -> Use:
    return {each: float(figures["cpu_ms_per_turn"][each]) for each in PROCESSES}


def _sum(one: Use, other: Use) -> Use:
    return {each: one[each] + other[each] for each in one}


def _less(one: Use, other: Use) -> Use:
    """Return differences; one below zero is the machine's noise."""
    return {each: max(0.0, one[each] - other[each]) for each in one}


def _each(use: Use, count: int) -> Use:
    return {each: used / count for each, used in use.items()}


def _ms(value: float) -> str:
    return f"{value:.3f}" if round(value, 3) else "0"
