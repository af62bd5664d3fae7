"""What a tenant and each of its keys may use in a minute, and at once: asked before a turn, settled after it.

It spends what `Leases` have fetched, and waits for the store only where that does not reach. What it refuses has taken
nothing. It knows neither HTTP nor how leases work.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, NamedTuple, Protocol

from kitemesh_contracts.errors import Busy, ErrorCode
from kitemesh_gateway.limiter_headers import rate_headers
from kitemesh_gateway.limiter_leases import Leases
from kitemesh_gateway.limiter_rates import SHORT_S, Rate
from kitemesh_gateway.limiter_slots import Slots
from kitemesh_gateway.limiter_subjects import Subject
from kitemesh_runtime.budgets import Budgets
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.metrics import LIMIT_REFUSALS
from kitemesh_runtime.tenancy import Limits

ANSWER_TOKENS: Final = 256
"""What an answer is thought to take where the request does not bound it."""

CHARS_A_TOKEN: Final = 4
ROUNDS: Final = 3
SLOT_MARGIN_S: Final = 60.0

_SUFFIX: Final = 12

Dimension = Literal["requests", "tokens", "turns"]

_NONE: Final = Limits()
_NO_HEADERS: Final[Mapping[str, str]] = {}
_REFUSED: Final[Mapping[Dimension, Callable[[], None]]] = {
    dimension: LIMIT_REFUSALS.labels(dimension).inc for dimension in ("requests", "tokens", "turns")
}


class Limited(Busy):
    """A limit is reached.

    Attributes:
        headers: `x-ratelimit-*` at that moment, for the answer.

    """

    def __init__(self, code: ErrorCode, message: str, *, retry_after_s: float, headers: Mapping[str, str]) -> None:
        super().__init__(code, message, retry_after_s=retry_after_s)
        self.headers: Final = headers


class Asker(Protocol):
    """Who is limited; a `Principal` is one."""

    @property
    def tenant(self) -> str:
        """Its tenant."""

    @property
    def key(self) -> str:
        """Its key's id; empty for the anonymous principal."""

    @property
    def limits(self) -> Limits:
        """Of the key."""

    @property
    def tenant_limits(self) -> Limits:
        """Of its tenant."""


class _Want(NamedTuple):
    subject: Subject
    account: Rate | Slots
    amount: float
    dimension: Dimension


class Permit:
    """What one request took; given back by `Limiter.release`, or settled by `Limiter.ended`."""

    __slots__ = ("_clock", "asker", "began_s", "subjects", "taken", "turn")

    def __init__(self, clock: Clock | None, asker: Asker | None, subjects: Sequence[Subject]) -> None:
        self._clock: Final = clock
        self.asker: Final = asker
        self.subjects = subjects
        self.taken: list[_Want] = []
        self.turn = ""
        self.began_s = 0.0

    @property
    def is_limited(self) -> bool:
        """Whether anything bounds whoever asked."""
        return self.asker is not None

    def headers(self) -> Mapping[str, str]:
        """Return `x-ratelimit-*` as they are now; empty where neither key nor tenant has such a limit."""
        return _NO_HEADERS if self._clock is None else rate_headers(self.subjects, self._clock.monotonic())


FREE: Final = Permit(None, None, ())
"""Of everybody who has no limits."""


