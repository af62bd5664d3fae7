"""How long a tool call is under way between a model and its tool, as the upstream sees both ends.

A call is known by the number in its arguments. It knows neither connections nor messages.
"""

import time
from collections import Counter, deque
from typing import Any, Final

KEPT: Final = 20_000


class Hops:
    """Notes when calls go out and results come back."""

    def __init__(self) -> None:
        self._clear()

    def on_asked(self, numbers: list[int]) -> None:
        """A model has asked for these calls."""
        now = time.perf_counter()
        for number in numbers:
            self._asked[number] = now

    def on_call(self, tool: str, number: int) -> None:
        """A call has reached its tool."""
        self._calls[tool] += 1
        asked = self._asked.pop(number, None)
        if asked is not None:
            self._to_tool.setdefault(tool, deque(maxlen=KEPT)).append((time.perf_counter() - asked) * 1000)
        self._answered[number] = (tool, 0.0)

    def on_result(self, number: int) -> None:
        """The tool has answered."""
        tool, _ = self._answered[number]
        self._answered[number] = (tool, time.perf_counter())

    def on_prompt(self, numbers: list[int]) -> None:
        """A model is asked to go on after these calls, and perhaps earlier ones."""
        fresh = [self._answered.pop(number) for number in numbers if number in self._answered]
        if fresh:
            tools = "+".join(tool for tool, _ in fresh)
            took = time.perf_counter() - max(answered for _, answered in fresh)
            self._to_model.setdefault(tools, deque(maxlen=KEPT)).append(took * 1000)

    def take(self) -> dict[str, Any]:
        """Return what was noted, in ms, and how often each tool was called; forget it, and what is under way."""
        noted = {
            "calls": dict(self._calls),
            "to_tool": {tool: list(times) for tool, times in self._to_tool.items()},
            "to_model": {tool: list(times) for tool, times in self._to_model.items()},
        }
        self._clear()
        return noted

    def _clear(self) -> None:
        self._asked: dict[int, float] = {}
        self._answered: dict[int, tuple[str, float]] = {}
        self._calls: Counter[str] = Counter()
        self._to_tool: dict[str, deque[float]] = {}
        self._to_model: dict[str, deque[float]] = {}
