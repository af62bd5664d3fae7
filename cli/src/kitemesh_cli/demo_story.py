"""What the demo's model is told to say, and the judgement of what reached the reader. Pure but for the clock."""

import time
from typing import Final

SCRIPT: Final = (
    "A turn begins as a message on a queue, not as a socket that somebody has to hold open. A gateway takes the "
    "request, stores the turn, and only then says yes. An orchestrator, whichever is free, decides what comes next "
    "and hands the work to a runner. The runner asks the model and sends on each piece of the answer, numbered and "
    "kept for a while, so that it can be read again. Now suppose that the runner dies in the middle of a sentence. "
    "Nobody has acknowledged its job, so after a few seconds the queue gives it to another one, and what was already "
    "shown stays as it is. Suppose that the gateway dies, too. The client knows the last piece that it has seen, asks "
    "any other gateway for what comes after it, and gets exactly that: nothing is missing and nothing comes twice. "
    "The turn itself has noticed neither of the two deaths. It was never inside a process that could die. It was in "
    "the store, on the queue, and on its way."
)

_MS: Final = 1000.0


class Story:
    """The stream as its reader has it so far.

    Attributes:
        silences_ms: The longest one after each death.

    """

    def __init__(self) -> None:
        self.text = ""
        self.ids: list[str] = []
        self.finish: str | None = None
        self.silences_ms: dict[str, float] = {}
        self._victim = ""
        self._newest = time.monotonic()

    def struck(self, name: str) -> None:
        """Count silence from now on for this victim."""
        self._victim = name
        self._newest = time.monotonic()

    def add(self, id_: str, text: str, finish: str | None) -> None:
        """Take an event."""
        now = time.monotonic()
        if self._victim and text:
            silent_ms = (now - self._newest) * _MS
            self.silences_ms[self._victim] = max(silent_ms, self.silences_ms.get(self._victim, 0.0))
        self._newest = now if text else self._newest
        self.ids.append(id_)
        self.text += text
        self.finish = finish or self.finish

    @property
    def share(self) -> float:
        """How much of the script has come."""
        return len(self.text) / len(SCRIPT)

    def problems(self) -> list[str]:
        """Say what is wrong with the whole; nothing when it is exactly the script."""
        found = []
        if self.text != SCRIPT:
            same = next((n for n, (a, b) in enumerate(zip(self.text, SCRIPT, strict=False)) if a != b), None)
            at = min(len(self.text), len(SCRIPT)) if same is None else same
            found.append(f"the text is not the script: it differs from character {at + 1} on")
        if len(set(self.ids)) != len(self.ids):
            found.append("an event came twice")
        if self.finish != "stop":
            found.append(f"the answer ended with {self.finish or 'nothing'}")
        return found
