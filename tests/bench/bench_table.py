"""What the bench says: progress while it runs, then a table with a verdict where there is a target."""

import sys
from collections.abc import Iterator
from typing import Any, Final

PLAIN_FIGURES: Final = (
    "first_token_p50_ms",
    "whole_turns_per_s",
    "whole_turn_ms",
    "whole_turns_ratio",
    "deltas_per_s",
    "cpu_ms_per_turn",
    "kib_per_open_stream",
    "idle_memory_mib",
    "failures",
)

LONG_MOST: Final = 1.15
METRICS_LEAST: Final = 0.97
METRICS_MOST: Final = 1.03

Row = tuple[str, str, str, bool | None]
"""What, how much, the target, and whether it is met; `None` where there is none."""


def say(text: str) -> None:
    """Show progress."""
    print(f"  {text} …", file=sys.stderr, flush=True)


def show(result: dict[str, Any]) -> None:
    """Print what was measured."""
    rows: list[Row] = []
    if "whole_turns_per_s" in result:
        rows += _turn_rows(result)
    if "durable" in result:
        rows += _durable_rows(result["durable"])
    if "history" in result:
        rows += _history_rows(result["history"])
    if "tools" in result:
        rows += _tool_rows(result["tools"])
    if "holds" in result:
        rows += _hold_rows(result["holds"])
    if "limits" in result:
        rows += _limit_rows(result["limits"])
    if "keys" in result:
        rows += _key_rows(result["keys"])
    if "metrics" in result:
        rows += _metric_rows(result["metrics"])
    if "storage" in result:
        rows += _storage_rows(result["storage"])
    failures = sum(_failures(result))
    rows.append(("answers that failed, and holds that went astray", str(failures), "0", not failures))
    for name, value, target, met in rows:
        verdict = "" if met is None else "met" if met else "NOT MET"
        print(f"{name:<58} {value:>14}   {target:>12}   {verdict}".rstrip())
    for name in PLAIN_FIGURES:
        if name in result:
            print(f"{name:<45} {result[name]}")
    for part in ("durable", "history", "tools", "holds", "limits", "keys", "sizing", "metrics"):
        for name, value in _details(result.get(part, {}), part):
            print(f"{name:<45} {value}")


def _failures(found: dict[str, Any]) -> Iterator[int]:
    for name, value in found.items():
        if name == "failures":
            yield value
        elif isinstance(value, dict):
            yield from _failures(value)


def _turn_rows(result: dict[str, Any]) -> Iterator[Row]:
    added, whole = result["added_first_token_p50_ms"], result["whole_turns_per_s"]["kitemesh"]
    deltas, memory = result["deltas_per_s"]["kitemesh"], result["kib_per_open_stream"]["services"]
    yield "added time to first token, p50, 16 streams", f"{added} ms", "≤ 6 ms", added <= 6
    yield "whole turns, 64 clients", f"{whole}/s", "≥ 500/s", whole >= 500
    yield "relayed deltas, 16 streams", f"{deltas}/s", "≥ 20,000/s", deltas >= 20_000
    yield "memory per idle open stream, 1,000 streams", f"{memory} KiB", "≤ 40 KiB", memory <= 40


def _durable_rows(durable: dict[str, Any]) -> Iterator[Row]:
    more, whole = durable["first_token_ms"]["more"], durable["whole_turns"]["durable"]["per_s"]
    yield "first token, durable over classic, p50, 16 streams", f"{more['p50']} ms", "≤ 10 ms", more["p50"] <= 10
    yield "first token, durable over classic, p95, 16 streams", f"{more['p95']} ms", "", None
    yield "whole durable turns, 64 clients", f"{whole}/s", "≥ 250/s", whole >= 250
    resumed, killed = durable["resumed"], durable["gateway_killed"]
    for name in ("running", "ended"):
        took, cpu = resumed[name]["p50_ms"], resumed[name]["gateway_cpu_us_per_delta"]
        yield f"resume of {resumed['deltas']:,} deltas, {name}, p50", f"{took} ms", "≤ 60 ms", took <= 60
        yield f"gateway CPU a delta resumed, {name}", f"{cpu} µs", "≤ 40 µs", cpu <= 40
    exact = killed["readers"] - killed["failures"]
    yield "streams exact after their gateway was killed", f"{exact}", f"{killed['readers']}", not killed["failures"]
    yield "until the last of them had caught up", f"{killed['caught_up_last_ms']} ms", "", None


