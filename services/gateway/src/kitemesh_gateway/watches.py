"""One open turn as this gateway watches it: when it was last heard of, and when to look, give up, or settle. Pure.

Time is passed in. A watch says what is due; the relay does it.
"""

from typing import Final, Literal, Protocol

from msgspec import Struct
from msgspec.structs import replace

from kitemesh_contracts.content import Step
from kitemesh_contracts.deltas import Delta, Frame, TurnEnded
from kitemesh_contracts.errors import MEANINGS, ErrorCode, ErrorInfo, KitemeshError
from kitemesh_gateway.attempts import Shown
from kitemesh_gateway.backlog import Backlog
from kitemesh_gateway.dialects.base import Place, Rest
from kitemesh_gateway.following import Followed, Pieces
from kitemesh_gateway.positions import Position

SETTLE_S: Final = 1.0
"""How long the closing event waits for frames that it overtook."""
LOOK_S: Final = 15.0
"""Silence after which the stored turn is looked for."""
LOOK_DURABLE_S: Final = (2.0, 4.0, 8.0, LOOK_S)
"""The same for a turn that somebody else may have had go on, and whose events may go to nobody: each time longer."""
LOST_S: Final = 45.0
"""Silence after which a turn that somebody worked on, or whose closing event may be gone, is given up."""
BUDGET_MARGIN_S: Final = 5.0
"""The turn's own services end it by its budget; only when they did not, the gateway does."""

TIMED_OUT: Final = ErrorInfo(code=ErrorCode.TURN_TIMEOUT, message="The turn took longer than it may")
LOST: Final = ErrorInfo(code=ErrorCode.TURN_LOST, message="The turn was lost; its answer cannot be completed")
TAKEN_BACK: Final = ErrorInfo(
    code=ErrorCode.QUEUE_FULL,
    message="The turn was not begun: the queue was full, and the request that it came with was refused",
    retry_after_s=1.0,
)

_BEFORE_ANY_TOOL: Final = frozenset(
    code
    for code, meaning in MEANINGS.items()
    if (meaning.outcome == "refused" or code.startswith("upstream.")) and code is not ErrorCode.STORE_DOWN
)
"""Failures that leave no doubt: what ran before them stands among the earlier steps.

Not so when the store is down: the closing event may then stand for one that was too large to be delivered.
"""

Due = Literal["settle", "look", "timed_out", "lost"]
Next = Literal["settle", "catch_up"]
"""What a message leads to: the end, or reading again what came before it."""


def gap(turn: str) -> ErrorInfo:
    """Say that a stream cannot go on where its client is."""
    message = (
        f"The stream of execution {turn} cannot go on where it was left: its answer goes on differently, or that part "
        f"of it is not kept any more; GET /v1/executions/{turn} shows what became of it"
    )
    return ErrorInfo(code=ErrorCode.STREAM_GAP, message=message)


class TurnFailed(KitemeshError):
    """A turn ended without a complete answer before anything of it was sent.

    Attributes:
        has_acted: A tool has run, or may have: a retry would run it once more.

    """

    def __init__(self, error: ErrorInfo, *, has_acted: bool = False) -> None:
        super().__init__(error.code, error.message, retry_after_s=error.retry_after_s)
        self.has_acted: Final = has_acted
        self._error: Final = error

    def info(self) -> ErrorInfo:
        """Return the error as it came."""
        return self._error


class Watched(Struct, frozen=True, kw_only=True):
    """A turn as far as watching it goes.

    Attributes:
        budget_s: How long it is watched at the most, but for a margin.
        stream: Its frames are shown.
        conversation: Where it has the lock, or may still be waiting.
        fresh: It began the conversation, so that it waits nowhere.
        acts: Tools may run for it.
        durable: It goes on without its client, and has its lock kept by who works on it.
        model: As the request named it.
        after_step: The answer begins behind this step.
        message: The client's id of its message, where the claim of it has to be renewed.
        decided: Calls of that step which the answer begins with: until they are, the turn is held as it was.

    """

    turn: str
    tenant: str
    budget_s: float
    stream: bool
    conversation: str | None = None
    fresh: bool = False
    acts: bool = False
    durable: bool = False
    model: str = ""
    after_step: int = 0
    message: str = ""
    decided: frozenset[str] = frozenset()

    @property
    def is_kept(self) -> bool:
        """Whether the store may know of it: one that holds is stored even where no conversation is kept."""
        return self.conversation is not None or self.acts or self.durable


