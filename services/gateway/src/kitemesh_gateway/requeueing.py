"""The use case "have a turn go on that was given up". It knows no HTTP.

One compare-and-set makes the turn live again, and a sweep then drives it on as after a lost job. Before it, the turn's
place in its conversation is taken back, and calls that were stopped before they began may begin: should this process
die in between, the place runs out, and doing it again does what is left. What the ledger has as begun stays as it is.
"""

import asyncio
from contextlib import suppress
from typing import Final, Literal, NamedTuple

import msgspec

from kitemesh_contracts.content import Usage
from kitemesh_contracts.errors import Conflict, ErrorCode, KitemeshError
from kitemesh_runtime.administration import Actor
from kitemesh_runtime.audit import AuditRow
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.conversations import Conversation
from kitemesh_runtime.dead_letters import DeadLetters, Letter
from kitemesh_runtime.live_turns import GivenUp, LiveTurn
from kitemesh_runtime.news import News, requeued
from kitemesh_runtime.retention import DAY_MS, HOUR_MS, Days, default_days
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.turns import TurnRecord

NOBODYS: Final = "The message was gone before anybody could see whose it was"
NOT_STORED: Final = "Its turn is not stored: it was a classic one, or was deleted, or has outlived its days"
GOES_ON: Final = "Its turn goes on: it was requeued already, or this message did not end it"
CLASSIC: Final = "Its turn was a classic one: its client went with the failure"
NOT_KEPT: Final = "Nothing of its turn was kept to go on from"
WAITED: Final = "Its turn waited for an approval, which was cancelled when the turn failed"
DELETED: Final = "Its conversation was deleted"
MOVED_ON: Final = "Its conversation has moved on: a later turn runs, waits or has run there"
FORGOTTEN: Final = "It is too old: the ledger, which says what its calls did, does not keep them for as long"
SEAT_S: Final = 600.0
_LEDGER_SLACK_MS: Final = HOUR_MS
"""For clocks that differ, and for a requeue that is driven on later."""


class Judged(NamedTuple):
    """A letter, its turn, and whether that can go on.

    Attributes:
        found: The turn; `None` when it is not stored.
        why: Why it cannot; empty if it can.

    """

    letter: Letter
    found: GivenUp | None
    why: str


