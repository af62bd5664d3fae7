"""Time in the test's hands, and a bus that only remembers."""

import asyncio
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import cast

from kitemesh_contracts import codec, subjects, topology
from kitemesh_contracts.commands import CancelTurn, Mark
from kitemesh_contracts.deltas import Delta, Frame, TextDelta, TurnEnded
from kitemesh_contracts.errors import ErrorCode, ErrorInfo, Unavailable
from kitemesh_gateway.dialects.base import Place, Rest
from kitemesh_gateway.following import Pieces
from kitemesh_gateway.positions import Position
from kitemesh_gateway.watches import Watched
from kitemesh_runtime.bus import Bus, Listener, Stored

TURN = "01990000-0000-7000-8000-000000000001"


class ManualClock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self._ids = 0

    def monotonic(self) -> float:
        return self.now_s

    def now_ms(self) -> int:
        return int(self.now_s * 1000)

    def new_id(self) -> str:
        self._ids += 1
        return f"id-{self._ids}"


class DeafSubscription:
    """Ends by being forgotten."""

    def __init__(self, listeners: dict[str, Listener], subject: str) -> None:
        self._listeners = listeners
        self._subject = subject

    async def stop(self) -> None:
        del self._listeners[self._subject]


class DeafBus:
    """Takes publications and subscriptions; the test plays the server."""

    def __init__(self) -> None:
        self.connected = True
        self.published: list[tuple[str, bytes]] = []
        self.listeners: dict[str, Listener] = {}
        self.reconnected: list[Callable[[], None]] = []
        self.captured: dict[str, bytes] = {}
        self.reads: list[str] = []
        self.queued: set[str] = set()
        self._read = asyncio.Condition()

    def publish(self, subject: str, payload: bytes) -> None:
        if not self.connected:
            raise Unavailable(ErrorCode.BUS_DOWN, "down")
        self.published.append((subject, payload))

    async def subscribe(self, subject: str, listener: Listener) -> DeafSubscription:
        self.listeners[subject] = listener
        return DeafSubscription(self.listeners, subject)

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        self.reconnected.append(callback)

    def reconnect(self) -> None:
        """Lose the connection and have it back."""
        for callback in self.reconnected:
            callback()

    async def barrier(self) -> None:
        pass

    async def last_of(self, stream: str, subject: str) -> list[Stored]:
        """Return what was captured under `block.*`, whichever gateway it is addressed to."""
        assert stream == topology.OUT
        async with self._read:
            self.reads.append(subject)
            self._read.notify_all()
        if not self.connected:
            raise Unavailable(ErrorCode.BUS_DOWN, "down")
        wanted = subject.split(".")
        return [
            Stored(sequence, each, payload)
            for sequence, (each, payload) in enumerate(self.captured.items(), start=1)
            if all(mine in ("*", theirs) for mine, theirs in zip(wanted, each.split("."), strict=True))
        ]

    async def was_read(self, times: int) -> None:
        """Wait until somebody has asked so often for what is captured."""
        async with self._read:
            await self._read.wait_for(lambda: len(self.reads) >= times)

    async def holds(self, stream: str, subject: str) -> bool:
        if not self.connected:
            raise Unavailable(ErrorCode.BUS_DOWN, "down")
        return any(fnmatchcase(each, subject) for each in self.queued)

    def as_bus(self) -> Bus:
        return cast("Bus", self)

    @property
    def cancels(self) -> list[CancelTurn]:
        return [codec.decode(codec.CANCEL, data) for subject, data in self.published if ".ctl.cancel." in subject]


class Screen:
    """A sink that shows what it was told, in order."""

    def __init__(self) -> None:
        self.text = ""
        self.ended: TurnEnded | None = None
        self.rest: tuple[Rest, ...] = ()
        self.error: ErrorInfo | None = None
        self.has_acted = False
        self.has_start = False
        self.fed = ""
        self.seen = self.retry_ms = 0
        self.places: list[Place] = []
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self._over = asyncio.Event()

    async def over(self) -> None:
        async with asyncio.timeout(5):
            await self._over.wait()

    def go_on(self, position: Position | None = None) -> None:
        self.has_start = True

    def show(self, place: Place, items: tuple[Delta, ...], seen: int = 0) -> None:
        texts = [item.text for item in items if isinstance(item, TextDelta)]
        self.fed += "".join(texts)
        self.text += "".join(texts[seen:])
        if seen < len(items):
            self.places.append(place)

    def show_all(self, pieces: Pieces) -> None:
        for piece in pieces:
            self.show(*piece)

    async def room(self) -> None:
        await self.may_go_on.wait()

    def send_away(self, place: Place, error: ErrorInfo, *, retry_ms: int) -> None:
        self.retry_ms = retry_ms
        self.fail(place, error, has_acted=False)

    def end(self, ended: TurnEnded, rest: tuple[Rest, ...], seen: int = 0) -> None:
        self.ended, self.rest, self.seen = ended, rest, seen
        self.text += "".join(item.text for _, items in rest for item in items if isinstance(item, TextDelta))
        self._over.set()

    def fail(self, place: Place, error: ErrorInfo, *, has_acted: bool) -> None:
        self.error, self.has_acted = error, has_acted
        self._over.set()

    @property
    def is_over(self) -> bool:
        return self.ended is not None or self.error is not None


def watched(turn: str = TURN, **fields: object) -> Watched:
    values: dict[str, object] = {"conversation": "conv", "fresh": True, "stream": True, "budget_s": 600.0, **fields}
    return Watched(turn=turn, tenant="acme", **values)  # type: ignore[arg-type]


def frame(n: int, *texts: str, after: tuple[int, int, int] | None = None, offset: int = 0) -> Frame:
    mark = None if after is None else Mark(step=after[0], attempt=after[1], n=after[2])
    return Frame(n=n, offset=offset, items=tuple(TextDelta(text=text) for text in texts), after=mark)


def ended(text: str, *, step: int = 1, attempt: int = 1, last: int = 0, **fields: object) -> TurnEnded:
    values: dict[str, object] = {"turn": TURN, "tenant": "acme", "outcome": "completed", "finish": "stop", **fields}
    return TurnEnded(step=step, attempt=attempt, last=last, text=text, **values)  # type: ignore[arg-type]


def live(turn: str = TURN, attempt: int = 1, step: int = 1, gateway: str = "gw") -> str:
    return subjects.live(gateway, turn, step, attempt)
