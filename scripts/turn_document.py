"""docs/turn.md: what `decide` makes of every state and event of the table that its tests go through.

The values are those of tests/unit/orchestrator/pairs.py, so a pair that is tested is a pair that is printed.
"""

# ruff: noqa: INP001  a script, not a package

from collections.abc import Iterator
from itertools import groupby
from typing import Final, assert_never

from kitemesh_orchestrator.happenings import Command, Finish, OpenHold, Pause, Publish
from kitemesh_orchestrator.states import Accepted, Calling, Ended, Generating, State
from kitemesh_orchestrator.turn import MAX_ATTEMPTS, Decision, decide
from kitemesh_runtime.live_turns import Job
from unit.orchestrator.pairs import EVENTS, STATES

INTRO: Final = """\
# The turn

<!-- Written by `make docs` by running `decide` on the values of tests/unit/orchestrator/pairs.py. Do not edit. -->

What a turn does next is one pure function, `decide(state, event) -> (state, commands)`: no clock, no ids of its own,
no exception. An event that is late, foreign or a duplicate returns the state unchanged and no commands, so every
message may be delivered any number of times. The engine around it loads the state, decides, saves, publishes the
commands and acknowledges the message, in this order; the message that is not acknowledged is the memory of what was
not done yet.

"""

DIAGRAM: Final = """\

`Calling` is drawn as what it waits for: jobs that run, or a person and nothing else. Whatever ends a turn, `Finish`
stores it and closes its stream.

"""

LEGEND: Final = """\
`{no_change}` is no change and no command, which in the state `{idle}` is all that ever follows. The job of the example
is one of the second step, in attempt 2."""

BEHIND: Final = f"""\

## Carried and stored

There is one function and one set of states, and two places where a state may be. A classic turn's is *carried*: every
job takes it along and every worker returns it untouched, so a classic turn has one job outstanding at the most. A
durable turn's is *stored*: a document with a version, which a save replaces only if it is still the version that was
loaded. A durable turn is stored from its acceptance on; a classic one becomes stored, and stays it, when a call is
held or when a step needs two jobs at once. The columns above differ in one point: of a carried step the first result
counts, whichever attempt it is of, because nobody could have claimed a newer one; of a stored step only the newest
attempt's, because a redelivered job claims its attempt in the document before it works, and from then on an older
one's result is refused. What tools returned is true whoever ran them.

## Attempts

A job begins at attempt 1. One that is handed back, or whose message is gone, is published again under the next
attempt, as its message id contains the attempt and the bus swallows an id that it knows. A redelivered job of a
stored turn raises the attempt itself. A step that would need more than {MAX_ATTEMPTS} attempts fails its turn. A job
handed back under an attempt older than the newest one changes nothing.

## Holds

A step whose calls are partly held opens its hold first, then saves, then publishes what may run at once. The answer
ends as held when nothing runs any more (`Pause`), and the state waits for a person: an approval makes jobs of calls,
a denial and an expiry make results of them. A decision about another hold, about a call that is not held, or about
none changes nothing. The next model call begins when every call of the step has its result.
"""

_NO_CHANGE: Final = "\N{EN DASH}"
_LABELS_IN_A_LINE: Final = 2


def turn_document() -> str:
    """Return docs/turn.md."""
    return f"{INTRO}{_diagram()}{DIAGRAM}{_table()}{BEHIND}"


def _diagram() -> str:
    edges: dict[tuple[str, str], dict[str, None]] = {}
    for state in STATES.values():
        for event in EVENTS.values():
            decision = decide(state, event)
            if decision != Decision(state):
                edge = (_node(state), _node(decision.state))
                edges.setdefault(edge, {})[type(event).__name__] = None
    lines = [f"    {start} --> {end}: {_label(list(events))}" for (start, end), events in edges.items()]
    named = [f'    state "{_name(state)}" as {_node(state)}' for state in _distinct()]
    return "\n".join(
        ["```mermaid", "stateDiagram-v2", *named, "    [*] --> Accepted", *lines, "    Ended --> [*]", "```", ""]
    )


def _label(events: list[str]) -> str:
    lines = [events[start : start + _LABELS_IN_A_LINE] for start in range(0, len(events), _LABELS_IN_A_LINE)]
    return ",<br/>".join(", ".join(line) for line in lines)


def _distinct() -> list[State]:
    return list({_node(state): state for state in STATES.values()}.values())


def _table() -> str:
    """Return the table: an event in each row, the states that answer alike in one column."""
    cells = {
        name: tuple(_cell(state, decide(state, event)) for event in EVENTS.values()) for name, state in STATES.items()
    }
    idle = [name for name, column in cells.items() if set(column) == {_NO_CHANGE}]
    columns = [
        (" or ".join(name for name, _ in alike), column)
        for column, alike in groupby(((n, c) for n, c in cells.items() if n not in idle), key=lambda each: each[1])
    ]
    head = " | ".join(name for name, _ in columns)
    rows = [
        f"| `{type(event).__name__}` | {name} | {' | '.join(column[place] for _, column in columns)} |"
        for place, (name, event) in enumerate(EVENTS.items())
    ]
    return "\n".join(
        [
            "## Every state, every event",
            "",
            LEGEND.format(no_change=_NO_CHANGE, idle="`, `".join(idle)),
            "",
            f"| event | which | {head} |",
            "|---|---|" + "---|" * len(columns),
            *rows,
            "",
        ]
    )


def _cell(state: State, decision: Decision) -> str:
    if decision == Decision(state):
        return _NO_CHANGE
    parts = list(_commands(decision.commands))
    same = _node(state) == _node(decision.state)
    return "; ".join(([] if same and parts else ["noted"] if same else [f"**{_name(decision.state)}**"]) + parts)


def _commands(commands: tuple[Command, ...]) -> Iterator[str]:
    for command in commands:
        match command:
            case Publish(job=job):
                yield f"publish {_job(job)}"
            case OpenHold():
                yield "open the hold"
            case Pause():
                yield "close the stream as held"
            case Finish(outcome=outcome, error=error):
                yield f"finish {outcome}" + (f", `{error.code}`" if error is not None and outcome == "failed" else "")
            case _:
                assert_never(command)


def _job(job: Job) -> str:
    if job.kind == "model":
        return f"model job, step {job.step}, attempt {job.attempt}"
    return f"tool job {job.index}, attempt {job.attempt}"


def _name(state: State) -> str:
    match state:
        case Accepted():
            return "accepted"
        case Generating():
            return "generating"
        case Calling():
            return "calling, paused" if state.paused else "calling, running"
        case Ended():
            return "ended"
        case _:
            assert_never(state)


def _node(state: State) -> str:
    return _name(state).replace(", ", " ").title().replace(" ", "")
