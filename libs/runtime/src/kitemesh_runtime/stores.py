"""The store ports. Each has a Mongo adapter and a memory twin, and one conformance suite that runs on both.

Every call names the tenant, and what belongs to another tenant behaves as if it did not exist. A store that cannot be
reached raises `Unavailable` (`store.down`). Times are the database's own clock; the twins take a `Clock`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol

from msgspec import UNSET, Struct, UnsetType

from kitemesh_contracts.commands import Mode, Priority
from kitemesh_contracts.content import AssistantMessage, FinishReason, Message, Step, Usage
from kitemesh_contracts.deltas import TurnOutcome
from kitemesh_contracts.errors import ErrorInfo
from kitemesh_contracts.events import StepTimings
from kitemesh_runtime.budgets import Budgets
from kitemesh_runtime.tenancy import Changes, Limits, Tenants

if TYPE_CHECKING:
    from kitemesh_runtime.execution_stores import Audit, Holds, Ledger, LiveTurns
    from kitemesh_runtime.knowledge import Knowledge
    from kitemesh_runtime.retention import Retention
    from kitemesh_runtime.rows import Rows
    from kitemesh_runtime.usage import Usages


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


class TurnRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A turn as it is stored when it ends.

    Attributes:
        ordinal: Its number within the conversation.
        input: What the request brought.
        answer: The final, or partial, answer; `None` when nothing was generated. Its calls are the caller's to run.
        gateway: Who last waited for a durable turn; its closing event may have to be sent again.
        dialect: As `StartTurn` has it, and so `include_usage`.
        attempt: Whose answer it is, and `last` the number of its last frame, of a durable turn whose answer is not one
            of `steps`.
        steps: The steps that called tools, in order; the last may be the one that `answer` is of.
        accepted_at_ms: Epoch milliseconds on the gateway's clock.
        prompt: As `StartTurn` has it, and so `message`, `row` and `details`.
        billed: The part of `usage` that was counted before: the turn was given up, and requeued.

    """

    id: str
    tenant: str
    status: TurnOutcome
    mode: Mode
    model: str
    conversation: str | None = None
    ordinal: int = 0
    key: str = ""
    agent: str | None = None
    served_by: str = ""
    request: str | None = None
    input: tuple[Message, ...] = ()
    answer: AssistantMessage | None = None
    usage: Usage = Usage()
    error: ErrorInfo | None = None
    finish: FinishReason | None = None
    timings: StepTimings = StepTimings()
    accepted_at_ms: int = 0
    ended_at_ms: int = 0
    steps: tuple[Step, ...] = ()
    gateway: str = ""
    dialect: str = ""
    include_usage: bool = False
    attempt: int = 0
    last: int = 0
    prompt: str | None = None
    message: str = ""
    row: int = 0
    details: str = ""
    billed: Usage = Usage()


class Erased(NamedTuple):
    """What a turn leaves behind that is no part of it.

    Attributes:
        message: The client's id of its message.
        blobs: That its messages and results name.
        rows: How many rows of its agent's history it was.

    """

    turn: str
    message: str = ""
    blobs: tuple[str, ...] = ()
    rows: int = 0


class Turns(Protocol):
    """Turns that have ended."""

    async def put(self, tenant: str, record: TurnRecord) -> None:
        """Store an ended turn; grouped. The first one stored under an id stays, also where it was erased since.

        Raises:
            Conflict: The turn is stored and has not ended, so that only `LiveTurns.finish` may end it (`store.stale`),
                or the id is another tenant's (`store.duplicate`).

        """

    async def get(self, tenant: str, turn: str) -> TurnRecord | None:
        """Return the turn, or `None`."""

    async def recent(self, tenant: str, conversation: str, *, limit: int) -> list[TurnRecord]:
        """Return the newest `limit` turns in which a model said or did something, oldest first."""

    async def erase(
        self, tenant: str, *, conversation: str | None = None, agent: str | None = None, limit: int = 500
    ) -> list[Erased]:
        """Empty turns, live and ended, and return what they leave, at most `limit` at once.

        For an hour nothing is written to them and nothing has their ids, then they are gone.

        Args:
            tenant: Whose they are.
            conversation: Those of a conversation.
            agent: Only those of an agent that have rows and have ended; of the conversation, if one is given.
            limit: How many at the most.

        """

    async def bury(self, tenant: str, turn: str) -> None:
        """Have a turn count as erased that is not stored so far; one that is stored stays."""


MESSAGE_CLAIMS: Final = "message"
"""The kind of the claims of clients' message ids."""
KEY_CLAIMS: Final = "idem-"
"""How the kinds of claims of idempotency keys begin: they run out soon, and are kept for a day."""


class Claim(NamedTuple):
    """What `claim` answered.

    Attributes:
        won: The value is the caller's to go on with.
        turn: Whose it is: the caller's own, or, when a claim that ran out was taken over, the one that it named.
        fingerprint: As it was first claimed with.

    """

    won: bool
    turn: str
    fingerprint: str = ""


