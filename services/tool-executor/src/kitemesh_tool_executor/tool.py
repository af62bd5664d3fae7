"""The port that every kind of tool implements."""

from typing import Protocol


class Tool(Protocol):
    """Something a model may ask to have run."""

    async def run(self, arguments: str) -> str:
        """Run once and return what the model will see.

        Args:
            arguments: JSON text from a model: hostile until validated.

        Raises:
            ToolFailed: The arguments do not fit, or the tool could not do it.

        """
