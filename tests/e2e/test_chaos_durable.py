"""Durable turns outlive kills of every service, and calls that run and report a time-out; shown exactly, done once.

`make chaos ONLY=durable` and `ONLY=ambiguous` are the long runs of the same code.
"""

from collections import Counter
from pathlib import Path
from zlib import crc32

import pytest

from chaos.chaos_durable import play
from chaos.chaos_durable_client import Pieces
from chaos.chaos_durable_cluster import SERVICES
from chaos.chaos_durable_run import Found
from chaos.chaos_durable_table import measures, render
from chaos.chaos_durable_turns import KINDS, DurableTurn

SEED = 3
CLIENTS = 8
EACH = 2
"""Faults of each service."""
TURNS = 40
BACK_S = 10.0


def check(found: Found) -> None:
    assert found.violations == [], render(found)
    assert {turn.result for turn in found.turns} == {"answered"}
    assert {turn.kind for turn in found.turns} == set(KINDS)


def test_kills_of_every_service_lose_no_durable_turn_and_show_each_exactly_once(tmp_path: Path) -> None:
    found = play("durable", tmp_path, seed=SEED, faults=EACH * len(SERVICES), clients=CLIENTS)
    check(found)
    assert Counter(fault.service for fault in found.faults) == dict.fromkeys(SERVICES, EACH)
    times_s = measures(found)["accepted: sign after a fault"]
    assert sum(time_s <= BACK_S for time_s in times_s) >= 0.95 * len(times_s), render(found)


def test_calls_that_run_and_report_a_time_out_lose_nothing_and_do_nothing_twice(tmp_path: Path) -> None:
    found = play("ambiguous", tmp_path, seed=SEED, turns=TURNS, clients=CLIENTS)
    check(found)
    assert len(found.turns) >= TURNS


def name(place: str, text: str) -> str:
    return f"turn-1:{place}.{len(text)}-{crc32(text.encode()):08x}"


@pytest.mark.parametrize(
    ("second", "problem"),
    [
        ((name("1.1.2.0", "one two "), "two "), ""),
        ((name("1.2.1.1", "one two "), "two "), ""),
        ((name("1.1.3.0", "one two three "), "three "), "does not fit"),
        ((name("1.1.2.0", "one "), "one "), "does not fit"),
        ((name("1.1.1.0", "one two "), "two "), "comes after"),
        ((name("1.1.2.0", "one 2wo "), "two "), "does not fit"),
        (("", "two "), "has no id"),
    ],
    ids=["next", "newer attempt", "gap", "repeat", "old place", "other text", "no id"],
)
def test_a_client_notices_what_is_missing_repeated_or_mixed(second: tuple[str, str], problem: str) -> None:
    turn = DurableTurn("tag", "safe", "plain", stream=True)
    pieces = Pieces(turn)
    pieces.take(name("1.1.1.0", "one "), "one ")
    assert turn.wrong == []
    pieces.take(*second)
    assert [problem in sentence for sentence in turn.wrong] == [True] * bool(problem)
