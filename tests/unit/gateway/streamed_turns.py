"""Durable turns made up at random, and a cluster that tells them, with faults. All of it follows from one seed."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from random import Random
from typing import Final, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from kitemesh_contracts import codec, subjects
from kitemesh_contracts.commands import Mark
from kitemesh_contracts.content import AssistantMessage, CallResult, Step, ToolCall
from kitemesh_contracts.deltas import CallDelta, Delta, Frame, ReasoningDelta, TextDelta
from kitemesh_contracts.errors import ErrorCode, ErrorInfo, Unavailable
from kitemesh_runtime.bus import Stored
from kitemesh_runtime.holds import HeldCall, Hold
from kitemesh_runtime.live_turns import Job, LiveTurn
from kitemesh_runtime.stored_endings import ended_from, held_from
from kitemesh_runtime.turns import TurnRecord
from unit.gateway.rig import TURN, DeafBus

TENANT: Final = "acme"
WORDS: Final = ("a", "bb", "ccc ", "é", "😀", "\n\n", "x\ny", " ")
CUT: Final = ErrorInfo(code=ErrorCode.UPSTREAM_CUT, message="cut")


class Faults(Struct, frozen=True, kw_only=True):
    """What goes wrong, each the probability that it does.

    Attributes:
        crashes: A step takes several attempts.
        others: An attempt that died told something else.
        lost: A frame does not arrive.
        late: It arrives behind later ones.
        twice: It arrives twice.
        uncaptured: It is not captured.
        wiped: Everything captured so far is lost.
        unanswered: The bus or the store does not answer.
        end_lost: The closing event does not arrive.

    """

    crashes: float = 0
    others: float = 0
    lost: float = 0
    late: float = 0
    twice: float = 0
    uncaptured: float = 0
    wiped: float = 0
    unanswered: float = 0
    end_lost: float = 0


class Attempt(NamedTuple):
    """One attempt's frames; the last one of a step is the one that counts."""

    step: int
    attempt: int
    frames: tuple[Frame, ...]


class Plan(NamedTuple):
    """A whole turn: the attempts in order, and the steps as they are stored."""

    attempts: tuple[Attempt, ...]
    steps: tuple[Step, ...]
    outcome: str


def plan(chance: Random, faults: Faults) -> Plan:
    """Make a turn up."""
    outcome = chance.choice(["completed"] * 4 + ["held", "failed"])
    attempts: list[Attempt] = []
    steps: list[Step] = []
    after: Mark | None = None
    for step in range(1, chance.choice([1, 1, 2, 3]) + 1):
        is_calling = chance.random() < 0.8 or outcome == "held"
        calls = (ToolCall(id=f"c-{step}", name="look", arguments="{}"),) if is_calling else ()
        texts = (_words(chance, 0, 6), _words(chance, 0, 16))
        told = _items(chance, *texts, calls)
        count = chance.choice([2, 3]) if chance.random() < faults.crashes else 1
        for attempt in range(1, count):
            other = _items(chance, *_other(chance, *texts), calls) if chance.random() < faults.others else told
            died = _frames(chance, other, after)
            attempts.append(Attempt(step, attempt, died[: chance.randint(0, len(died))]))
        final = _frames(chance, _continued(chance, told) if count > 1 else told, after)
        attempts.append(Attempt(step, count, final))
        after = Mark(step=step, attempt=count, n=len(final))
        results = tuple(CallResult(call=call.id, text="ok") for call in calls)
        steps.append(
            Step(
                step=step,
                attempt=count,
                last=len(final),
                reasoning=texts[0],
                text=texts[1],
                calls=calls,
                results=results,
            )
        )
    return Plan(tuple(attempts), tuple(steps), outcome)


def _words(chance: Random, least: int, most: int) -> str:
    return "".join(chance.choice(WORDS) for _ in range(chance.randint(least, most)))


def _other(chance: Random, reasoning: str, text: str) -> tuple[str, str]:
    return chance.choice(
        [
            ("", text),
            (reasoning[: chance.randint(0, len(reasoning))], text),
            ("zz", text),
            (text, reasoning),
            (reasoning, "zz" + text),
        ]
    )


def _items(chance: Random, reasoning: str, text: str, calls: Iterable[ToolCall]) -> list[Delta]:
    items: list[Delta] = [ReasoningDelta(text=part) for part in _parts(chance, reasoning)]
    items += [TextDelta(text=part) for part in _parts(chance, text)]
    for index, call in enumerate(calls):
        items += [CallDelta(index=index, id=call.id, name=call.name), CallDelta(index=index, arguments="{}")]
    return items


def _parts(chance: Random, text: str) -> list[str]:
    parts = []
    while text:
        size = chance.randint(1, 6)
        parts.append(text[:size])
        text = text[size:]
    return parts


def _continued(chance: Random, told: Sequence[Delta]) -> list[Delta]:
    """Tell it in other pieces, as an attempt does that begins with what was captured of the one before it."""
    reasoning = "".join(item.text for item in told if isinstance(item, ReasoningDelta))
    text = "".join(item.text for item in told if isinstance(item, TextDelta))
    return [*_items(chance, reasoning, text, ()), *(item for item in told if isinstance(item, CallDelta))]


