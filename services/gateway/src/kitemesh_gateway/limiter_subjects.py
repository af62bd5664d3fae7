"""A key or a tenant at one gateway: its rates and slots, and the one question to the store that covers them. Pure."""

from typing import Final

from kitemesh_gateway.limiter_rates import Rate
from kitemesh_gateway.limiter_slots import Slots
from kitemesh_runtime.budgets import FORGOTTEN_S, Ask, Grant, SlotsAsk
from kitemesh_runtime.tenancy import Limits

GIVE_UP_S: Final = FORGOTTEN_S / 2
"""A question that got no answer is repeated for so long, and given up after it: what it paid or returned is lost."""


class Subject:
    """Whom limits bound.

    Attributes:
        name: In the store.
        noun: For people.
        requests: `None` where nothing bounds them; so are the others.
        is_active: It is among those that are looked after.
        is_asking: A question about it is on its way.

    """

    __slots__ = (
        "_began_at_s",
        "_question",
        "is_active",
        "is_asking",
        "limits",
        "name",
        "noun",
        "requests",
        "slots",
        "tokens",
    )

    def __init__(self, name: str, noun: str) -> None:
        self.name: Final = name
        self.noun: Final = noun
        self.limits = Limits()
        self.requests: Rate | None = None
        self.tokens: Rate | None = None
        self.slots: Slots | None = None
        self.is_active = False
        self.is_asking = False
        self._question: Ask | None = None
        self._began_at_s = 0.0

    def adjust(self, limits: Limits, burst_s: float, now_s: float, gateways: int) -> None:
        """Hold it to other limits."""
        self.limits = limits
        self.requests = _rate(self.requests, limits.requests_per_minute, burst_s, now_s, gateways)
        self.tokens = _rate(self.tokens, limits.tokens_per_minute, burst_s, now_s, gateways)
        if limits.concurrent_turns is None:
            self.slots = None
        elif self.slots is None:
            self.slots = Slots(limits.concurrent_turns, now_s, gateways)
        else:
            self.slots.limit = limits.concurrent_turns

    def is_settled(self, now_s: float) -> bool:
        """Tell whether it can be forgotten."""
        accounts = (self.requests, self.tokens, self.slots)
        return self._question is None and all(account is None or account.is_settled(now_s) for account in accounts)

    def note_time(self, now_s: float, gateways: int) -> None:
        """Learn from what was asked for since the last time."""
        for account in (self.requests, self.tokens, self.slots):
            if account is not None:
                account.note_time(now_s, gateways)

    def needs_asking(self, now_s: float) -> bool:
        """Tell whether there is something to ask."""
        return self._question is not None or any(
            account is not None and account.needs_asking(now_s) for account in (self.requests, self.tokens, self.slots)
        )

    def ask(self, seq: int, now_s: float, gateways: int, *, is_local: bool) -> Ask:
        """Return the question to put now: the last one again, as long as it has no answer.

        Args:
            seq: The number of the question, if it is a new one; higher than all before.
            now_s: The time.
            gateways: How many there are.
            is_local: Only see whether the store answers, and have the slots that are used.

        """
        self.is_asking = True
        if self._question is not None:
            if now_s - self._began_at_s < GIVE_UP_S:
                return self._question
            if self.slots is not None:
                self.slots.forget()
        self._began_at_s = now_s
        requests, tokens, slots = self.requests, self.tokens, self.slots
        self._question = Ask(
            subject=self.name,
            seq=seq,
            gateways=gateways,
            requests=None if is_local or requests is None or requests.is_even else requests.ask(now_s),
            tokens=None if is_local or tokens is None or tokens.is_even else tokens.ask(now_s),
            slots=None if slots is None or slots.is_even else slots.ask(),
        )
        return self._question

    def farewell(self, seq: int, now_s: float, gateways: int) -> Ask | None:
        """Return the last question, which gives everything back; `None` while another one has no answer."""
        if self._question is not None:
            return None
        return Ask(
            subject=self.name,
            seq=seq,
            gateways=gateways,
            requests=None if self.requests is None else self.requests.ask(now_s, is_last=True),
            tokens=None if self.tokens is None else self.tokens.ask(now_s, is_last=True),
            slots=None if self.slots is None else SlotsAsk(limit=self.slots.limit, used=0, want=0),
        )

    def learn(self, grant: Grant | None, asked_at_s: float, now_s: float) -> None:
        """Take in the answer; `None` is none."""
        self.is_asking = False
        if grant is None or self._question is None:
            return
        asked, self._question = self._question, None
        if self.requests is not None and asked.requests is not None and grant.requests is not None:
            self.requests.learn(asked.requests, grant.requests, now_s)
        if self.tokens is not None and asked.tokens is not None and grant.tokens is not None:
            self.tokens.learn(asked.tokens, grant.tokens, now_s)
        if self.slots is not None and grant.slots is not None:
            self.slots.learn(grant.slots, asked_at_s, now_s)

    def part(self, now_s: float) -> None:
        """Go on without the store."""
        for rate in (self.requests, self.tokens):
            if rate is not None:
                rate.part(now_s)
        if self.slots is not None:
            self.slots.part()

    def rejoin(self) -> None:
        """Go back to what the store says."""
        for account in (self.requests, self.tokens, self.slots):
            if account is not None:
                account.rejoin()


def _rate(kept: Rate | None, limit: int | None, burst_s: float, now_s: float, gateways: int) -> Rate | None:
    if limit is None:
        return None
    if kept is None:
        return Rate(limit, burst_s, now_s, gateways)
    kept.resize(limit)
    return kept