class Requeueing:
    """Judges dead letters, and has their turns go on.

    Args:
        stores: Where the turns are.
        letters: The letters.
        news: Tells the turn's tenant.
        clock: Time and ids.
        days: How long the ledger keeps what calls did.

    """

    def __init__(
        self, stores: Stores, letters: DeadLetters, news: News, clock: Clock, days: Days = default_days
    ) -> None:
        self._stores: Final = stores
        self._letters: Final = letters
        self._news: Final = news
        self._clock: Final = clock
        self._days: Final = days

    async def judge(self, letters: list[Letter], *, is_whole: bool = True) -> list[Judged]:
        """Say of each letter whether its turn can go on; not `is_whole`, without what its turn said and did."""
        ids = [letter.turn for letter in letters if letter.turn]
        turns = await self._stores.live_turns.given_up(ids, is_whole=is_whole)
        return await asyncio.gather(*(self._judge(letter, turns.get(letter.turn)) for letter in letters))

    async def requeue(self, actor: Actor, letter: Letter) -> LiveTurn:
        """Have a letter's turn go on, remove the letter, and return the turn as it is then.

        Raises:
            Conflict: It cannot go on (`dead.refused`), or somebody was faster.
            Unavailable: The store or the bus does not answer; again it does what is left.

        """
        (judged,) = await self.judge([letter])
        before = judged.found.before if judged.found is not None else None
        if judged.why or judged.found is None or before is None:
            if judged.found is not None and isinstance(judged.found.turn, LiveTurn):
                await self._clear(judged.found.turn, letter)
            raise refused(judged.why)
        await self.note(actor, before.tenant, letter, "dead.requeued")
        turn = msgspec.structs.replace(revived(before), billed=await self._billed(judged.found, before))
        if not await self._take_seat(before):
            raise refused(MOVED_ON)
        calls = [call for job in before.jobs for call in job.calls]
        await asyncio.gather(*(self._stores.ledger.reopen(before.tenant, call) for call in calls))
        try:
            await self._stores.live_turns.revive(before.tenant, turn)
        except Conflict as exc:
            await self._yield_seat(before)
            raise refused(GOES_ON) from exc
        await self._keep_seat(before)
        self._news.tell(before.tenant, requeued(turn, self._clock.now_ms()))
        await self._letters.remove(letter.number)
        return turn

    async def note(
        self, actor: Actor, tenant: str, letter: Letter, what: Literal["dead.requeued", "dead.dropped"]
    ) -> None:
        """Note in the audit what is done with a letter."""
        row = AuditRow(
            id=self._clock.new_id(),
            tenant=tenant,
            subject=letter.turn or str(letter.number),
            what=what,
            by=actor.by,
            origin=actor.origin,
            values=_values(letter),
        )
        await self._stores.audit.append(tenant, row)

    async def _judge(self, letter: Letter, found: GivenUp | None) -> Judged:
        why = _why_not(letter, found)
        before = found.before if found is not None else None
        if not why and before is not None and self._is_forgotten(before):
            why = FORGOTTEN
        if not why and before is not None and before.conversation is not None and before.ordinal:
            # One that had no place there yet asks for one when it is begun.
            conversation = await self._stores.conversations.get(before.tenant, before.conversation)
            why = _why_not_there(before, conversation)
        return Judged(letter, found, why)

    def _is_forgotten(self, before: LiveTurn) -> bool:
        """Tell whether the ledger may have lost a call that the turn waits for: it would run once more."""
        if not any(job.calls for job in before.jobs):
            return False
        # No call is older than its turn.
        kept_ms = self._days(before.tenant, "ledger") * DAY_MS - _LEDGER_SLACK_MS
        return bool(before.accepted_at_ms) and self._clock.now_ms() - before.accepted_at_ms > kept_ms

    async def _clear(self, turn: LiveTurn, letter: Letter) -> None:
        """Remove the letter of a turn that goes on if whoever requeued it by this letter has not lived to.

        Any other letter stays: its message may be about to fail the turn, which is then requeued by it.
        """
        mine = _values(letter)
        deeds = await self._stores.audit.about(turn.tenant, turn.id)
        if any((deed.what, deed.values) == ("dead.requeued", mine) for deed in deeds):
            await self._letters.remove(letter.number)

    async def _billed(self, found: GivenUp, before: LiveTurn) -> Usage:
        """Return what of the turn's usage is counted already, so that it is not when it ends again."""
        ended = found.turn
        if isinstance(ended, TurnRecord) and await self._stores.usage.as_of() > ended.ended_at_ms / 1000:
            return ended.usage
        return before.billed

    async def _take_seat(self, before: LiveTurn) -> bool:
        """Take the turn's place in its conversation back, if it had one; tell whether it may go on."""
        if before.conversation is None or not before.ordinal:
            return True
        return await self._stores.conversations.retake(
            before.tenant, before.conversation, before.id, ordinal=before.ordinal
        )

    async def _keep_seat(self, before: LiveTurn) -> None:
        """Have a turn that goes on keep its place even if nobody is there to drive it on for a while."""
        if before.conversation is None or not before.ordinal:
            return
        with suppress(KitemeshError):
            # The next sweep renews it.
            await self._stores.conversations.extend(before.tenant, before.conversation, before.id, for_s=SEAT_S)

    async def _yield_seat(self, before: LiveTurn) -> None:
        """Give back what was taken for a turn that ended, or was erased, in the meantime."""
        if before.conversation is None or not before.ordinal:
            return
        now = await self._stores.live_turns.get(before.tenant, before.id)
        if not isinstance(now, LiveTurn):
            # Who is promoted by that is started by the sweep.
            await self._stores.conversations.release(before.tenant, before.conversation, before.id)


def refused(why: str) -> Conflict:
    """Return the refusal of a letter whose turn cannot go on."""
    return Conflict(ErrorCode.DEAD_REFUSED, why)


def revived(before: LiveTurn) -> LiveTurn:
    """Return a turn as it goes on: its jobs under attempts that no message of before has."""
    spared = max((job.attempt for job in before.jobs), default=1)
    jobs = tuple(msgspec.structs.replace(job, attempt=spared + 1, message=0, deliveries=0) for job in before.jobs)
    return msgspec.structs.replace(before, version=before.version + 1, jobs=jobs, spared=spared)


def _values(letter: Letter) -> str:
    return msgspec.json.encode({"letter": str(letter.number), "stream": letter.stream}).decode()


def _why_not(letter: Letter, found: GivenUp | None) -> str:
    if not letter.turn:
        return NOBODYS
    if found is None:
        return NOT_STORED
    turn, before = found
    if isinstance(turn, LiveTurn):
        return GOES_ON
    if before is None:
        return _why_not_kept(turn)
    return WAITED if before.hold is not None else ""


def _why_not_kept(turn: TurnRecord) -> str:
    if turn.error is None or turn.error.code is not ErrorCode.TURN_EXHAUSTED:
        return f"Its turn has ended since, as {turn.status}"
    return CLASSIC if turn.mode == "classic" else NOT_KEPT


def _why_not_there(before: LiveTurn, conversation: Conversation | None) -> str:
    if conversation is None:
        return DELETED
    is_last = conversation.turns == before.ordinal and not conversation.waiting
    return "" if is_last and conversation.active in {None, before.id} else MOVED_ON
