"""What a client of the load asked for, and what became of it, request by request."""

from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from cluster import GROUP

Mode = Literal["classic", "durable"]
Result = Literal["answered", "failed", "refused", "lost"]
"""`failed` is an explicit error of a turn that was accepted, `refused` one before that; `lost` is neither."""

WORDS: Final = 24
DELAY_MS: Final = 25


class Ask(NamedTuple):
    """One request, in seconds of the monotonic clock.

    Attributes:
        status: Of the HTTP answer; 0 where there was none.
        good: It was all that the client wanted: the rest of the answer, or as much as it stayed for.
        stored: The answer does not say that it could not be stored.

    """

    began_s: float
    ended_s: float
    status: int
    good: bool
    stored: bool = True


@dataclass
class LoadTurn:
    """A turn and what its client was shown.

    Attributes:
        tag: Begins its text, and is its idempotency key where it has one.
        keyed: Its client may ask again under the same key.
        shown: All text, put together over every request.
        leave_after: Its client leaves after so many events of a stream, once, and comes back; `None` stays.
        last_id: Of the last event that the client took.
        problem: Why it was not answered, or what was wrong with it.
        resumes: Requests that carried a position.

    """

    tag: str
    mode: Mode
    stream: bool
    keyed: bool
    leave_after: int | None = None
    execution: str = ""
    result: Result = "lost"
    shown: str = ""
    last_id: str = ""
    problem: str = ""
    resumes: int = 0
    asks: list[Ask] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What it should say."""
        return " ".join([self.tag, *(f"word-{n}" for n in range(WORDS))])

    @property
    def body(self) -> dict[str, Any]:
        """What its client sends."""
        prompt = f"@delay_ms {DELAY_MS}\n@echo {self.text}"
        messages = [{"role": "user", "content": prompt}]
        return {"model": GROUP, "messages": messages, "stream": self.stream, "metadata": {"mode": self.mode}}

    @property
    def began_s(self) -> float:
        """When its client first asked."""
        return self.asks[0].began_s

    @property
    def ended_s(self) -> float:
        """When its client had its last answer."""
        return self.asks[-1].ended_s

    @property
    def is_served(self) -> bool:
        """Whether all is as on a good day: answered, and stored."""
        return self.result == "answered" and self.asks[-1].stored

    @property
    def exact(self) -> bool:
        """Whether what was shown is the text without gap or repeat, or begins so where the turn was not answered."""
        return self.shown == self.text if self.result == "answered" else self.text.startswith(self.shown)
