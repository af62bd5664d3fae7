"""How what a request may name looks, given how each model's upstream looks. Pure."""

from collections.abc import Callable, Sequence
from typing import Literal

from kitemesh_contracts.beats import Health

State = Literal["ok", "degraded", "down"]


def state_of(models: Sequence[str], health: Callable[[str], Health | None]) -> State:
    """Return how models look of which the first that is well answers.

    Args:
        models: Tried in turn.
        health: Of each; `None` when well.

    """
    seen = {health(model) for model in models}
    if seen == {"down"}:
        return "down"
    return "ok" if seen == {None} else "degraded"
