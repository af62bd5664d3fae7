"""Whether a turn came to nothing, so that what it claimed is the client's to try again with. Pure."""

from kitemesh_contracts.content import AssistantMessage
from kitemesh_contracts.errors import MEANINGS
from kitemesh_runtime.live_turns import LiveTurn
from kitemesh_runtime.turns import TurnRecord


def was_refused(found: LiveTurn | TurnRecord) -> bool:
    """Tell whether a turn ended with nothing having been run for it."""
    if not isinstance(found, TurnRecord) or found.error is None or found.steps:
        return False
    has_answer = found.answer is not None and found.answer != AssistantMessage()
    return MEANINGS[found.error.code].outcome == "refused" and not has_answer