def _history_rows(history: dict[str, Any]) -> Iterator[Row]:
    for name, found in history["dialects"].items():
        ratio = found["cpu_ratio"]
        what = f"CPU to go on after {history['messages']:,} messages, over a window, {name}"
        yield what, f"{ratio}", "≤ 1.15", ratio <= LONG_MOST


def _tool_rows(tools: dict[str, Any]) -> Iterator[Row]:
    for name, figures in tools["turns"].items():
        yield f"turns, {name}, {tools['clients']} clients", f"{figures['per_s']}/s", "", None


def _hold_rows(holds: dict[str, Any]) -> Iterator[Row]:
    resumed, idle = holds["resumed"], holds["open"]
    yield f"turns held and resumed, {resumed['clients']} clients", f"{resumed['per_s']}/s", "", None
    more = idle["core_percent_more"]
    yield f"{idle['holds']:,} open holds, of a core", f"{more} %", "≤ 1 %", more <= 1


def _limit_rows(limits: dict[str, Any]) -> Iterator[Row]:
    more, ratio = limits["first_token_p50_ms"]["more"], limits["cpu_ratio"]
    yield "first token, key, limits and routing over none, p50", f"{more} ms", "≤ 0.3 ms", more <= 0.3
    yield "CPU a turn, key, limits and routing over none", f"{ratio}", "≤ 1.05", ratio <= 1.05


def _key_rows(keys: dict[str, Any]) -> Iterator[Row]:
    many, few, ratio = keys["many"], keys["few"], keys["ratio"]
    known, looked_up = many["known_us"], ratio["looked_up_us"]
    of = f"{keys['keys']:,} keys"
    yield f"a known key of {of}, p50; of ten {few['known_us']} µs", f"{known} µs", "≤ 30 µs", known <= 30
    yield f"a key looked up among {of}, over among ten, p50", f"{looked_up}", "≤ 1.15", looked_up <= LONG_MOST
    yield f"CPU to keep up with {of} for 1.5 s", f"{many['keeping_up_us']} µs", "", None


def _metric_rows(found: dict[str, Any]) -> Iterator[Row]:
    for kind, figures in found.items():
        if isinstance(figures, dict) and "per_s_ratio" in figures:
            ratio, cpu = figures["per_s_ratio"], figures["cpu_ratio"]
            yield f"throughput with metrics over without, {kind}", f"{ratio}", "≥ 0.97", ratio >= METRICS_LEAST
            yield f"CPU a turn with metrics over without, {kind}", f"{cpu}", "≤ 1.03", cpu <= METRICS_MOST


def _storage_rows(storage: dict[str, Any]) -> Iterator[Row]:
    yield "on disk, a million turns with all they leave", f"{storage['gib_per_million_turns_in_all']} GiB", "", None
    for name, size in storage["gib_per_million_turns"].items():
        yield f"    {name}", f"{size} GiB", "", None
    cpu = storage["cpu_us_per_turn"]
    yield "CPU to store a turn, client and mongod", f"{cpu['stores']} + {cpu['mongod']} µs", "", None
    yield "CPU to count what a turn cost, both", f"{cpu['to_count_usage']} µs", "", None


def _details(found: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the figures below a name, those of one thing on one line."""
    if isinstance(found, dict) and any(isinstance(each, dict) for each in found.values()):
        plain = {key: each for key, each in found.items() if not isinstance(each, dict)}
        if plain:
            yield name, plain
        for key, each in found.items():
            if isinstance(each, dict):
                yield from _details(each, f"{name}: {key}")
    elif found:
        yield name, found
