"""The stored turn: a durable turn's state as a document, and back. Pure.

The document shows people the steps; the state's bytes have no second copy of them. A job's attempt is the document's,
for workers raise it there.
"""

from typing import Final

import msgspec

from kitemesh_contracts.codec import decode, encode
from kitemesh_contracts.commands import StartTurn
from kitemesh_contracts.content import Step
from kitemesh_contracts.errors import ContractViolation
from kitemesh_orchestrator.states import Accepted, Calling, Ended, Generating, Past, Running, outstanding
from kitemesh_runtime.live_turns import LiveTurn


def to_live(state: Running, version: int) -> LiveTurn:
    """Return the document of a state."""
    start = state.start
    calling = state if isinstance(state, Calling) else None
    steps = (*state.steps, calling.said) if calling is not None else state.steps
    return LiveTurn(
        id=start.turn,
        tenant=start.tenant,
        version=version,
        status="held" if calling is not None and calling.paused else "running",
        mode="durable" if state.held else start.mode,
        model=start.route.requested,
        state=encode(_without_steps(state)),
        jobs=outstanding(state),
        conversation=start.conversation,
        ordinal=state.ordinal,
        key=start.key,
        agent=start.route.agent,
        gateway=start.gateway,
        request=start.request,
        hold=calling.hold if calling is not None and calling.undecided else None,
        steps=steps,
        usage=state.usage,
        billed=state.billed,
        accepted_at_ms=start.accepted_at_ms,
        # A hold that nobody and no timer has ended by then is looked at all the same.
        look_at_s=calling.expires_at_ms / 1000 + LATE_S if calling is not None and calling.paused else None,
        dialect=start.dialect,
        include_usage=start.include_usage,
        message=start.message,
        row=start.row,
        details=start.details,
        input=start.input if start.conversation is not None else (),
    )


def from_live(live: LiveTurn) -> Running:
    """Return the state of a document.

    Raises:
        ContractViolation: It has none that this version can read.

    """
    state = decode(_STATE, live.state)
    if isinstance(state, StartTurn):
        attempt = max((job.attempt for job in live.jobs), default=1)
        return Generating(
            start=state,
            ordinal=live.ordinal,
            durable=True,
            step=1,
            attempt=attempt,
            spared=live.spared,
            past=Past(step=1, attempt=live.spared) if live.spared else None,
        )
    if isinstance(state, Generating | Calling) and live.spared:
        # It was requeued, and has not been saved since: its time begins anew, and its client need not be there.
        held = state.held or state.start.mode == "classic"
        past = _past_of(state, live)
        state = msgspec.structs.replace(
            state, spared=live.spared, billed=live.billed, past=past, spent_s=0.0, held=held
        )
    if isinstance(state, Generating):
        attempt = max((job.attempt for job in live.jobs if job.kind == "model"), default=state.attempt)
        return msgspec.structs.replace(state, steps=live.steps, attempt=attempt)
    if not isinstance(state, Calling) or not live.steps:
        raise ContractViolation("a stored turn is in no state that is stored")
    state = msgspec.structs.replace(state, steps=live.steps[:-1], said=live.steps[-1], jobs=live.jobs)
    return msgspec.structs.replace(state, longest_s=0.0) if live.spared else state


def _past_of(state: Running, live: LiveTurn) -> Past:
    if isinstance(state, Generating):
        return Past(step=state.step, attempt=live.spared)
    return Past(step=live.steps[-1].step if live.steps else 0, attempt=live.spared, calling=True)


def start_of(live: LiveTurn) -> StartTurn:
    """Return the start of a turn that was stored when it was accepted and has not changed since.

    Raises:
        ContractViolation: It has, or this version cannot read it.

    """
    return decode(_START, live.state)


FIRST: Final = 1
"""The version that a gateway stores when it accepts a turn; its state is the turn's start."""
LATE_S: Final = 60.0
_START: Final[msgspec.json.Decoder[StartTurn]] = msgspec.json.Decoder(StartTurn)
_STATE: Final[msgspec.json.Decoder[StartTurn | Accepted | Calling | Ended | Generating]] = msgspec.json.Decoder(
    StartTurn | Accepted | Calling | Ended | Generating
)
_NOTHING: Final = Step(step=0)


def _without_steps(state: Running) -> Running:
    if isinstance(state, Calling):
        return msgspec.structs.replace(state, steps=(), said=_NOTHING, jobs=(), shown=())
    return msgspec.structs.replace(state, steps=(), shown=())
