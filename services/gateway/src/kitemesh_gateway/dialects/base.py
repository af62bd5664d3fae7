"""What a dialect is: `parse` from a decoded body to a canonical request, and an encoder from canonical deltas to bytes.

Both halves are pure. A dialect knows neither HTTP's machinery nor the bus, so the same turn gives the same bytes at
any gateway.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, Protocol
from zlib import crc32

from msgspec import Struct

from kitemesh_contracts.commands import Priority
from kitemesh_contracts.content import Message, Sampling, ToolSpec
from kitemesh_contracts.deltas import Delta, TurnEnded
from kitemesh_contracts.errors import BadRequest, ErrorCode, ErrorInfo
from kitemesh_gateway.positions import Position

JSON: Final = "application/json"
SSE_HEADERS: Final[Mapping[str, str]] = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}

RETRIED: Final = frozenset({429, 503})
"""Statuses that always say when to come back."""

FINAL: Final = frozenset(
    {
        ErrorCode.TURN_CANCELLED,
        ErrorCode.CONVERSATION_HELD,
        ErrorCode.MESSAGE_EXISTS,
        ErrorCode.APPROVAL_DECIDED,
        ErrorCode.TOOL_CHANGED,
    },
)
"""Codes whose answers say that a retry is of no use: clients repeat a bare 409, and some others, by themselves."""

MAX_MISTAKES_SHOWN: Final = 20

WantedMode = Literal["auto", "classic", "durable"]
"""`auto`: as the agent says, which is classic where none says anything."""


class TurnRequest(Struct, frozen=True, kw_only=True):
    """What a client asked for, free of its dialect.

    Attributes:
        model: As the client wrote it; `None` when it named none.
        messages: Everything that the request holds, in order.
        agent: Answers, whatever the model; a model beside it takes the place of the agent's own.
        default_agent: Where `agent` is `None`, that of the key answers, if it has one.
        keep: A conversation is kept.
        conversation: The stored conversation to go on with.
        creates: It is made, under that id, if there is none.
        label: The client's own name for the request, echoed.
        include_usage: A stream ends with the token counts.
        tools: The caller's own, run by the caller.
        tool_choice: As `StartTurn` has it.
        parallel_calls: `False`: one call a step at the most.
        durable: It never runs classic.
        prompt: Takes the place of the agent's prompt.
        values: For the places of the agent's prompt, as its `headers_schema` wants them.
        role: The catalog role that speaks.
        retrieval: Passages of the knowledge base go with the prompt.
        denies_holds: Nobody can answer: a call that needs a person is denied.
        message: The client's id of its new message, which must be unique; empty when it gave none.
        row: The first of the integer ids of the turn's rows; 0 when they have none.
        details: What the client wants kept with the turn: JSON text of an object, or empty.
        priority: As the client wants it; `None`: as its key says.
        max_wait_s: How long the turn may wait for its first model call.
        files: The bytes of the files in `messages` whose blob is `#` and a place in this list.

    """

    model: str | None
    messages: tuple[Message, ...]
    sampling: Sampling
    stream: bool
    keep: bool = True
    conversation: str | None = None
    label: str | None = None
    include_usage: bool = False
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: str = "auto"
    parallel_calls: bool | None = None
    mode: WantedMode = "auto"
    agent: str | None = None
    default_agent: bool = False
    creates: bool = False
    durable: bool = False
    prompt: str | None = None
    values: Mapping[str, Any] = {}
    role: str | None = None
    retrieval: bool = False
    denies_holds: bool = False
    message: str = ""
    row: int = 0
    details: str = ""
    priority: Priority | None = None
    max_wait_s: float | None = None
    files: tuple[bytes, ...] = ()


class Facts(Struct, frozen=True, kw_only=True):
    """What an answer says about its turn.

    Attributes:
        created_s: When the turn was accepted, epoch seconds.
        label: The client's own name for the request, else the request id.
        resumable: The ids of its events say what was shown, and errors have none: see `Tally`.
        after_step: The answer begins behind this step.
        message: The client's id of its message.
        row: The first of the integer ids of the turn's rows.
        agent: Who answers.
        own_tools: The caller's tools, where a call of one is the caller's as soon as it is begun: no tool runs here,
            and the stream cannot be resumed.
        one_call: Only the first call of a step counts.

    """

    turn: str
    model: str
    created_s: int
    label: str
    conversation: str | None
    include_usage: bool
    resumable: bool = False
    after_step: int = 0
    message: str = ""
    row: int = 0
    agent: str | None = None
    own_tools: frozenset[str] = frozenset()
    one_call: bool = False


class Place(NamedTuple):
    """Where in a turn something is: the frame's step, attempt and number."""

    step: int
    attempt: int
    n: int


