"""Time in the test's hands, and a bus that only remembers."""

import asyncio
from collections.abc import Callable
from typing import cast

from kitemesh_contracts import codec, subjects
from kitemesh_contracts.commands import CancelTurn, Route, StartTurn
from kitemesh_contracts.content import TextPart, UserMessage
from kitemesh_contracts.deltas import Delta, Frame, TextDelta, TurnEnded
from kitemesh_contracts.errors import ErrorCode, ErrorInfo, Unavailable
from kitemesh_gateway.dialects.base import Place
from kitemesh_runtime.bus import Bus, Listener

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


class DeafBus:
    """Takes publications and subscriptions; the test plays the server."""

    def __init__(self) -> None:
        self.connected = True
        self.published: list[tuple[str, bytes]] = []
        self.listeners: dict[str, Listener] = {}
        self.reconnected: list[Callable[[], None]] = []

    def publish(self, subject: str, payload: bytes) -> None:
        if not self.connected:
            raise Unavailable(ErrorCode.BUS_DOWN, "down")
        self.published.append((subject, payload))

    async def subscribe(self, subject: str, listener: Listener) -> None:
        self.listeners[subject] = listener

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        self.reconnected.append(callback)

    def reconnect(self) -> None:
        """Lose the connection and have it back."""
        for callback in self.reconnected:
            callback()

    async def barrier(self) -> None:
        pass

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
        self.rest: tuple[Delta, ...] = ()
        self.error: ErrorInfo | None = None
        self._over = asyncio.Event()

    async def over(self) -> None:
        async with asyncio.timeout(5):
            await self._over.wait()

    def show(self, place: Place, items: tuple[Delta, ...]) -> None:
        self.text += "".join(item.text for item in items if isinstance(item, TextDelta))

    def end(self, ended: TurnEnded, rest: tuple[Delta, ...]) -> None:
        self.ended, self.rest = ended, rest
        self.text += "".join(item.text for item in rest if isinstance(item, TextDelta))
        self._over.set()

    def fail(self, place: Place, error: ErrorInfo) -> None:
        self.error = error
        self._over.set()

    @property
    def is_over(self) -> bool:
        return self.ended is not None or self.error is not None


def start(
    turn: str = TURN,
    *,
    conversation: str | None = "conv",
    fresh: bool = True,
    stream: bool = True,
    budget_s: float = 600,
) -> StartTurn:
    return StartTurn(
        turn=turn,
        tenant="acme",
        gateway="gw",
        mode="classic",
        route=Route(requested="m", models=("m",), pool="default"),
        input=(UserMessage(parts=(TextPart(text="Hi"),)),),
        accepted_at_ms=1,
        budget_s=budget_s,
        conversation=conversation,
        fresh=fresh,
        stream=stream,
    )


def frame(n: int, *texts: str) -> Frame:
    return Frame(n=n, offset=0, items=tuple(TextDelta(text=text) for text in texts))


def ended(text: str, *, attempt: int = 1, last: int = 0, **fields: object) -> TurnEnded:
    values: dict[str, object] = {"turn": TURN, "tenant": "acme", "outcome": "completed", "finish": "stop", **fields}
    return TurnEnded(step=1, attempt=attempt, last=last, text=text, **values)  # type: ignore[arg-type]


def live(turn: str = TURN, attempt: int = 1) -> str:
    return subjects.live("gw", turn, 1, attempt)
