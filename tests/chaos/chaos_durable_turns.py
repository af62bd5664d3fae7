"""Durable turns as clients ask for them: what each kind sends, what it must say, and what its client was shown."""

from dataclasses import dataclass, field
from typing import Any, Final, Literal

from chaos.chaos_turns import Turn
from chaos.effect_catalog import EFFECTS, Effect
from cluster import GROUP

Kind = Literal["keyed", "keyless", "whole", "polled", "followed", "talk", "tool", "held"]
"""A long stream, with a key and without one; an answer in one piece; a background run that is asked for, or followed
from event to event; the second turn of a conversation; a turn that calls a tool, and one whose call is approved."""

KINDS: Final[tuple[Kind, ...]] = (
    "keyed",
    "tool",
    "keyless",
    "held",
    "followed",
    "tool",
    "whole",
    "held",
    "polled",
    "talk",
)
"""In the order in which a load goes through them; tools and holds come with each effect class in turn."""
WORDS: Final = 50
DELAY_MS: Final = 40
"""A stream speaks for two seconds."""
WITH_TOOLS: Final = frozenset({"tool", "held"})


@dataclass
class DurableTurn(Turn):
    """A durable turn and its client.

    Attributes:
        conversation: That the turn belongs to; empty as long as nobody knows.
        after: How many turns of that conversation there are before it.
        last_id: Of the last event that the client took of the answer under way.
        accepted_s: When its client first saw the headers of an answer, in seconds of the monotonic clock; 0 never.
        ids: Every execution that an answer named.
        progress_s: When something new arrived, in seconds of the monotonic clock.
        again: Requests that were sent after the first one of an answer.
        resumes: Those of them that carried a position.
        is_behind_claim: Its key was said to be claimed and without a turn: a gateway died in between, or is at it.
        errors: Explicit errors within streams, and final refusals.
        wrong: What no client may be shown.

    """

    kind: Kind = "keyed"
    conversation: str = ""
    after: int = 0
    last_id: str = ""
    accepted_s: float = 0.0
    ids: set[str] = field(default_factory=set)
    progress_s: list[float] = field(default_factory=list)
    again: int = 0
    resumes: int = 0
    is_behind_claim: bool = False
    errors: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def is_keyed(self) -> bool:
        """Whether its client may ask again for the same turn."""
        return self.kind != "keyless"

    @property
    def tags(self) -> dict[str, Effect]:
        """The effects that it has."""
        return {self.tag: self.effect} if self.kind in WITH_TOOLS else {}

    @property
    def answer(self) -> str:
        """What it must say."""
        if self.kind in WITH_TOOLS:
            return super().answer
        if self.kind == "talk" and self.after:
            return " ".join(["user", "assistant"] * self.after + ["user"])
        return f"{self.tag}: " + " ".join(f"{n}" for n in range(1, WORDS + 1))

    @property
    def prompt(self) -> str:
        """What its client asks."""
        if self.kind in WITH_TOOLS:
            return super().prompt
        if self.kind == "talk" and self.after:
            return f"{self.tag}\n@roles"
        return f"@delay_ms {DELAY_MS}\n@echo {self.answer}"

    @property
    def body(self) -> dict[str, Any]:
        """What its client sends."""
        metadata = {"mode": "durable"} | ({"conversation_id": self.conversation} if self.after else {})
        messages = [{"role": "user", "content": self.prompt}]
        body = {"model": GROUP, "messages": messages, "metadata": metadata}
        return body if self.kind in ("polled", "followed") else {**body, "stream": self.stream}


def write_turn(tag: str, number: int, *, stream: bool) -> DurableTurn:
    """Make the turn that comes at a place of the load."""
    kind = KINDS[number % len(KINDS)]
    effect = EFFECTS[(number // 2) % len(EFFECTS)]
    stream = stream if kind in WITH_TOOLS else kind not in ("whole", "polled")
    return DurableTurn(tag, effect, "held" if kind == "held" else "plain", stream, kind=kind)


def continued(before: DurableTurn) -> DurableTurn:
    """Make the turn that follows another in its conversation."""
    return DurableTurn(
        f"{before.tag}-next",
        before.effect,
        "plain",
        before.stream,
        kind="talk",
        conversation=before.conversation,
        after=before.after + 1,
    )