class Rest(NamedTuple):
    """Text and reasoning of one step that a client has not been shown."""

    step: int
    items: tuple[Delta, ...]


_NOTHING_SHOWN: Final = b".0-00000000"


class Tally:
    """What a stream has shown of its current step, as the ids of a resumable stream's events say it.

    Args:
        after_step: The stream begins behind this step.
        usage: It ends with the token counts; only what begins behind a step says so, the rest is as its turn is stored.
        words: For a dialect that numbers its events in its own way: its letter, `n` for the native events, `r` for
            `run_chat` and `o` for it with operations, `a` for `agents`, which tells no calls.

    A client that comes back is shown what follows its last id, so each event is counted before its id is written. What
    closes a stream goes behind the step's last frame: text that was missing under `last + 1`, all the rest under
    `last + 2`; `run_chat` has what was missing under 0, for of calls and results no number says how much was told.
    The error that ends a stream has no id: it was not reached, and the one before it is to stay.

    Attributes:
        parts: As `Position` has it; set by a dialect that has parts, before it asks for a tail.

    """

    __slots__ = (
        "_calls",
        "_reasoning",
        "_reasoning_crc",
        "_step",
        "_stream",
        "_text",
        "_text_crc",
        "_usage",
        "_words",
        "parts",
    )

    def __init__(self, after_step: int = 0, *, usage: bool = False, words: str = "") -> None:
        self.parts = b""
        self._words: Final = words.encode()
        self._usage: Final = b"u" if usage and after_step else b""
        self._stream: Final = b"~%d" % after_step if after_step or words else b""
        self._step = self._calls = self._text = self._text_crc = self._reasoning = self._reasoning_crc = 0

    def add_text(self, step: int, text: str) -> None:
        """Count answer text that an event shows."""
        if step != self._step:
            self._begin(step)
        self._text += len(text)
        self._text_crc = crc32(text.encode(), self._text_crc)

    def add_reasoning(self, step: int, text: str) -> None:
        """Count reasoning that an event shows."""
        if step != self._step:
            self._begin(step)
        self._reasoning += len(text)
        self._reasoning_crc = crc32(text.encode(), self._reasoning_crc)

    def add_call(self, step: int, index: int) -> None:
        """Count a call that an event tells."""
        if step != self._step:
            self._begin(step)
        self._calls = max(self._calls, index + 1)

    def add_calls(self, step: int, count: int) -> None:
        """Count the calls of a step, the first ones, that were told to their end."""
        if count:
            self.add_call(step, count - 1)

    def tail(self, step: int) -> bytes:
        """Return what the id of an event of a step ends with."""
        is_this = step == self._step
        stream = self._stream
        if self._words:
            stream = b"%b%b%d%b%b" % (stream, self._words, self._calls if is_this else 0, self.parts, self._usage)
        elif self._usage:
            stream += self._usage
        if not is_this:
            # The event that opens a stream may be encoded after the first text is counted.
            return _NOTHING_SHOWN + stream
        if self._reasoning:
            return b".%d-%08x.%d-%08x%b" % (self._text, self._text_crc, self._reasoning, self._reasoning_crc, stream)
        return b".%d-%08x%b" % (self._text, self._text_crc, stream)

    def _begin(self, step: int) -> None:
        self._step = step
        self._calls = self._text = self._text_crc = self._reasoning = self._reasoning_crc = 0


