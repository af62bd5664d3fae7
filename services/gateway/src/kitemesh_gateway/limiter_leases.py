"""Keeps every limited subject's leases in step with the store, in the background and when a request waits for one.

However many subjects there are, a round is one question to the store. When the store does not answer, each subject
goes on with this gateway's share of its limits. What limits are and who is refused, it does not know.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final

import structlog

from kitemesh_contracts.errors import ErrorCode, KitemeshError
from kitemesh_gateway.limiter_subjects import Subject
from kitemesh_runtime.budgets import Budgets
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.metrics import LIMITS_LOCAL
from kitemesh_runtime.tenancy import Limits

SYNC_S: Final = 0.25
GAP_S: Final = 0.02
"""Rounds that are asked for are this far apart at least."""

LEASE_WAIT_S: Final = 0.3
"""A request waits for the store this long; after that it is judged without it."""

LEAVE_S: Final = 1.0

SLICE: Final = 250
"""As many subjects are looked after at a time: a millisecond or two, which is what a request may have to wait."""

log: Final = structlog.get_logger()


class Leases:
    """The subjects that are in use at this gateway.

    Args:
        budgets: The store.
        gateway: This gateway's name in it.
        gateways: How many there are.
        clock: Time.
        burst_s: How many seconds' worth of a limit may be used at once.

    """

    def __init__(
        self, budgets: Budgets, gateway: str, gateways: Callable[[], int], clock: Clock, *, burst_s: float
    ) -> None:
        self._budgets: Final = budgets
        self._gateway: Final = gateway
        self._count: Final = gateways
        self._gateways = max(1, gateways())
        self._clock: Final = clock
        self._burst_s: Final = burst_s
        self._numbers: Final = itertools.count(1)
        self._subjects: dict[str, Subject] = {}
        self._active: list[Subject] = []
        self._answers: dict[str, asyncio.Future[None]] = {}
        self._urgent: dict[str, Subject] = {}
        self._hurry: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._is_local = False

    def find(self, name: str, noun: str, limits: Limits) -> Subject:
        """Return a subject held to these limits."""
        subject = self._subjects.get(name)
        if subject is None:
            subject = self._subjects[name] = Subject(name, noun)
        if subject.limits is not limits and subject.limits != limits:
            now_s = self._clock.monotonic()
            subject.adjust(limits, self._burst_s, now_s, self._gateways)
            if self._is_local:
                subject.part(now_s)
        self._look_after(subject)
        return subject

    def current(self, subject: Subject) -> Subject:
        """Return what stands for a subject now: it may have been idle, and forgotten, since it was found."""
        found = self._subjects.setdefault(subject.name, subject)
        self._look_after(found)
        return found

    async def refresh(self, subjects: Iterable[Subject]) -> None:
        """Ask the store for what is waited for; return when it answered, or was given up."""
        if self._is_local:
            return
        answers = [self._answer_about(subject) for subject in subjects]
        _, missing = await asyncio.wait(answers, timeout=LEASE_WAIT_S)
        if missing:
            self._part("no answer in time")

    def hasten(self) -> None:
        """Have the next round soon: another gateway may wait for what this one gives back."""
        self._wake.set()

    async def pause(self) -> None:
        """Wait until the next round is due."""
        await asyncio.sleep(GAP_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(SYNC_S - GAP_S):
                await self._wake.wait()
        self._wake.clear()

    async def sync(self) -> None:
        """Do a round: ask about every subject that needs it, and forget those that are idle."""
        now_s = self._clock.monotonic()
        count = max(1, self._count())
        # Alone without the store, and perhaps without the bus: whoever cannot be heard may still be there.
        self._gateways = max(count, self._gateways) if self._is_local else count
        is_local, due = self._is_local, list[Subject]()
        async for slice_ in self._slices(self._active):
            for subject in slice_:
                subject.note_time(now_s, self._gateways)
            due += [each for each in slice_ if not each.is_asking and (is_local or each.needs_asking(now_s))]
        if not self._active:
            self._rejoin()
        async for slice_ in self._slices(due[:1] if is_local else due):
            asked = [subject for subject in slice_ if not subject.is_asking]
            # A store that is away need not be asked about all the others.
            if asked and self._is_local is is_local:
                await self._exchange(asked)
        async for slice_ in self._slices(self._active):
            self._drop_idle(slice_, now_s)
        # One that came back meanwhile is there twice.
        self._active = [subject for subject in dict.fromkeys(self._active) if subject.is_active]

    async def leave(self) -> None:
        """Give everything back: this gateway stops."""
        held = [subject for subject in self._active if not subject.is_asking]
        if held and not self._is_local:
            now_s = self._clock.monotonic()
            last = [subject.farewell(next(self._numbers), now_s, self._gateways) for subject in held]
            asks = [ask for ask in last if ask is not None]
            with suppress(KitemeshError, TimeoutError):
                async with asyncio.timeout(LEAVE_S):
                    await self._budgets.exchange(self._gateway, asks)

    def _look_after(self, subject: Subject) -> None:
        if not subject.is_active:
            subject.is_active = True
            self._active.append(subject)

    def _answer_about(self, subject: Subject) -> asyncio.Future[None]:
        answer = self._answers.get(subject.name)
        if answer is None:
            answer = self._answers[subject.name] = asyncio.get_running_loop().create_future()
        if not subject.is_asking:
            self._urgent[subject.name] = subject
            if self._hurry is None:
                # No request asks by itself: a client that goes away must not take the others' question with it.
                self._hurry = asyncio.create_task(self._ask_urgently(), name="limits-lease")
        return answer

    async def _ask_urgently(self) -> None:
        try:
            while self._urgent:
                # Those on their way by themselves wake their waiters, who ask again where it did not suffice.
                subjects = [subject for subject in self._urgent.values() if not subject.is_asking]
                self._urgent.clear()
                if subjects:
                    await self._exchange(subjects)
        finally:
            self._hurry = None

    async def _exchange(self, subjects: list[Subject]) -> None:
        asked_at_s = self._clock.monotonic()
        asks = [
            subject.ask(next(self._numbers), asked_at_s, self._gateways, is_local=self._is_local)
            for subject in subjects
        ]
        grants = {}
        try:
            grants = dict(await self._budgets.exchange(self._gateway, asks))
        except KitemeshError as exc:
            if exc.code is ErrorCode.INTERNAL:
                log.exception("limits.failed")
            self._part(exc.code)
        else:
            self._rejoin()
        finally:
            now_s = self._clock.monotonic()
            for subject in subjects:
                subject.learn(grants.get(subject.name), asked_at_s, now_s)
                answer = self._answers.pop(subject.name, None)
                if answer is not None and not answer.done():
                    answer.set_result(None)

    @staticmethod
    async def _slices(subjects: Sequence[Subject]) -> AsyncIterator[Sequence[Subject]]:
        """Go through many subjects in parts, between which requests are served."""
        whole = tuple(subjects)
        for start in range(0, len(whole), SLICE):
            if start:
                await asyncio.sleep(0)
            yield whole[start : start + SLICE]

    def _drop_idle(self, subjects: Iterable[Subject], now_s: float) -> None:
        for subject in subjects:
            if subject.is_active and not subject.is_asking and subject.is_settled(now_s):
                subject.is_active = False
                self._subjects.pop(subject.name, None)

    def _part(self, reason: str) -> None:
        if self._is_local:
            return
        self._is_local = True
        LIMITS_LOCAL.set(1)
        log.warning("limits.parted", reason=reason)
        now_s = self._clock.monotonic()
        for subject in self._active:
            subject.part(now_s)

    def _rejoin(self) -> None:
        if not self._is_local:
            return
        self._is_local = False
        LIMITS_LOCAL.set(0)
        log.info("limits.rejoined")
        for subject in self._active:
            subject.rejoin()
