"""A model that says one thing, whatever it is asked: for maintenance, so that clients hear words and not an error."""

from typing import Final

from kitemesh_contracts.deltas import TextDelta
from kitemesh_model_runner.provider import Generated, ModelCall, Prefix, Sink
from kitemesh_runtime.catalog import FixedProvider


class FixedAnswer:
    """The answer."""

    kind: Final = "fixed"

    def __init__(self, config: FixedProvider) -> None:
        self._deltas: Final = (TextDelta(text=config.text),)

    def can_continue(self, prefix: Prefix) -> bool:  # noqa: ARG002  it says one thing, and whole
        """Never."""
        return False

    async def generate(self, call: ModelCall, sink: Sink) -> Generated:  # noqa: ARG002  it does not listen
        """Say it."""
        await sink(self._deltas)
        return Generated(finish="stop", usage=None)
