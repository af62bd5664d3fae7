"""Recorded histories, replayed: the same events lead to the same commands, release after release.

A file holds the state that a turn began in and, for each event, what followed: the commands and the kind of state.
"""

from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from kitemesh_orchestrator.happenings import Command, Event
from kitemesh_orchestrator.states import Accepted, State
from kitemesh_orchestrator.turn import decide

HISTORIES = Path(__file__).parent / "histories"
KINDS: dict[str, Any] = {kind.__name__: kind for kind in get_args(Event)}
COMMANDS: dict[str, Any] = {kind.__name__: kind for kind in get_args(Command)}


class Happened(msgspec.Struct, frozen=True, kw_only=True):
    """An event by its kind, and what followed."""

    event: dict[str, msgspec.Raw]
    followed: dict[str, Any]


class History(msgspec.Struct, frozen=True, kw_only=True):
    """A turn's life."""

    begins: Accepted
    steps: list[Happened]


def replay(begins: State, events: list[Any]) -> list[Any]:
    """Return what follows from each event: the kind of state, and the commands."""
    state, followed = begins, []
    for event in events:
        state, commands = decide(state, event)
        followed.append((type(state).__name__, list(commands)))
    return followed


def recorded(followed: dict[str, Any]) -> tuple[str, list[Any]]:
    """Read what followed; a field that came later has its default."""
    commands = [
        msgspec.convert(fields, COMMANDS[kind]) for each in followed["commands"] for kind, fields in each.items()
    ]
    return followed["state"], commands


@pytest.mark.requirement("classic:first-result-wins")
@pytest.mark.parametrize("path", sorted(HISTORIES.glob("*.json")), ids=lambda path: path.stem)
def test_a_recorded_history_leads_to_the_same_commands(path: Path) -> None:
    history = msgspec.json.decode(path.read_bytes(), type=History)
    events = [msgspec.json.decode(raw, type=KINDS[kind]) for step in history.steps for kind, raw in step.event.items()]
    assert replay(history.begins, events) == [recorded(step.followed) for step in history.steps]


def test_there_are_histories_and_every_turn_in_them_ends() -> None:
    histories = [msgspec.json.decode(path.read_bytes(), type=History) for path in HISTORIES.glob("*.json")]
    assert len(histories) >= 19
    assert {history.steps[-1].followed["state"] for history in histories} == {"Ended"}