class Limiter:
    """Admits requests.

    Args:
        budgets: Where gateways lease from.
        gateway: This one's name, by which an operator knows it.
        gateways: How many there are.
        clock: Time.
        burst_s: How many seconds' worth of a limit may be used at once.
        budget_s: How long a turn may run; its slot is freed a minute after that at the latest.

    """

    def __init__(
        self,
        budgets: Budgets,
        gateway: str,
        gateways: Callable[[], int],
        clock: Clock,
        *,
        burst_s: float,
        budget_s: float,
    ) -> None:
        # Its next life, which begins to count its questions anew, must not be taken for this one.
        name = f"{gateway}-{clock.new_id()[-_SUFFIX:]}"
        self._leases: Final = Leases(budgets, name, gateways, clock, burst_s=burst_s)
        self._clock: Final = clock
        self._longest_s: Final = budget_s + SLOT_MARGIN_S
        self._open: dict[str, Permit] = {}

    def __len__(self) -> int:
        """Return how many turns are open that limits bound."""
        return len(self._open)

    def __contains__(self, turn: str) -> bool:
        """Tell whether a turn is open that limits bound."""
        return turn in self._open

    async def admit(self, asker: Asker) -> Permit:
        """Take one request of the key's rate and of its tenant's.

        Raises:
            Limited: One of them is used up (`limit.rate`).

        """
        if asker.limits == _NONE and asker.tenant_limits == _NONE:
            return FREE
        subjects = self._subjects(asker)
        permit = Permit(self._clock, asker, subjects)
        wants = [_Want(one, one.requests, 1.0, "requests") for one in subjects if one.requests is not None]
        await self._take(permit, wants)
        return permit

    async def reserve(self, permit: Permit, turn: str, tokens: int) -> None:
        """Take a slot for a turn, and the tokens that it may need, of the key and of its tenant.

        More tokens than can ever be had at once count as that many. Whatever it raises, it has given everything of the
        permit back before.

        Raises:
            Limited: Too many turns are open (`limit.concurrency`), or there are not enough tokens (`limit.rate`).

        """
        if permit.asker is None:
            return
        # One that nobody used meanwhile may have been forgotten.
        permit.subjects = self._subjects(permit.asker)
        wants = [_Want(one, one.slots, 1.0, "turns") for one in permit.subjects if one.slots is not None]
        wants += [
            _Want(one, one.tokens, one.tokens.fit(tokens), "tokens")
            for one in permit.subjects
            if one.tokens is not None
        ]
        if not wants:
            return
        try:
            await self._take(permit, wants)
        except BaseException:
            self.release(permit)
            raise
        self.ended(turn)
        permit.turn, permit.began_s = turn, self._clock.monotonic()
        self._open[turn] = permit

    def release(self, permit: Permit) -> None:
        """Give everything back that the permit still holds: its request was refused. Again, it does nothing."""
        taken, permit.taken = permit.taken, []
        for want in taken:
            self._account(want).put_back(want.amount)
        if self._open.get(permit.turn) is permit:
            del self._open[permit.turn]
            self._hasten(permit.subjects)

    def ended(self, turn: str, used_tokens: int | None = None) -> None:
        """Free the turn's slot and settle its tokens; `None` leaves them as they were reserved.

        A turn that was not reserved here, or has ended, is nothing.
        """
        permit = self._open.pop(turn, None)
        if permit is None:
            return
        turn_s = self._clock.monotonic() - permit.began_s
        taken = permit.taken
        # The request counts all the same, unless it turns out to be refused.
        permit.taken = [want for want in taken if want.dimension == "requests"]
        for want in taken:
            account = self._account(want)
            if isinstance(account, Slots):
                account.put_back(want.amount, turn_s)
            elif want.dimension == "tokens" and used_tokens is not None:
                account.put_back(want.amount - used_tokens)
        self._hasten(permit.subjects)

    def open_turns(self) -> list[tuple[str, str]]:
        """Return the tenant and the id of each turn that is open."""
        return [(permit.asker.tenant, turn) for turn, permit in self._open.items() if permit.asker is not None]

    def renamed(self, turn: str, name: str) -> None:
        """Know a turn by another id from now on."""
        permit = self._open.pop(turn, None)
        if permit is not None:
            self.ended(name)
            permit.turn = name
            self._open[name] = permit

    async def sync(self) -> None:
        """Do a round of the background's work; `run` calls it a few times a second."""
        self._end_overdue()
        await self._leases.sync()

    async def run(self) -> None:
        """Keep the leases in step with the store, for ever; give them back when it is cancelled."""
        try:
            while True:
                await self._leases.pause()
                await self.sync()
        except asyncio.CancelledError:
            await self._leases.leave()
            raise

    def _subjects(self, asker: Asker) -> list[Subject]:
        found = []
        if asker.limits != _NONE:
            name = f"k:{asker.key}" if asker.key else f"a:{asker.tenant}"
            found.append(self._leases.find(name, "key" if asker.key else "anonymous client", asker.limits))
        if asker.tenant_limits != _NONE:
            found.append(self._leases.find(f"t:{asker.tenant}", "tenant", asker.tenant_limits))
        return found

    def _account(self, want: _Want) -> Rate | Slots:
        """Return where what was taken is to be put back."""
        subject = self._leases.current(want.subject)
        if want.dimension == "turns":
            return want.account
        return (subject.requests if want.dimension == "requests" else subject.tokens) or want.account

    async def _take(self, permit: Permit, wants: Sequence[_Want]) -> None:
        """Take all or nothing, and hold nothing while waiting."""
        for round_ in range(ROUNDS + 1):
            now_s = self._clock.monotonic()
            taken: list[_Want] = []
            missing: list[_Want] = []
            for want in wants:
                (taken if want.account.take(want.amount, now_s) else missing).append(want)
            if not missing:
                permit.taken += taken
                return
            for want in taken:
                want.account.put_back(want.amount)
            tightest = max(missing, key=lambda want: want.account.wait_s(want.amount, now_s))
            wait_s = tightest.account.wait_s(tightest.amount, now_s)
            if wait_s > 0 or round_ == ROUNDS:
                raise self._limited(permit, tightest, max(wait_s, SHORT_S), now_s)
            await self._wait(missing)

    async def _wait(self, wants: Sequence[_Want]) -> None:
        for want in wants:
            want.account.begin_wait(want.amount)
        try:
            await self._leases.refresh({want.subject.name: want.subject for want in wants}.values())
        finally:
            for want in wants:
                want.account.end_wait(want.amount)

    def _limited(self, permit: Permit, want: _Want, wait_s: float, now_s: float) -> Limited:
        _REFUSED[want.dimension]()
        headers = rate_headers(permit.subjects, now_s)
        noun, account = want.subject.noun, want.account
        if isinstance(account, Slots):
            message = f"This {noun} has {account.limit} turns open, and may have no more at once"
            return Limited(ErrorCode.CONCURRENCY_LIMITED, message, retry_after_s=wait_s, headers=headers)
        what = "send {} requests" if want.dimension == "requests" else "use {} tokens"
        message = f"This {noun} may {what.format(account.per_minute)} a minute; try again in {wait_s:.1f} s"
        return Limited(ErrorCode.RATE_LIMITED, message, retry_after_s=wait_s, headers=headers)

    def _hasten(self, subjects: Sequence[Subject]) -> None:
        if any(subject.slots is not None and subject.slots.is_tight for subject in subjects):
            self._leases.hasten()

    def _end_overdue(self) -> None:
        now_s = self._clock.monotonic()
        # In the order in which they began.
        while self._open:
            turn, permit = next(iter(self._open.items()))
            if now_s - permit.began_s < self._longest_s:
                return
            self.ended(turn)


def estimate(messages_chars: int, max_tokens: int | None) -> int:
    """Return how many tokens a turn may need, in and out; `max_tokens` is of the request."""
    return messages_chars // CHARS_A_TOKEN + (ANSWER_TOKENS if max_tokens is None else max_tokens)