class Claims(Protocol):
    """What must be unique within a tenant: client message ids and idempotency keys."""

    async def claim(self, tenant: str, kind: str, value: str, turn: str, *, fingerprint: str = "") -> Claim:
        """Insert the claim, or say whose it is; a claim that ran out and whose turn is not stored is taken over.

        It runs out after 30 s; of the `KEY_CLAIMS`, whose turn is stored at once or never, after 4 s. A take-over keeps
        the turn id that the claim names, so that a thawed claimant repeats instead of doubling.
        """

    async def renew(self, tenant: str, kind: str, value: str, turn: str) -> bool:
        """Put the claim's end 30 s ahead; tell whether it is still the turn's."""

    async def settle(self, tenant: str, kind: str, value: str, turn: str) -> None:
        """Mark the turn as stored: the claim stays valid until retention ends it."""

    async def drop(self, tenant: str, kind: str, value: str, turn: str, *, settled: bool = False) -> None:
        """Remove the claim of a turn that certainly never began, also a `settled` one if that is asked for."""


class KeyRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An API key. The key itself is never stored.

    Attributes:
        id: The eight characters that people may see.
        digest: HMAC-SHA256 of the whole key under the installation's pepper, hexadecimal.
        default_agent: Answers where a request names none.
        models: Catalog ids, `agent:…` and `group:…` that it may use; `None` allows all.
        expires_at_s: Epoch seconds; `None` never.
        limits: Of this key; what they do not say is as the tenant's `key_limits` say.
        priority: Of its turns; `None` is as the tenant says.
        rotated_to: The id of the key that takes its place; empty when none does.
        created_by: The id of the key that made it; empty where none did.

    """

    id: str
    tenant: str
    digest: str
    scopes: tuple[str, ...]
    created_at_s: float
    name: str = ""
    default_agent: str | None = None
    models: tuple[str, ...] | None = None
    expires_at_s: float | None = None
    revoked_at_s: float | None = None
    limits: Limits = Limits()
    priority: Priority | None = None
    rotated_to: str = ""
    created_by: str = ""


class KeyChanges(Struct, frozen=True, kw_only=True):
    """What of a key is to be something else; what is not named stays as it is.

    Attributes:
        scopes: Those of its scopes that it keeps: it never gets another one.

    """

    name: str | UnsetType = UNSET
    scopes: tuple[str, ...] | UnsetType = UNSET
    default_agent: str | UnsetType | None = UNSET
    models: tuple[str, ...] | UnsetType | None = UNSET
    expires_at_s: float | UnsetType | None = UNSET
    limits: Limits | UnsetType = UNSET
    priority: Priority | UnsetType | None = UNSET


class Keys(Protocol):
    """API keys."""

    async def put(self, tenant: str, record: KeyRecord) -> None:
        """Store a new key.

        Raises:
            Conflict: The id or the digest is taken (`store.duplicate`).

        """

    async def find(self, digest: str) -> KeyRecord | None:
        """Return the key with that digest, of whatever tenant: the only lookup that starts without one."""

    async def get(self, tenant: str, key: str) -> KeyRecord | None:
        """Return the key."""

    async def list(self, tenant: str) -> list[KeyRecord]:
        """Return the tenant's keys, newest first."""

    async def page(self, tenant: str, *, before: str | None, limit: int) -> "Sequence[KeyRecord]":
        """Return keys, newest first; `before` is the id of the last one seen, and nothing is behind an unknown one."""

    async def update(self, tenant: str, key: str, changes: KeyChanges) -> KeyRecord | None:
        """Change the key and return it; `None` when there is none."""

    async def replace(self, tenant: str, key: str, *, by: str, grace_s: float) -> KeyRecord | None:
        """Have a key run out `grace_s` from now, or sooner if it does, and name its successor; return it as it is then.

        `None` when there is none, or it was revoked, has run out or has a successor already.
        """

    async def changes(self, since: float | None) -> Changes:
        """Return the ids of keys, of all tenants, that were stored or changed since a mark; `None` begins with now."""

    async def revoke(self, tenant: str, key: str) -> KeyRecord | None:
        """Revoke the key for good and return it; again is the same. `None` when there is none."""


class Blobs(Protocol):
    """Bytes too large to travel or to embed."""

    async def put(
        self, tenant: str, data: bytes, *, keep_s: float | None, about: str = "", name: str | None = None
    ) -> str:
        """Store the bytes for at least `keep_s` seconds and return their id.

        Args:
            tenant: Whose they are.
            data: The bytes.
            keep_s: How long; a `name` that is stored again is kept for so long from then. `None`: longer than a turn
                is kept that names them, and that waits for a person no longer than some days.
            about: What they belong to, for `forget`: a conversation, or a turn that has none.
            name: Their id, made of the tenant and the bytes: the same bytes are stored once. `None`: a new one.

        """

    async def get(self, tenant: str, blob: str) -> bytes | None:
        """Return the bytes, or `None`."""

    async def forget(self, tenant: str, about: str, blobs: Sequence[str] = ()) -> None:
        """Remove what belongs to `about`, and the blobs named besides."""


class Stores(NamedTuple):
    """All the stores, opened together."""

    conversations: Conversations
    turns: Turns
    claims: Claims
    keys: Keys
    blobs: Blobs
    live_turns: "LiveTurns"
    holds: "Holds"
    ledger: "Ledger"
    audit: "Audit"
    rows: "Rows"
    knowledge: "Knowledge"
    tenants: Tenants
    usage: "Usages"
    retention: "Retention"
    budgets: Budgets
