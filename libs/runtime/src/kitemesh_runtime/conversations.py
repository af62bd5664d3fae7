"""Conversations: who has the floor, who waits, and what is left of them when they are deleted.

What holds for every store is said in `stores`.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from msgspec import Struct


class Waiting(Struct, frozen=True, kw_only=True):
    """A turn in a conversation's queue, with the bytes of its start."""

    turn: str
    start: bytes


class Conversation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A conversation: its lock, its queue and its counters.

    Attributes:
        id: Unique within the tenant: clients may choose it.
        first: The turn that began it; lists are in the order of these.
        model: As the request that began it named it; empty where that is not known.
        title: For people; empty until somebody gives it one.
        metadata: Of the client, not read here.
        active: The turn that holds the lock.
        active_until_s: When the lock may be taken away, epoch seconds of the database's clock.
        active_started: The holder's start was taken up.
        waiting: Turns to run next, in order.
        turns: Turns that ever held the lock; the holder's ordinal.
        promotions: How often a waiting turn was promoted or its start published again.

    """

    id: str
    tenant: str
    created_at_s: float
    updated_at_s: float
    agent: str | None = None
    active: str | None = None
    active_until_s: float | None = None
    active_started: bool = False
    waiting: tuple[Waiting, ...] = ()
    turns: int = 0
    promotions: int = 0
    first: str = ""
    model: str = ""
    title: str = ""
    metadata: dict[str, str] = {}


class Seat(NamedTuple):
    """What `take` answered.

    Attributes:
        place: `active` (the lock is the turn's, now or already), `waiting` (queued, now or already), `full` (the queue
            is at its bound) or `unknown` (no such conversation of this tenant, or one that was deleted).
        ordinal: The turn's number within the conversation, when `active`.

    """

    place: Literal["active", "waiting", "full", "unknown"]
    ordinal: int = 0


class Promoted(NamedTuple):
    """A waiting turn that now holds the lock and whose start must be published as promotion number `n`."""

    tenant: str
    conversation: str
    turn: str
    start: bytes
    n: int


class Buried(NamedTuple):
    """A conversation that was deleted, and of which something may be left."""

    tenant: str
    conversation: str


class Conversations(Protocol):
    """Conversations, each one's lock and queue. One that was deleted is as if it had never been, and cannot be made."""

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
        """Insert a conversation whose lock the turn holds (ordinal 1), unless it exists; tell whether; grouped.

        `False` may also mean that an earlier try of the same caller did it, or that it was deleted: `take` tells.

        Args:
            tenant: The conversation's.
            conversation: Its id.
            turn: Who holds the lock.
            agent: Whom it is with.
            model: As the request names it.
            for_s: How long the lock holds if nobody renews it; `None`: 30 s.

        """

    async def get(self, tenant: str, conversation: str) -> Conversation | None:
        """Return the conversation, or `None`."""

    async def take(self, tenant: str, conversation: str, turn: str, start: bytes, *, max_waiting: int) -> Seat:
        """Take the lock, or a place in the queue, in one write. A turn found there keeps its place.

        A lock that ran out counts as free, but goes to the first who waits. A promoted turn that calls this is started.
        The holder that calls it again has its lock renewed.
        """

    async def release(self, tenant: str, conversation: str, turn: str, *, agent: str | None = None) -> Promoted | None:
        """Give the lock up and promote the first who waits; a conversation not yet inserted is inserted, unlocked.

        Grouped while nobody waits. A turn that does not hold the lock changes nothing.
        """

    async def retake(self, tenant: str, conversation: str, turn: str, *, ordinal: int) -> bool:
        """Give the lock back to a turn that had it, if no turn came after it; tell whether it has it, now or already.

        Args:
            tenant: The conversation's.
            conversation: Its id.
            turn: Who had the lock.
            ordinal: The turn's number within the conversation.

        """

    async def extend(
        self, tenant: str, conversation: str, turn: str, *, for_s: float | None = None, until_s: float | None = None
    ) -> None:
        """Set the lock's end, later or earlier than it was. Nothing happens unless the turn holds it.

        Args:
            tenant: The conversation's.
            conversation: Its id.
            turn: Who should hold the lock.
            for_s: Seconds from now.
            until_s: Epoch seconds of the database's clock, instead of `for_s`.

        """

    async def leave(self, tenant: str, conversation: str, turn: str) -> bool:
        """Take a waiting turn out of the queue; tell whether it was there."""

    async def renew(self, tenant: str, conversation: str, turn: str) -> None:
        """Put the lock's end at least 30 s ahead; grouped. Nothing happens unless the turn holds it."""

    async def sweep(self, *, limit: int = 100) -> list[Promoted]:
        """Free locks that ran out and promote who waits; repeat promotions not taken up for 5 s. Over all tenants."""

    async def page(self, tenant: str, *, before: str | None, limit: int) -> list[Conversation]:
        """Return conversations, those begun last first.

        Args:
            tenant: Whose they are.
            before: `Conversation.first` of the last one seen.
            limit: How many.

        """

    async def search(self, tenant: str, words: Sequence[str], *, before: str | None, limit: int) -> list[Conversation]:
        """Return conversations in whose title, or in one ended question, each word is, those begun last first.

        Case and accents do not count. Of words that are everywhere only some of the places are looked at.

        Args:
            tenant: Whose they are.
            words: Letters and digits.
            before: As for `page`.
            limit: How many.

        """

    async def change(
        self, tenant: str, conversation: str, *, title: str | None = None, metadata: dict[str, str] | None = None
    ) -> Conversation | None:
        """Set what is given and return the conversation; `None` when there is none."""

    async def delete(self, tenant: str, conversation: str, *, also_unknown: bool = False) -> Conversation | None:
        """Delete a conversation and return what it was; again, within the hour, an empty one.

        Its turns are not touched; the lock is nobody's from then on, and nobody waits. For an hour nothing brings it
        back.

        Args:
            tenant: Whose it is.
            conversation: Its id.
            also_unknown: It has turns, so it may be about to be made.

        """

    async def buried(self, *, limit: int = 100) -> list[Buried]:
        """Return conversations deleted within the hour that are to be cleared, of all tenants.

        First 5 s after they were deleted, then after every `cleared`.
        """

    async def cleared(self, tenant: str, conversation: str) -> None:
        """Note that nothing was left of a deleted conversation: it is looked at again in five minutes."""
