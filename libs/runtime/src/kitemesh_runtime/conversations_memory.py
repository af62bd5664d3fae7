"""The memory twin of `Conversations`: the same lock and queue, in a dictionary and on a `Clock`."""

from dataclasses import dataclass, field
from typing import Final

from kitemesh_contracts.errors import Bug, Conflict, ErrorCode
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.stores import Conversation, Promoted, Seat, Waiting

LOCK_S: Final = 30.0
PROMOTION_REPEAT_S: Final = 5.0
PROMOTION_TRIES: Final = 6


@dataclass
class _Kept:
    tenant: str
    agent: str | None
    created_at_s: float
    updated_at_s: float
    active: str | None = None
    active_until_s: float = 0.0
    active_started: bool = False
    active_start: bytes = b""
    active_tries: int = 0
    waiting: list[Waiting] = field(default_factory=list)
    turns: int = 0
    promotions: int = 0


class MemoryConversations:
    """The `Conversations` port in memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[str, _Kept] = {}

    async def create(
        self, tenant: str, conversation: str, turn: str, *, agent: str | None, for_s: float | None = None
    ) -> None:
        """Insert a conversation whose lock the turn holds (ordinal 1). Twice is the same as once."""
        if self._insert(tenant, conversation, agent):
            self._lock(self._kept[conversation], turn, LOCK_S if for_s is None else for_s)

    async def get(self, tenant: str, conversation: str) -> Conversation | None:
        """Return the conversation, or `None`."""
        kept = self._find(tenant, conversation)
        if kept is None:
            return None
        return Conversation(
            id=conversation,
            tenant=kept.tenant,
            agent=kept.agent,
            created_at_s=kept.created_at_s,
            updated_at_s=kept.updated_at_s,
            active=kept.active,
            active_until_s=None if kept.active is None else kept.active_until_s,
            active_started=kept.active_started,
            waiting=tuple(kept.waiting),
            turns=kept.turns,
            promotions=kept.promotions,
        )

    async def take(self, tenant: str, conversation: str, turn: str, start: bytes, *, max_waiting: int) -> Seat:
        """Take the lock, or a place in the queue. A turn found there keeps its place."""
        kept = self._find(tenant, conversation)
        if kept is None:
            return Seat("unknown")
        if kept.active != turn and (kept.active is None or kept.active_until_s < self._now_s()):
            if not kept.waiting or kept.waiting[0].turn == turn:
                kept.waiting = kept.waiting[1:]
                self._lock(kept, turn)
            else:
                self._promote(kept, published=False)
        if kept.active == turn:
            kept.active_started = True
            self._renew(kept)
            return Seat("active", kept.turns)
        if any(entry.turn == turn for entry in kept.waiting):
            return Seat("waiting")
        if len(kept.waiting) >= max_waiting:
            return Seat("full")
        kept.waiting.append(Waiting(turn=turn, start=start))
        kept.updated_at_s = self._now_s()
        return Seat("waiting")

    async def release(self, tenant: str, conversation: str, turn: str, *, agent: str | None = None) -> Promoted | None:
        """Give the lock up and promote the first who waits; a conversation not yet inserted is inserted, unlocked."""
        if conversation not in self._kept:
            self._insert(tenant, conversation, agent)
            self._kept[conversation].turns = 1
        kept = self._find(tenant, conversation)
        if kept is None or kept.active != turn:
            return None
        kept.agent = kept.agent or agent
        return self._hand_over(conversation, kept)

    async def extend(
        self, tenant: str, conversation: str, turn: str, *, for_s: float | None = None, until_s: float | None = None
    ) -> None:
        """Set the lock's end. Nothing happens unless the turn holds it and was started."""
        if until_s is not None and for_s is None:
            end_s = until_s
        elif for_s is not None and until_s is None:
            end_s = self._now_s() + for_s
        else:
            raise Bug("a lock's end is set either from now or by the clock")
        kept = self._find(tenant, conversation)
        if kept is not None and kept.active == turn and kept.active_started:
            kept.active_until_s = end_s

    async def leave(self, tenant: str, conversation: str, turn: str) -> bool:
        """Take a waiting turn out of the queue; tell whether it was there."""
        kept = self._find(tenant, conversation)
        if kept is None or all(entry.turn != turn for entry in kept.waiting):
            return False
        kept.waiting = [entry for entry in kept.waiting if entry.turn != turn]
        return True

    async def renew(self, tenant: str, conversation: str, turn: str) -> None:
        """Put the lock's end at least 30 s ahead. Nothing happens unless the turn holds it and was started."""
        kept = self._find(tenant, conversation)
        if kept is not None and kept.active == turn and kept.active_started:
            self._renew(kept)

    async def sweep(self, *, limit: int = 100) -> list[Promoted]:
        """Free locks that ran out and promote who waits; repeat promotions not taken up for 5 s. Over all tenants."""
        due = [(name, kept) for name, kept in self._kept.items() if kept.active is not None and self._due(kept)]
        swept = [self._sweep_one(name, kept) for name, kept in due[:limit]]
        return [promoted for promoted in swept if promoted is not None]

    def _sweep_one(self, conversation: str, kept: _Kept) -> Promoted | None:
        if kept.active_started or kept.active_tries >= PROMOTION_TRIES:
            return self._hand_over(conversation, kept)
        kept.active_until_s = self._now_s() + LOCK_S
        kept.active_tries += 1
        kept.promotions += 1
        return self._promotion(conversation, kept)

    def _due(self, kept: _Kept) -> bool:
        ahead_s = 0.0 if kept.active_started else LOCK_S - PROMOTION_REPEAT_S
        return kept.active_until_s < self._now_s() + ahead_s

    def _hand_over(self, conversation: str, kept: _Kept) -> Promoted | None:
        if kept.waiting:
            self._promote(kept, published=True)
            return self._promotion(conversation, kept)
        kept.active, kept.active_started, kept.updated_at_s = None, False, self._now_s()
        return None

    def _promote(self, kept: _Kept, *, published: bool) -> None:
        first, *kept.waiting = kept.waiting
        self._lock(kept, first.turn)
        kept.active_started, kept.active_start, kept.active_tries = False, first.start, int(published)
        kept.promotions += int(published)
        if not published:
            kept.active_until_s -= PROMOTION_REPEAT_S

    def _lock(self, kept: _Kept, turn: str, for_s: float = LOCK_S) -> None:
        kept.active, kept.active_started = turn, True
        kept.updated_at_s = self._now_s()
        kept.active_until_s = self._now_s() + for_s
        kept.turns += 1

    def _renew(self, kept: _Kept) -> None:
        kept.active_until_s = max(kept.active_until_s, self._now_s() + LOCK_S)

    def _insert(self, tenant: str, conversation: str, agent: str | None) -> bool:
        if conversation in self._kept:
            if self._kept[conversation].tenant != tenant:
                raise Conflict(ErrorCode.DUPLICATE, "it exists already")
            return False
        now_s = self._now_s()
        self._kept[conversation] = _Kept(tenant, agent, created_at_s=now_s, updated_at_s=now_s)
        return True

    def _promotion(self, conversation: str, kept: _Kept) -> Promoted | None:
        if kept.active is None:
            return None
        return Promoted(kept.tenant, conversation, kept.active, kept.active_start, kept.promotions)

    def _find(self, tenant: str, conversation: str) -> _Kept | None:
        kept = self._kept.get(conversation)
        return kept if kept is not None and kept.tenant == tenant else None

    def _now_s(self) -> float:
        return self._clock.now_ms() / 1000
