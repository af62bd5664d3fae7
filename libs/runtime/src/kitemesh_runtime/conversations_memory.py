"""The memory twin of `Conversations`: the same lock and queue, in a dictionary and on a `Clock`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from kitemesh_contracts.errors import Bug
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.conversations import Buried, Conversation, Promoted, Seat, Waiting
from kitemesh_runtime.turns import TurnRecord
from kitemesh_runtime.turns_memory import Kept, words_in, words_of

LOCK_S: Final = 30.0
PROMOTION_REPEAT_S: Final = 5.0
PROMOTION_TRIES: Final = 6
CLEAR_FIRST_S: Final = 5.0
CLEAR_AGAIN_S: Final = 300.0

_Name = tuple[str, str]
"""A tenant, and the id of a conversation of it."""


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
    first: str = ""
    model: str = ""
    title: str = ""
    metadata: dict[str, str] = field(default_factory=dict)


class MemoryConversations:
    """The `Conversations` port in memory.

    Args:
        clock: Time.
        turns: Shared with `MemoryTurns`.

    """

    def __init__(self, clock: Clock, turns: Kept) -> None:
        self._clock = clock
        self._turns = turns
        self._kept: dict[_Name, _Kept] = {}
        self._clear_at_s: dict[_Name, float] = {}

    async def create(
        self,
        tenant: str,
        conversation: str,
        turn: str,
        *,
        agent: str | None,
        model: str = "",
        for_s: float | None = None,
    ) -> bool:
        """Insert a conversation whose lock the turn holds (ordinal 1), unless it exists; tell whether."""
        kept = self._insert(tenant, conversation, turn, agent, model)
        if kept is None:
            return False
        self._lock(kept, turn, LOCK_S if for_s is None else for_s)
        return True

    async def get(self, tenant: str, conversation: str) -> Conversation | None:
        """Return the conversation, or `None`."""
        kept = self._find(tenant, conversation)
        return None if kept is None else _read(conversation, kept)

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
        name = (tenant, conversation)
        if name in self._clear_at_s:
            self._clear_at_s[name] = self._now_s()
            return None
        inserted = self._insert(tenant, conversation, turn, agent)
        if inserted is not None:
            inserted.turns = 1
        kept = self._find(tenant, conversation)
        if kept is None or kept.active != turn:
            return None
        kept.agent = kept.agent or agent
        return self._hand_over(conversation, kept)

    async def retake(self, tenant: str, conversation: str, turn: str, *, ordinal: int) -> bool:
        """Give the lock back to a turn that had it, if no turn came after it; tell whether it has it."""
        kept = self._find(tenant, conversation)
        if kept is None or kept.turns != ordinal or kept.waiting or kept.active not in {None, turn}:
            return False
        self._lock(kept, turn)
        kept.turns = ordinal
        return True

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
        due = [(name, kept) for (_, name), kept in self._kept.items() if kept.active is not None and self._due(kept)]
        swept = [self._sweep_one(name, kept) for name, kept in due[:limit]]
        return [promoted for promoted in swept if promoted is not None]

    async def page(self, tenant: str, *, before: str | None, limit: int) -> list[Conversation]:
        """Return conversations, those begun last first."""
        mine = [_read(name, kept) for (owner, name), kept in self._kept.items() if owner == tenant]
        older = [kept for kept in mine if before is None or kept.first < before]
        return sorted(older, key=lambda kept: kept.first, reverse=True)[: max(limit, 0)]

    async def search(self, tenant: str, words: Sequence[str], *, before: str | None, limit: int) -> list[Conversation]:
        """Return conversations in whose title, or in one ended question, each word is, those begun last first."""
        if not words:
            return []
        wanted = {each for word in words for each in words_in(word)}
        said = {
            turn.conversation
            for turn in self._turns.values()
            if turn.tenant == tenant and isinstance(turn, TurnRecord) and wanted <= words_of(turn)
        }
        every = await self.page(tenant, before=before, limit=len(self._kept))
        return [kept for kept in every if kept.id in said or wanted <= words_in(kept.title)][: max(limit, 0)]

    async def change(
        self, tenant: str, conversation: str, *, title: str | None = None, metadata: dict[str, str] | None = None
    ) -> Conversation | None:
        """Set what is given and return the conversation; `None` when there is none."""
        kept = self._find(tenant, conversation)
        if kept is None:
            return None
        kept.title = kept.title if title is None else title
        kept.metadata = kept.metadata if metadata is None else dict(metadata)
        kept.updated_at_s = self._now_s()
        return _read(conversation, kept)

    async def delete(self, tenant: str, conversation: str, *, also_unknown: bool = False) -> Conversation | None:
        """Delete a conversation and return what it was; again, within the hour, an empty one."""
        name = (tenant, conversation)
        kept = self._kept.pop(name, None)
        if kept is None and name not in self._clear_at_s and not also_unknown:
            return None
        self._clear_at_s.setdefault(name, self._now_s() + CLEAR_FIRST_S)
        if kept is not None:
            return _read(conversation, kept)
        return Conversation(id=conversation, tenant=tenant, created_at_s=0, updated_at_s=0)

    async def buried(self, *, limit: int = 100) -> list[Buried]:
        """Return conversations deleted within the hour that are to be cleared, of all tenants."""
        return [Buried(*name) for name, at_s in self._clear_at_s.items() if at_s <= self._now_s()][:limit]

    async def cleared(self, tenant: str, conversation: str) -> None:
        """Note that nothing was left of a deleted conversation: it is looked at again in five minutes."""
        if (tenant, conversation) in self._clear_at_s:
            self._clear_at_s[tenant, conversation] = self._now_s() + CLEAR_AGAIN_S

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

    def _insert(self, tenant: str, conversation: str, turn: str, agent: str | None, model: str = "") -> _Kept | None:
        name = (tenant, conversation)
        if name in self._kept or name in self._clear_at_s:
            return None
        now_s = self._now_s()
        kept = _Kept(tenant, agent, created_at_s=now_s, updated_at_s=now_s, first=turn, model=model)
        self._kept[name] = kept
        return kept

    def _promotion(self, conversation: str, kept: _Kept) -> Promoted | None:
        if kept.active is None:
            return None
        return Promoted(kept.tenant, conversation, kept.active, kept.active_start, kept.promotions)

    def _find(self, tenant: str, conversation: str) -> _Kept | None:
        return self._kept.get((tenant, conversation))

    def _now_s(self) -> float:
        return self._clock.now_ms() / 1000


def _read(conversation: str, kept: _Kept) -> Conversation:
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
        first=kept.first,
        model=kept.model,
        title=kept.title,
        metadata=dict(kept.metadata),
    )
