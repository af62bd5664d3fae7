"""The store ports of turns that outlive their messages: live turns, holds, the tool ledger and the audit.

The rules of `stores` apply. A save is one compare-and-set on `version`; whoever lost it loads and decides again.
"""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, Protocol

from msgspec import Struct

from kitemesh_contracts.commands import Mode
from kitemesh_contracts.content import CallResult, Message, Step, Usage
from kitemesh_runtime.stores import TurnRecord

LiveStatus = Literal["queued", "running", "held", "cancelling"]
Effect = Literal["safe", "keyed", "once"]
"""`safe` may run any number of times, `keyed` again under the same key, `once` never a second time."""


class Job(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Work of a turn that has no result yet, as much as is needed to publish it again.

    Attributes:
        index: The job's number within its step.
        attempt: The newest one; what a model said under an earlier one is refused.
        calls: The execution ids of a tool job.
        message: Where the message stands in its stream whose redelivery claimed the attempt; 0 when none did.
        deliveries: Which delivery of it that was.

    """

    kind: Literal["model", "tool"]
    step: int
    index: int = 0
    attempt: int = 1
    pool: str
    calls: tuple[str, ...] = ()
    message: int = 0
    deliveries: int = 0


class LiveTurn(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A durable turn that has not ended.

    Attributes:
        version: Counts its writes, from 1.
        jobs: What was published, or is to be, and has no result.
        hold: The hold that its step waits for.
        look_at_s: When a sweep is to look at the turn although it is held, epoch seconds of the database's clock;
            `None` never.
        cancelled: Why it is being cancelled.
        steps: What was said and done so far, for people; the state has no second copy.
        state: The orchestrator's, which alone reads it; of version 1 of a turn that was accepted as durable, the bytes
            of its start (`StartTurn`).
        dialect: As `StartTurn` has it, and so `include_usage`, `message`, `row` and `details`.
        input: What the request brought, where a conversation is kept: it is shown before the turn has ended.
        spared: Attempts of its current step that do not count, and whose time does not: the turn was given up with
            them, and requeued. 0 once that is in its state.
        billed: The part of `usage` that was counted when the turn was given up.
        updated_at_s: Of the last write, epoch seconds of the database's clock; set by the store.

    """

    id: str
    tenant: str
    version: int
    status: LiveStatus
    mode: Mode
    model: str
    state: bytes
    jobs: tuple[Job, ...] = ()
    conversation: str | None = None
    ordinal: int = 0
    key: str = ""
    agent: str | None = None
    gateway: str = ""
    request: str | None = None
    hold: str | None = None
    cancelled: str | None = None
    steps: tuple[Step, ...] = ()
    usage: Usage = Usage()
    accepted_at_ms: int = 0
    updated_at_s: float = 0.0
    look_at_s: float | None = None
    dialect: str = ""
    include_usage: bool = False
    message: str = ""
    row: int = 0
    details: str = ""
    input: tuple[Message, ...] = ()
    spared: int = 0
    billed: Usage = Usage()


class GivenUp(NamedTuple):
    """A turn as an operator sees it.

    Attributes:
        turn: As it is stored.
        before: What it was when it was given up; `None` when it was not, or goes on since.

    """

    turn: LiveTurn | TurnRecord
    before: LiveTurn | None = None


class LiveTurns(Protocol):
    """Durable turns from their first save to their end, in the place where the ended ones are."""

    async def insert(self, tenant: str, turn: LiveTurn) -> bool:
        """Store a turn, version 1; `False` when the id exists, live, ended or erased. Grouped.

        Raises:
            Conflict: The id is another tenant's (`store.duplicate`).
            BadRequest: It is too large, or holds text that cannot be stored; so do `save` and `finish`.

        """

    async def begin(self, tenant: str, turn: str, *, ordinal: int) -> None:
        """Note that a `queued` turn runs, as its conversation's `ordinal`-th; no new version, grouped.

        Nothing happens to one that is not queued.
        """

    async def discard(self, tenant: str, turn: str) -> bool:
        """Remove a turn that is `queued` still at version 1: its client was refused. Tell whether it is gone."""

    async def get(self, tenant: str, turn: str) -> LiveTurn | TurnRecord | None:
        """Return the turn, live or ended; `None` also for one that was erased."""

    async def knows(self, tenant: str, turn: str) -> bool:
        """Tell whether the turn is stored, or was and has been erased within the hour."""

    async def spoken(
        self, tenant: str, conversation: str, *, up_to: int | None, limit: int
    ) -> list[LiveTurn | TurnRecord]:
        """Return turns that have, or had, their place in a conversation, live and ended, the latest first.

        Args:
            tenant: Whose they are.
            conversation: Whose turns.
            up_to: The ordinal to begin with; `None`: the newest.
            limit: How many.

        """

    async def page(
        self,
        tenant: str,
        *,
        statuses: Sequence[str] = (),
        conversation: str | None = None,
        before: str | None = None,
        limit: int,
    ) -> list[LiveTurn | TurnRecord]:
        """Return turns, live and ended, by id, newest first.

        Args:
            tenant: Whose they are.
            statuses: As they are stored (`LiveStatus`, `TurnOutcome`); none for all.
            conversation: Only its turns.
            before: The id of the last one seen.
            limit: How many.

        """

    async def save(self, tenant: str, turn: LiveTurn) -> None:
        """Replace the version before `turn.version`; grouped.

        Raises:
            Conflict: The stored version is another, or the turn has ended (`store.stale`).

        """

    async def finish(self, tenant: str, record: TurnRecord, *, version: int, before: LiveTurn | None = None) -> None:
        """Replace the live turn of that version by the record of its end; grouped.

        Args:
            tenant: Whose it is.
            record: Its end.
            version: That it has.
            before: The turn as it was, kept with its end for `revive`; not if both are too large for one document.

        Raises:
            Conflict: The stored version is another, or the turn has ended (`store.stale`).

        """

    async def given_up(self, turns: Sequence[str], *, is_whole: bool = True) -> dict[str, GivenUp]:
        """Return turns of whatever tenant, by id, with what they were; for an operator.

        Args:
            turns: Their ids.
            is_whole: `False`: what they said and did may be left out, for a list of many.

        """

    async def revive(self, tenant: str, turn: LiveTurn) -> None:
        """Replace the end of a turn that was given up at the version before `turn.version`; due at the next sweep.

        Raises:
            Conflict: It is live again, or was never given up so (`store.stale`).

        """

    async def claim(self, tenant: str, turn: str, job: Job) -> bool:
        """Raise a job's attempt by one, if it is still outstanding at `job.attempt`; counts as a version.

        Who claimed it, `message` and `deliveries`, is noted.
        """

    async def cancel(self, tenant: str, turn: str, reason: str) -> LiveTurn | TurnRecord | None:
        """Mark a live turn as being cancelled and return it as it is then; again is the same. Counts as a version."""

    async def due(self, *, idle_s: float, limit: int = 100) -> list[LiveTurn]:
        """Return live turns whose last write or `touch` is older, of all tenants, oldest first.

        A held one has to be past its `look_at_s` for so long too. What cannot be read is left out, logged, and not
        looked at again for a minute.
        """

    async def touch(self, tenant: str, turn: str, *, version: int) -> bool:
        """Put off the next time that the turn is due, if it has that version still; no new version."""


HoldStatus = Literal["open", "decided", "expired", "cancelled"]


class Verdict(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a person decided of one call.

    Attributes:
        arguments: Canonical JSON text to run instead; `None` leaves the call's own.
        sha256: Of `arguments`.
        by: The key's id; empty for the anonymous principal.
        origin: The address that it came from.
        at_s: Epoch seconds of the database's clock; set by the store.

    """

    approved: bool
    reason: str = ""
    arguments: str | None = None
    sha256: str = ""
    by: str = ""
    origin: str = ""
    at_s: float = 0.0


class HeldCall(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A call exactly as it will run.

    Attributes:
        arguments: Canonical JSON text, secrets included: never shown as it is.
        sentence: The call for people, secrets masked.
        shown: The arguments for people: canonical JSON text, secrets masked.

    """

    id: str
    name: str
    version: str
    effect: Effect
    arguments: str
    sha256: str
    sentence: str
    shown: str
    verdict: Verdict | None = None


class Hold(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Calls of one step that wait for a person. Its id is the public approval id.

    Attributes:
        scope: What a key needs to decide it.
        together: One answer must decide every call.
        version: Counts its writes, from 1.
        applied: The newest version that the turn has taken note of.
        texts: User messages to append behind the results, as the answers brought them.
        reason: Why it was cancelled.

    """

    id: str
    tenant: str
    turn: str
    step: int
    model: str
    calls: tuple[HeldCall, ...]
    status: HoldStatus = "open"
    scope: str = "approve"
    together: bool = False
    conversation: str | None = None
    agent: str | None = None
    version: int = 1
    applied: int = 1
    texts: tuple[str, ...] = ()
    reason: str = ""
    created_at_s: float = 0.0
    expires_at_s: float = 0.0


class Decided(NamedTuple):
    """What `decide` answered.

    Attributes:
        won: The caller's write changed the hold.
        hold: As it is now; `None` when there is no such hold of the tenant.

    """

    won: bool
    hold: Hold | None


class Holds(Protocol):
    """Holds. Only a conditional write changes a status, and each write counts as a version."""

    async def open(self, tenant: str, hold: Hold, *, expires_after_s: float) -> Hold:
        """Store a hold that runs out by the database's clock, and return what is stored; again changes nothing.

        What is stored may have other calls: somebody may have seen them, so an id never stands for others later.

        Raises:
            Conflict: The id is another tenant's (`store.duplicate`), or it was erased (`store.stale`).

        """

    async def get(self, tenant: str, hold: str) -> Hold | None:
        """Return the hold."""

    async def page(self, tenant: str, *, status: HoldStatus | None, before: str | None, limit: int) -> list[Hold]:
        """Return holds, newest first; `before` is the id of the last one seen, and nothing is behind an unknown one."""

    async def decide(
        self, tenant: str, hold: str, verdicts: dict[str, Verdict], *, texts: Sequence[str] = ()
    ) -> Decided:
        """Decide calls in one write, if the hold is open, has not run out, and has none of these decided.

        The last call decided makes the status `decided`. `texts` are kept only when the write wins.
        """

    async def expire(self, tenant: str, hold: str) -> Hold | None:
        """End an open hold whose time has come by the database's clock; return it as it is now."""

    async def cancel(self, tenant: str, hold: str, reason: str, *, only_open: bool = False) -> Hold | None:
        """End an open hold, or one decided and not yet applied unless `only_open`; return it as it is now."""

    async def applied(self, tenant: str, hold: str, *, version: int) -> None:
        """Note that the turn has taken note of that version; a smaller one changes nothing."""

    async def due(self, *, limit: int = 100) -> list[Hold]:
        """Return open holds that have run out, and those not `applied` for 5 s, of all tenants.

        What cannot be read is left out, logged, and not looked at again for a minute.
        """

    async def count_open(self) -> int:
        """Count open holds of all tenants, up to a bound; for a gauge."""

    async def oldest_open_s(self) -> float:
        """Return the age of the oldest open hold of all tenants by the database's clock; 0 without one."""

    async def erase(self, tenant: str, *, conversation: str | None = None, turns: Sequence[str] = ()) -> None:
        """Empty the holds of a conversation, and of turns; nothing is written to them for an hour, then they go."""


GIVEN_UP: Final = "given-up"
"""Stands as `by` in the rows of calls that had not begun when their turn was given up."""

LedgerState = Literal["dispatched", "finished", "unknown", "cancelled"]


class LedgerRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call with an effect.

    Attributes:
        by: Random for each delivery: tells one's own row from another's.
        result: Also kept when it came too late, after `unknown`.
        late: The result came after the call was given up as unknown.

    """

    id: str
    tenant: str
    turn: str
    tool: str
    effect: Effect
    state: LedgerState
    by: str
    args_sha256: str
    result: CallResult | None = None
    late: bool = False
    dispatched_at_s: float = 0.0
    ended_at_s: float | None = None


class Ledger(Protocol):
    """The tool ledger: the insert of a row is the dispatch of its call, and whoever inserts it first wins."""

    async def dispatch(self, tenant: str, row: LedgerRow) -> LedgerRow:
        """Insert a row as `dispatched` (or `cancelled`, to win against a dispatch) and return what is stored.

        The row is the caller's when its `by` is. Majority, before it returns; grouped. A row that was not there before
        comes back as it was given, without its times.

        Raises:
            Conflict: The row is another tenant's, or stands for other arguments and neither is `cancelled`
                (`store.duplicate`).

        """

    async def get(self, tenant: str, call: str) -> LedgerRow | None:
        """Return the row."""

    async def finish(self, tenant: str, call: str, by: str, result: CallResult) -> LedgerRow:
        """Store the result of the caller's dispatch and return the row; after `unknown` it is kept as late.

        Again changes nothing, and neither does who does not own the row.

        Raises:
            NotFound: There is no such row (`execution.unknown`); so do `take_over` and `give_up`.

        """

    async def take_over(self, tenant: str, row: LedgerRow, by: str) -> LedgerRow:
        """Make a `dispatched` row, as it was seen, the caller's, to run a `keyed` call again; return what is stored."""

    async def give_up(self, tenant: str, row: LedgerRow) -> LedgerRow:
        """Make a `dispatched` row, as it was seen, `unknown`; return what is stored."""

    async def reopen(self, tenant: str, call: str) -> None:
        """Remove a row that is `cancelled` by `GIVEN_UP`, so that the call may begin; any other stays."""

    async def unknown(self, tenant: str, *, limit: int = 100) -> list[LedgerRow]:
        """Return calls whose outcome is unknown, newest first."""


class AuditRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who did what, when, from where. Never changed.

    Attributes:
        id: Names the deed, so that noting it twice is noting it once.
        subject: What it was done to: the id of a hold or a key, or a tenant's name.
        what: Such as `approval.decided` or `key.created`.
        calls: Execution ids that it is about, each with `approved`, `denied` or `edited`.
        values: What was set: JSON text of an object without secrets, or empty.
        at_s: Epoch seconds of the database's clock; where it is 0, when it was noted.

    """

    id: str
    tenant: str
    subject: str
    what: str
    by: str = ""
    origin: str = ""
    calls: dict[str, str] = {}
    values: str = ""
    reason: str = ""
    at_s: float = 0.0


class Audit(Protocol):
    """Append-only."""

    async def append(self, tenant: str, row: AuditRow) -> None:
        """Note a deed; grouped. Twice is the same as once.

        Raises:
            Conflict: The id is another tenant's (`store.duplicate`).

        """

    async def about(self, tenant: str, subject: str) -> list[AuditRow]:
        """Return what was done to a subject, oldest first."""

    async def page(self, tenant: str, *, subject: str | None, before: str | None, limit: int) -> list[AuditRow]:
        """Return what was done, newest first; `before` is the last one's id, and nothing is behind an unknown one."""
