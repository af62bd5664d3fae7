"""What the routes of dead letters answer, and how it is rendered. Nothing here has content. Pure."""

from collections.abc import Mapping
from typing import Final, Literal

from msgspec import Struct

from kitemesh_contracts.subjects import ROOT
from kitemesh_gateway.dialects.native_answers import ExecutionStatus
from kitemesh_gateway.dialects.native_rendering import execution_status
from kitemesh_runtime.dead_letters import Letter
from kitemesh_runtime.ledger import LedgerState
from kitemesh_runtime.live_turns import GivenUp

_JOBS: Final = ("model", "tool")


class LetterOut(Struct, frozen=True, kw_only=True):
    """A message that was given up.

    Attributes:
        stream: Where it was.
        kind: What it was, such as `turn.start`, `event.step.generated`, `model` or `tool`; empty when it was gone
            before anybody looked.
        turn: The execution that it was of; empty where it does not say.
        reason: Why it was given up.
        deliveries: How often it was delivered.
        at: When it was given up.
        requeueable: Its turn can go on from where it stood.
        why: Why it cannot; empty if it can.

    """

    id: str
    stream: str
    kind: str
    turn: str
    reason: str
    deliveries: int
    at: str
    requeueable: bool
    why: str


class LetterPage(Struct, frozen=True, kw_only=True):
    """Dead letters, newest first.

    Attributes:
        next_cursor: Continues the list; `null` at its end.

    """

    data: tuple[LetterOut, ...]
    next_cursor: str | None


class EffectOut(Struct, frozen=True, kw_only=True):
    """A tool call of the turn.

    Attributes:
        id: The tool execution id.
        state: As the ledger has it. `none`: it has not begun, or has no effect. `finished`: it is not run again, its
            result is taken. `dispatched`: it was under way. `unknown`: nobody can tell whether it had its effect.
            `cancelled`: it was stopped before it began.

    """

    id: str
    name: str
    step: int
    state: Literal["none", "dispatched", "finished", "unknown", "cancelled"]


class LetterDetail(LetterOut, frozen=True, kw_only=True):
    """A dead letter, and how its turn stands; what is not known of the turn is `null`.

    Attributes:
        kind: What it was, such as `turn.start`, `event.step.generated`, `model` or `tool`; empty when it was gone
            before anybody looked.
        turn: The execution that it was of; empty where it does not say.
        at: When it was given up.
        requeueable: Its turn can go on from where it stood.
        why: Why it cannot; empty if it can.
        status: Of the execution.
        steps: Model calls that are over.

    """

    tenant: str | None
    status: ExecutionStatus | None
    mode: Literal["classic", "durable"] | None
    conversation_id: str | None
    steps: int | None
    effects: tuple[EffectOut, ...]


class Requeued(Struct, frozen=True, kw_only=True):
    """A turn that goes on.

    Attributes:
        status: How it stands now.

    """

    id: str
    turn: str
    tenant: str
    status: Literal["queued", "running"]


class Dropped(Struct, frozen=True, kw_only=True):
    """A letter that is gone."""

    id: str
    deleted: Literal[True]


def letter_out(letter: Letter, why: str) -> LetterOut:
    """Render a letter in a list; `why` says why its turn cannot go on, if it cannot."""
    return LetterOut(
        id=str(letter.number),
        stream=letter.stream,
        kind=kind_of(letter.subject),
        turn=letter.turn,
        reason=letter.reason,
        deliveries=letter.deliveries,
        at=letter.at,
        requeueable=not why,
        why=why,
    )


def letter_detail(letter: Letter, why: str, found: GivenUp | None, states: Mapping[str, LedgerState]) -> LetterDetail:
    """Render a letter with how its turn stands.

    Args:
        letter: The letter.
        why: Why its turn cannot go on, if it cannot.
        found: The turn; `None` when it is not stored.
        states: Of the turn's calls in the ledger.

    """
    listed = letter_out(letter, why)
    turn = None if found is None else found.turn
    stood = None if found is None else found.before or found.turn
    calling = [] if stood is None else [step for step in stood.steps if len(step.results) < len(step.calls)]
    return LetterDetail(
        **{name: getattr(listed, name) for name in listed.__struct_fields__},
        tenant=None if turn is None else turn.tenant,
        status=None if turn is None else execution_status(turn),
        mode=None if turn is None else turn.mode,
        conversation_id=None if turn is None else turn.conversation,
        steps=None if stood is None else len(stood.steps) - len(calling),
        effects=()
        if stood is None
        else tuple(
            EffectOut(id=call.id, name=call.name, step=step.step, state=states.get(call.id, "none"))
            for step in stood.steps
            for call in step.calls
        ),
    )


def kind_of(subject: str) -> str:
    """Say what a message is by its subject, without its addresses; empty for none of ours."""
    head, _, rest = subject.partition(f"{ROOT}.")
    tokens = rest.split(".")
    if head or len(tokens) < len(_JOBS):
        return ""
    return tokens[0] if tokens[0] in _JOBS else ".".join(tokens[:-1])