def _frames(chance: Random, items: Sequence[Delta], after: Mark | None) -> tuple[Frame, ...]:
    frames: list[Frame] = []
    offset = 0
    while items:
        size = chance.choice([1, 1, 1, 2, 3])
        some, items = tuple(items[:size]), items[size:]
        frames.append(Frame(n=len(frames) + 1, offset=offset, items=some, after=None if frames else after))
        offset += sum(len(item.text) for item in some if isinstance(item, TextDelta))
    return tuple(frames)


class FaultyBus(DeafBus):
    """Does not always answer."""

    def __init__(self, chance: Random, unanswered: float) -> None:
        super().__init__()
        self._chance = chance
        self._unanswered = unanswered

    async def last_of(self, stream: str, subject: str) -> list[Stored]:
        for _ in range(self._chance.choice([0, 1, 4])):
            await asyncio.sleep(0)
        if self._chance.random() < self._unanswered:
            raise Unavailable(ErrorCode.BUS_DOWN, "no answer")
        return await super().last_of(stream, subject)


class Cluster:
    """Tells a turn, one happening after another; it is the store of turns and of holds as well."""

    def __init__(self, chance: Random, faults: Faults, turn: Plan) -> None:
        self.bus = FaultyBus(chance, faults.unanswered)
        self._chance = chance
        self._faults = faults
        self._live = LiveTurn(id=TURN, tenant=TENANT, version=1, status="running", mode="durable", model="m", state=b"")
        self._stored: LiveTurn | TurnRecord = self._live
        self._hold: Hold | None = None
        self._late: list[tuple[str, bytes]] = []
        self._happenings = self._happen(turn)

    async def get(self, tenant: str, key: str) -> LiveTurn | TurnRecord | Hold | None:
        """Return the turn, or the hold that it waits for."""
        assert tenant == TENANT
        await asyncio.sleep(0)
        if self._chance.random() < self._faults.unanswered:
            raise Unavailable(ErrorCode.STORE_DOWN, "no answer")
        return self._stored if key == TURN else self._hold

    def go_on(self) -> bool:
        """Let something happen; tell whether anything was left to happen."""
        if self._late and (not self._happenings or self._chance.random() < 0.5):
            self._hear(*self._late.pop(self._chance.randrange(len(self._late))))
        elif self._happenings:
            self._happenings.pop(0)()
            if self._chance.random() < self._faults.wiped:
                self.bus.captured.clear()
        else:
            return False
        return True

    def _happen(self, turn: Plan) -> list[Callable[[], None]]:
        happenings: list[Callable[[], None]] = []
        for each in turn.attempts:
            happenings.append(partial(self._begin, each, turn.steps[: each.step - 1]))
            happenings += [partial(self._tell, each, frame) for frame in each.frames]
        return [*happenings, partial(self._end, turn)]

    def _begin(self, told: Attempt, steps: tuple[Step, ...]) -> None:
        job = Job(kind="model", step=told.step, attempt=told.attempt, pool="p")
        self._stored = self._live = replace(self._live, steps=steps, jobs=(job,))

    def _tell(self, told: Attempt, frame: Frame) -> None:
        subject = subjects.out_frame(subjects.out("any", TURN, told.step, told.attempt), frame.n)
        payload = codec.encode(frame)
        is_heard_first = self._chance.random() < 0.5
        if is_heard_first:
            self._publish(subject, payload)
        if self._chance.random() >= self._faults.uncaptured:
            self.bus.captured[subject] = payload
        if not is_heard_first:
            self._publish(subject, payload)

    def _publish(self, subject: str, payload: bytes) -> None:
        if self._chance.random() < self._faults.lost:
            return
        if self._chance.random() < self._faults.late:
            self._late.append((subject, payload))
            return
        self._hear(subject, payload)
        if self._chance.random() < self._faults.twice:
            self._hear(subject, payload)

    def _end(self, turn: Plan) -> None:
        *before, last = turn.steps
        if turn.outcome == "held":
            waiting = replace(last, results=())
            self._hold = Hold(id="h", tenant=TENANT, turn=TURN, step=last.step, model="m", calls=_held(last))
            self._live = replace(self._live, steps=(*before, waiting), status="held", hold="h", jobs=())
            self._stored, closing = self._live, held_from(self._live, self._hold)
        else:
            is_whole = turn.outcome == "completed"
            self._stored = TurnRecord(
                id=TURN,
                tenant=TENANT,
                status="completed" if is_whole else "failed",
                mode="durable",
                model="m",
                answer=AssistantMessage(text=last.text, reasoning=last.reasoning),
                steps=tuple(before),
                finish="stop" if is_whole else None,
                error=None if is_whole else CUT,
                attempt=last.attempt,
                last=last.last,
            )
            closing = ended_from(self._stored)
        if self._chance.random() >= self._faults.end_lost:
            subject = subjects.live("any", TURN, closing.step, closing.attempt)
            self._hear(subject, codec.encode(closing), subjects.live_turn(TURN))

    def _hear(self, subject: str, payload: bytes, wildcard: str = subjects.out_turn(TURN)) -> None:
        if listener := self.bus.listeners.get(wildcard):
            listener(subject, payload)


def _held(step: Step) -> tuple[HeldCall, ...]:
    return tuple(
        HeldCall(
            id=call.id, name="look", version="v", effect="once", arguments="{}", sha256="x", sentence="L", shown="{}"
        )
        for call in step.calls
    )
