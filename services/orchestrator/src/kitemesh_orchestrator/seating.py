"""A turn's seat in its conversation: the lock, the queue behind it, and the history that comes with it."""

from typing import Final, NamedTuple

import structlog

from kitemesh_contracts.commands import StartTurn
from kitemesh_contracts.errors import ErrorCode, ErrorInfo, KitemeshError, Unavailable
from kitemesh_orchestrator.happenings import TurnRefused, TurnSeated
from kitemesh_orchestrator.holding import LOCK_MARGIN_S
from kitemesh_orchestrator.making_way import MakingWay
from kitemesh_orchestrator.request import turns_within
from kitemesh_runtime.catalog import Agent, History
from kitemesh_runtime.conversations import Seat
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.turns import TurnRecord

log: Final = structlog.get_logger()

RETRY_BUSY_S: Final = 1.0


class Seated(NamedTuple):
    """What came of asking for a seat.

    Attributes:
        event: `None` while the turn waits behind another.
        history: Earlier turns, oldest first.

    """

    event: TurnSeated | TurnRefused | None
    history: tuple[TurnRecord, ...] = ()


def _refuse(code: ErrorCode, message: str, retry_after_s: float | None = None) -> Seated:
    return Seated(TurnRefused(error=ErrorInfo(code=code, message=message, retry_after_s=retry_after_s)))


class Seating:
    """Seats turns; asking twice for the same turn answers the same."""

    def __init__(self, stores: Stores, making_way: MakingWay, *, max_waiting: int) -> None:
        self._stores: Final = stores
        self._making_way: Final = making_way
        self._max_waiting: Final = max_waiting

    async def seat(self, start: StartTurn, payload: bytes, agent: Agent | None) -> Seated:
        """Take the lock or a place in the queue.

        Args:
            start: The turn.
            payload: The bytes of its start, kept while it waits.
            agent: Its rules.

        Raises:
            Unavailable: The store or the bus does not answer, and the turn, being durable, can wait for it.

        """
        if start.conversation is None:
            return Seated(TurnSeated(ordinal=0))
        if start.fresh:
            return Seated(TurnSeated(ordinal=1))
        patient = agent is None or agent.on_busy != "reject"
        window = agent.history if agent else History()
        try:
            seat = await self._take_or_create(start, payload, patient=patient)
            if seat.place in {"waiting", "full"}:
                way = await self._making_way.ask(start, agent, has_place=seat.place == "waiting")
                if isinstance(way, ErrorInfo):
                    left = await self._stores.conversations.leave(start.tenant, start.conversation, start.turn)
                    if left or seat.place == "full":
                        return Seated(TurnRefused(error=way))
                    # The hold has ended meanwhile, and this turn was promoted.
                    way = "again"
                if way == "again":
                    seat = await self._take(start, payload, patient=patient)
            if seat.place == "active":
                history = await self._stores.turns.recent(start.tenant, start.conversation, limit=turns_within(window))
                return Seated(TurnSeated(ordinal=seat.ordinal), tuple(history))
        except KitemeshError as exc:
            # Without its history the turn would be another one. One that was promised to outlive this is not refused.
            if isinstance(exc, Unavailable) and start.mode == "durable":
                raise
            log.warning("turn.refused", turn=start.turn, code=exc.code)
            return Seated(TurnRefused(error=exc.info()))
        if seat.place == "waiting":
            return Seated(None)
        if seat.place == "unknown":
            return _refuse(ErrorCode.CONVERSATION_UNKNOWN, "The conversation does not exist")
        if patient:
            message = "Too many turns wait in this conversation"
            return _refuse(ErrorCode.CONVERSATION_FULL, message, RETRY_BUSY_S)
        return _refuse(ErrorCode.CONVERSATION_BUSY, "The conversation has a running turn", RETRY_BUSY_S)

    async def _take_or_create(self, start: StartTurn, payload: bytes, *, patient: bool) -> Seat:
        """Take a seat in a conversation that may be the turn's to make: of any number of such turns one makes it.

        What was deleted cannot be made, and stays unknown.
        """
        seat = await self._take(start, payload, patient=patient)
        if seat.place != "unknown" or not start.creates:
            return seat
        if await self._create(start):
            return Seat("active", 1)
        return await self._take(start, payload, patient=patient)

    async def _create(self, start: StartTurn, *, for_s: float | None = None) -> bool:
        assert start.conversation is not None  # noqa: S101  only a conversation is made
        return await self._stores.conversations.create(
            start.tenant,
            start.conversation,
            start.turn,
            agent=start.route.agent,
            model=start.route.requested,
            for_s=for_s,
        )

    async def _take(self, start: StartTurn, payload: bytes, *, patient: bool) -> Seat:
        assert start.conversation is not None  # noqa: S101  only a conversation has seats
        return await self._stores.conversations.take(
            start.tenant,
            start.conversation,
            start.turn,
            payload,
            max_waiting=self._max_waiting if patient else 0,
        )

    async def create(self, start: StartTurn) -> None:
        """Insert the conversation that a classic turn begins; the turn's end makes up for a failure."""
        if start.conversation is None or not start.fresh:
            return
        try:
            await self._create(start)
        except KitemeshError as exc:
            log.warning("conversation.not_created", turn=start.turn, code=exc.code)

    async def keep(self, start: StartTurn) -> None:
        """Lock the conversation of a durable turn for as long as the turn may take, and insert it if it is new.

        Nobody renews it as a gateway does for a classic one; a sweep does where the turn takes longer.

        Raises:
            Unavailable: The store does not answer; again it does what is left.

        """
        if start.conversation is None:
            return
        tenant, name, turn, for_s = start.tenant, start.conversation, start.turn, start.budget_s + LOCK_MARGIN_S
        if start.fresh:
            await self._create(start, for_s=for_s)
        else:
            await self._stores.conversations.extend(tenant, name, turn, for_s=for_s)

    async def leave(self, tenant: str, conversation: str, turn: str) -> bytes | None:
        """Take a waiting turn out of the queue and return the bytes of its start; `None` when it does not wait."""
        found = await self._stores.conversations.get(tenant, conversation)
        waiting = next((entry for entry in found.waiting if entry.turn == turn), None) if found else None
        if waiting is None or not await self._stores.conversations.leave(tenant, conversation, turn):
            return None
        return waiting.start