class Encoder(Protocol):
    """One answer's bytes. A stream is `start`, then `delta`s, then one of `end` and `error`.

    Each event ends with the only empty line in it. Whoever resumes a stream drops the first events of what an encoder
    returns, by those lines; so the same deltas must give the same events, however often they are encoded.
    """

    def start(self) -> bytes:
        """Return the events that open a stream."""

    def resume(self, position: Position) -> None:
        """Take it that the client has what was encoded so far, up to an event that cannot be told apart any more."""

    def delta(self, place: Place, items: Sequence[Delta]) -> bytes:
        """Return the events of one frame; none when it has nothing that this dialect shows."""

    def end(self, ended: TurnEnded, rest: Sequence[Rest]) -> bytes:
        """Return the events that close a stream which is complete or held; `rest` is the text not shown yet.

        Text under each step's `last + 1`, the others under the ended step's `last + 2`.
        """

    def error(self, place: Place, error: ErrorInfo, request_id: str) -> bytes:
        """Return the events that close a stream which could not finish."""

    def whole(self, ended: TurnEnded) -> bytes:
        """Return the body of an answer that is not streamed."""


class ErrorBody(NamedTuple):
    """A refusal's body.

    Attributes:
        status: Where it is not the one that the error's code means; else 0.

    """

    content_type: str
    body: bytes
    status: int = 0


class Mistake(NamedTuple):
    """One thing that is wrong with a request.

    Attributes:
        field: Dotted path; empty for the body as a whole.
        unsupported: Nothing is wrong with it, but this server does not do it.
        value: What stands there, for dialects that repeat it; `None` where that is long, or no single value.

    """

    field: str
    what: str
    unsupported: bool = False
    value: str | float | bool | None = None


class Refused(NamedTuple):
    """The request that an error is the answer to.

    Attributes:
        path: Decoded.
        mistakes: Everything that is wrong with it, where that is known.
        conversation: That it names, once that is known.

    """

    request_id: str
    path: str = ""
    mistakes: tuple[Mistake, ...] = ()
    conversation: str = ""

    @property
    def param(self) -> str | None:
        """The first field at fault."""
        return (self.mistakes[0].field or None) if self.mistakes else None


class Dialect(Protocol):
    """One route family."""

    @property
    def name(self) -> str:
        """What logs and metrics call it."""

    @property
    def words(self) -> str:
        """How the ids of its events say that they are its own; see `Tally`."""

    @property
    def stream_headers(self) -> Mapping[str, str]:
        """Headers of its streams."""

    def parse(self, body: object) -> TurnRequest:
        """Validate a decoded body.

        Raises:
            Mistakes: With everything that is wrong.

        """

    def encoder(self, facts: Facts) -> Encoder:
        """Return the encoder of one answer."""

    def refusal(self, error: ErrorInfo, about: Refused) -> ErrorBody:
        """Return the body of an error that is told before anything else was sent."""


class Mistakes(BadRequest):
    """Everything that is wrong with a request.

    Attributes:
        mistakes: In the order of the fields; at least one.

    """

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes: Final = tuple(mistakes)
        unsupported = all(mistake.unsupported for mistake in self.mistakes)
        super().__init__(
            ErrorCode.REQUEST_UNSUPPORTED if unsupported else ErrorCode.REQUEST_INVALID,
            self._list(),
        )

    @property
    def param(self) -> str | None:
        """The first field at fault."""
        return self.mistakes[0].field or None

    def _list(self) -> str:
        shown = [
            f"{mistake.field}: {mistake.what}" if mistake.field else mistake.what
            for mistake in self.mistakes[:MAX_MISTAKES_SHOWN]
        ]
        more = len(self.mistakes) - len(shown)
        return "; ".join(shown) + (f"; and {more} more" if more else "")
