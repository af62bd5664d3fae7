"""What the store has of a turn that is watched: its steps, and the closing event of one that has ended or waits."""

from typing import Final, NamedTuple

from kitemesh_contracts.content import Step
from kitemesh_contracts.deltas import TurnEnded
from kitemesh_gateway.following import steps_of
from kitemesh_runtime.holds import Hold, Holds
from kitemesh_runtime.live_turns import LiveTurn, LiveTurns
from kitemesh_runtime.stored_endings import ended_from, held_from
from kitemesh_runtime.turns import TurnRecord


class Found(NamedTuple):
    """A stored turn.

    Attributes:
        steps: Those that have their whole text, in order.
        under_way: The step that a model is asked for, and its newest attempt; `None` when none is.
        ended: The closing event; `None` while the turn goes on.

    """

    steps: tuple[Step, ...]
    under_way: tuple[int, int] | None
    ended: TurnEnded | None


class Finding:
    """Finds stored turns."""

    def __init__(self, turns: LiveTurns, holds: Holds) -> None:
        self._turns: Final = turns
        self._holds: Final = holds

    async def find(
        self, tenant: str, turn: str, *, after_step: int, decided: frozenset[str] = frozenset()
    ) -> Found | None:
        """Return a stored turn; `None` when there is none.

        A hold on a step up to `after_step` is not its end, unless it was answered in part and holds again.

        Args:
            tenant: Whose it is.
            turn: Its id.
            after_step: Where what is asked for begins.
            decided: Calls of that step without which it holds again; when none are given, all that are decided.

        Raises:
            Unavailable: The store does not answer.

        """
        found = await self._turns.get(tenant, turn)
        if found is None:
            return None
        if isinstance(found, TurnRecord):
            ended = ended_from(found)
            return Found(tuple(steps_of(ended)), None, ended)
        models = [(job.step, job.attempt) for job in found.jobs if job.kind == "model"]
        return Found(found.steps, max(models, default=None), await self._held(found, after_step, decided))

    async def _held(self, found: LiveTurn, after_step: int, decided: frozenset[str]) -> TurnEnded | None:
        """Return the closing event of a turn that waits for a person."""
        if found.status != "held" or found.hold is None:
            return None
        hold = await self._holds.get(found.tenant, found.hold)
        if hold is None or hold.status != "open" or hold.step < after_step:
            return None
        if hold.step == after_step and not _holds_again(found, hold, decided):
            return None
        return held_from(found, hold)


def _holds_again(found: LiveTurn, hold: Hold, decided: frozenset[str]) -> bool:
    """Tell whether what was decided of a hold has come to something, and the rest is waited for."""
    answered = decided or {call.id for call in hold.calls if call.verdict is not None}
    results = {result.call for step in found.steps if step.step == hold.step for result in step.results}
    return bool(answered) and answered <= results