class Sink(Protocol):
    """Where a turn's answer goes. Called in the read loop: it neither blocks nor raises."""

    def go_on(self, position: Position | None = None) -> None:
        """Take it that the client has the beginning, up to that event; called before anything else."""

    def show(self, place: Place, items: tuple[Delta, ...], seen: int = 0) -> None:
        """Show more, but for the first events, which the client has `seen`."""

    def show_all(self, pieces: Pieces) -> None:
        """Show much more at once."""

    async def room(self) -> None:
        """Return when the client has taken most of what was shown."""

    def end(self, ended: TurnEnded, rest: tuple[Rest, ...], seen: int = 0) -> None:
        """Complete the answer; `rest` is the text that was not shown. Without it, the client may have `seen` some."""

    def fail(self, place: Place, error: ErrorInfo, *, has_acted: bool) -> None:
        """Say that there is no complete answer; `has_acted`: a retry may run a tool once more."""

    def send_away(self, place: Place, error: ErrorInfo, *, retry_ms: int) -> None:
        """Say that the answer goes on elsewhere, for who asks again after `retry_ms`."""


class Watch:
    """An open turn.

    Attributes:
        deadline_s: When it is ended from here, whatever happens.
        backlog: What waits while something before it is read; `None` when nothing is.
        ended: The closing event, without what came before this answer.
        ended_s: When it came; 0 if it did not, or was found in the store.
        looking: The stored turn is being looked for at this moment.
        renewed_s: When the lock of its conversation was last renewed, or taken.

    """

    __slots__ = (
        "_cut_off",
        "_heard",
        "_heard_at_s",
        "_lives",
        "_look_s",
        "_looked_at_s",
        "_looks",
        "_missed",
        "_settle_at_s",
        "_traceless",
        "_worked_on",
        "after_step",
        "backlog",
        "deadline_s",
        "ended",
        "ended_s",
        "followed",
        "looking",
        "renewed_s",
        "shown",
        "sink",
        "turn",
    )

    def __init__(self, turn: Watched, sink: Sink, now_s: float, position: Position | None = None) -> None:
        self.turn: Final = turn
        self.sink: Final = sink
        self.shown: Final = Followed(turn.after_step, position) if turn.durable and turn.stream else Shown()
        self.after_step: Final = max(turn.after_step, self.shown.step)
        self.backlog: Backlog | None = None
        self.ended: TurnEnded | None = None
        self.ended_s = 0.0
        self.looking = False
        self.deadline_s: Final = now_s + turn.budget_s + BUDGET_MARGIN_S
        self.renewed_s = now_s
        self._heard = self._worked_on = self._missed = self._cut_off = False
        self._traceless = False
        self._lives = turn.durable
        self._look_s: Final = LOOK_DURABLE_S if turn.durable else (LOOK_S,)
        self._looks = 0
        self._heard_at_s = self._looked_at_s = now_s
        self._settle_at_s = 0.0

    def on_frame(self, step: int, attempt: int, frame: Frame) -> Next | None:
        """Take a frame; say what it leads to."""
        self._heard = self._worked_on = True
        shown = self.shown
        if isinstance(shown, Shown):
            items = shown.take(step, attempt, frame) if self.turn.stream else ()
            if items:
                self.sink.show(Place(step, attempt, frame.n), items)
        elif self.backlog is not None:
            self.backlog.add(step, attempt, frame)
            return None
        else:
            pieces = shown.take(step, attempt, frame)
            if pieces is None:
                self.backlog = Backlog()
                self.backlog.add(step, attempt, frame)
                return "catch_up"
            for piece in pieces:
                self.sink.show(*piece)
                self._looks = 0
        return self.next()

    def on_ended(self, ended: TurnEnded, now_s: float) -> Next | None:
        """Take the closing event; say what it leads to."""
        if self.ended is None:
            if ended.outcome == "held" and ended.step <= self.after_step and not self._is_held_again(ended):
                # Of the hold that was answered: it came late, or once more.
                return None
            self.ended = self._of_this_answer(ended)
            self.ended_s = now_s
            self._settle_at_s = now_s + SETTLE_S
        return self.next()

    def next(self) -> Next | None:
        """Say whether the turn can be settled now."""
        if self.ended is None or self.backlog is not None:
            return None
        if self.ended.outcome == "held" and self.ended.step < self.shown.step:
            # The turn has gone on since: it came late, or once more.
            self.ended = None
            return None
        return None if self.turn.stream and self.shown.awaits(self.ended) else "settle"

    def on_found(self, ended: TurnEnded) -> None:
        """Take the closing event as the store tells it."""
        self.ended = self._of_this_answer(ended)

    def is_gone(self) -> bool:
        """Tell whether the turn will never be heard of, given that the store does not have it.

        A durable turn is stored before it is watched. A hold may be answered before its turn is.
        """
        return self.turn.durable and not self.turn.after_step and self.ended is None

    def may_be_nowhere(self) -> bool:
        """Tell whether the bus may have lost the turn, of which nobody has spoken, given that the store has it not."""
        return self._cut_off and not (self._lives or self._worked_on)

    def on_traced(self, *, found: bool) -> bool:
        """Note whether there is anything of the turn; tell whether there was nothing twice in a row."""
        is_lost = self._traceless and not found
        self._traceless = not found
        return is_lost and self.ended is None

    def was_begun(self) -> bool:
        """Tell whether anything was heard of the turn, or its client has something of it."""
        return self._worked_on or self.shown.attempt > 0 or self.after_step > 0

    def on_found_live(self) -> None:
        """Note that the store has the turn, which has not ended: whoever sweeps there drives it on."""
        self._lives = True

    def on_reconnect(self) -> None:
        """Note that something may have been missed."""
        self._missed = self._cut_off = True

    def due(self, now_s: float) -> Due | None:
        """Say what is to be done now; called at every tick."""
        if self.ended is not None and (self.backlog is None or now_s >= self.deadline_s):
            return "settle" if now_s >= self._settle_at_s else None
        if now_s >= self.deadline_s:
            return "timed_out"
        if self._heard:
            # Read at the tick rather than at each frame: the clock costs more than the flag.
            self._heard = False
            self._heard_at_s = now_s
        kept = self.turn.is_kept
        if kept and not self.looking and (self._missed or now_s >= self._next_look_s()):
            self._missed = False
            self._looked_at_s = now_s
            self._looks += 1
            return "look"
        mortal = not self._lives and (self._worked_on or (self._cut_off and not kept))
        return "lost" if mortal and now_s >= self._heard_at_s + LOST_S else None

    def has_acted(self) -> bool:
        """Tell whether a tool has run; what is not known of a turn with tools counts as yes."""
        if self.after_step:
            return True
        ended = self.ended
        if ended is None:
            return self.turn.acts
        if any(step.results for step in ended.earlier):
            return True
        return self.turn.acts and (ended.error is None or ended.error.code not in _BEFORE_ANY_TOOL)

    def place_after(self) -> Place:
        """Return the place that follows what was shown."""
        return Place(self.shown.step, self.shown.attempt, self.shown.last + 1)

    def finish(self, ended: TurnEnded) -> bool:
        """Complete the answer; `False` when what was shown is not how it begins."""
        shown = self.shown
        if isinstance(shown, Shown):
            rest = shown.rest(ended)
            if rest is None:
                return False
            self.sink.end(ended, rest)
            return True
        completed = shown.rest(ended)
        if completed is None:
            return False
        silent, rests = completed
        self.sink.show_all(silent)
        self.sink.end(ended, rests, 0 if rests else shown.seen_of(ended))
        return True

    def _is_held_again(self, ended: TurnEnded) -> bool:
        """Tell whether a hold that was answered in part goes on without the calls that were decided."""
        decided = self.turn.decided
        is_same = ended.step == self.turn.after_step
        return is_same and bool(decided) and decided.isdisjoint(call.id for call in ended.calls)

    def _next_look_s(self) -> float:
        waits_s = self._look_s
        return max(self._heard_at_s, self._looked_at_s) + waits_s[min(self._looks, len(waits_s) - 1)]

    def _of_this_answer(self, ended: TurnEnded) -> TurnEnded:
        after = self.turn.after_step
        if not after:
            return ended
        # Of the step that was held only what came of its calls is news.
        earlier = tuple(
            step
            if step.step > after
            else Step(step=step.step, attempt=step.attempt, last=step.last, results=step.results)
            for step in ended.earlier
            if step.step > after or (step.step == after and step.results)
        )
        if ended.step > after:
            return replace(ended, earlier=earlier)
        # Its calls are news, its text is not.
        return replace(ended, earlier=(), text="", reasoning="")
