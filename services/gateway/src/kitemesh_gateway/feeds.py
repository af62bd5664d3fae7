"""One tenant's news at this gateway, in the order of their stream, shared by all its readers.

What is heard live only says that there is something to read: the stream alone has the order and the numbers. It keeps
the newest news, and reads older ones for a reader who is behind. It knows no HTTP, and not who may read what.
"""

import asyncio
import zlib
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import Final, NamedTuple

import structlog

from kitemesh_contracts import subjects
from kitemesh_contracts.codec import NEWS, decode, encode
from kitemesh_contracts.errors import Busy, ContractViolation, Unavailable
from kitemesh_contracts.news import MARK, NewsItem
from kitemesh_contracts.topology import FEED
from kitemesh_runtime.bus import Bus, Stored, Subscription
from kitemesh_runtime.clock import Clock

PAGE: Final = 256
RECENT: Final = 1_024
LOOK_S: Final = 5.0
"""How often the stream is read though nothing was heard."""
DOWN_S: Final = 1.0
AGAIN_S: Final = 0.02
"""Shortest time between two reads, and the first of a growing one when what was heard is not stored yet."""
AGAIN_MOST_S: Final = 0.5
AHEAD: Final = 100_000
"""A place so far behind the newest message that is known here is hardly one, and is looked for only once more.

Other tenants' news count as well, and the newest message of a tenant whose news are rare is up to a minute old.
"""
EXPECT_S: Final = 2.0
"""How long what was heard may take to be stored, and a replica of the stream to have what another has."""
MARK_EVERY_S: Final = 60.0
"""A position that is not kept any more cannot be gone on from, so one that nothing moves is moved by a mark."""

log: Final = structlog.get_logger()


class Place(NamedTuple):
    """A message of a feed: its number, and a checksum that tells it from one of the same number in another life."""

    sequence: int
    crc: int


OLDEST: Final = Place(0, 0)
"""Before everything that is kept."""


class Told(NamedTuple):
    """A message of a feed.

    Attributes:
        item: `None` for one that is no news, and only moves the position on.
        data: Its JSON, one line.

    """

    place: Place
    item: NewsItem | None
    data: bytes


class Cursor:
    """Where a reader is.

    Attributes:
        place: The last message that it has.
        epoch: In which life of the feed it was found there; 0 is none.
        changed: Set when there may be more.

    """

    __slots__ = ("changed", "epoch", "place")

    def __init__(self, place: Place) -> None:
        self.place = place
        self.epoch = 0
        self.changed = asyncio.Event()


class Feed:
    """One tenant's feed. Open it before it is read."""

    def __init__(self, bus: Bus, clock: Clock, tenant: str) -> None:
        self.tenant: Final = tenant
        self.cursors: Final[set[Cursor]] = set()
        self._bus: Final = bus
        self._clock: Final = clock
        self._all: Final = subjects.feed_of(tenant)
        self._mark_subject: Final = subjects.feed(tenant, MARK, "mark")
        self._opening: Final = asyncio.Lock()
        self._subscription: Subscription | None = None
        self._wake: Final = asyncio.Event()
        self._epoch = 0
        self._head = OLDEST
        self._moved_s = 0.0
        self._floor = 0
        self._recent: deque[Told] = deque()
        self._expected: dict[int, float] = {}
        self._in_doubt = False

    async def open(self) -> None:
        """Listen, and find where the stream ends; again does nothing.

        Raises:
            Unavailable: The bus does not answer.

        """
        async with self._opening:
            if self._subscription is None:
                subscription = await self._bus.subscribe(self._all, self._on_message)
                try:
                    self._begin(await self._mark())
                except BaseException:
                    await subscription.stop()
                    raise
                self._subscription = subscription

    async def close(self) -> None:
        """Stop listening."""
        if self._subscription is not None:
            await self._subscription.stop()

    def doubt(self) -> None:
        """Take note that something may have been missed, or the stream have been made anew."""
        self._in_doubt = True
        self._wake.set()

    # The readers' side

    def cursor(self, place: Place | None) -> Cursor:
        """Return a new reader's, behind a place or, without one, behind the newest message."""
        cursor = Cursor(place or self._head)
        if place is None:
            cursor.epoch = self._epoch
        return cursor

    def waiting(self, cursor: Cursor) -> list[Told] | None:
        """Return what is behind a cursor, and move it; `None` if that must be read from the stream."""
        sequence = cursor.place.sequence
        if cursor.epoch != self._epoch or sequence < self._floor:
            return None
        found: list[Told] = []
        for told in reversed(self._recent):
            if told.place.sequence <= sequence:
                break
            found.append(told)
        found.reverse()
        if found:
            cursor.place = found[-1].place
        return found

    async def catch_up(self, cursor: Cursor) -> list[Told] | None:
        """Read what is behind a cursor from the stream, a page of it, and move the cursor.

        `None` if what it has is not kept any more: something may be missing, and it goes on with the oldest message.

        Raises:
            Unavailable: The bus does not answer.

        """
        epoch = self._epoch
        found = await self._after(cursor.place)
        if found is None:
            cursor.place = OLDEST
            return None
        if found:
            cursor.place = found[-1].place
        elif cursor.place == OLDEST:
            cursor.place = self._head
        if epoch == self._epoch:
            if cursor.place.sequence >= self._floor:
                cursor.epoch = epoch
            elif not found:
                # A replica answered that is behind.
                await asyncio.sleep(AGAIN_S)
        return found

    # The stream's side

    async def run(self) -> None:
        """Follow the stream, for ever."""
        pause_s = LOOK_S
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._follow()
            except (Unavailable, Busy) as exc:
                log.warning("feed.not_read", code=exc.code)
                self._in_doubt = True
                await asyncio.sleep(DOWN_S)
            # What is told meanwhile is read together.
            await asyncio.sleep(AGAIN_S)
            pause_s = self._pause_s(pause_s)

    def _pause_s(self, last_s: float) -> float:
        if not self._expected:
            return LOOK_S
        return AGAIN_S if last_s == LOOK_S else min(2 * last_s, EXPECT_S / 2)

    async def _follow(self) -> None:
        now_s = self._clock.monotonic()
        overdue = [crc for crc, until_s in self._expected.items() if until_s <= now_s]
        for crc in overdue:
            del self._expected[crc]
        if self._in_doubt or overdue or now_s - self._moved_s >= MARK_EVERY_S:
            mark = await self._mark()
            self._in_doubt = False
            if mark.sequence <= self._head.sequence:
                self._begin(mark)
        while True:
            found = await self._after(self._head)
            if found is None:
                # What is the newest here is not in the stream any more: its readers find out what they missed.
                self._begin(await self._mark())
                return
            self._take(found)
            if len(found) < PAGE:
                return

    async def _after(self, place: Place) -> list[Told] | None:
        """Return a page of what is behind a place; `None` if the place itself is not kept any more."""
        if place == OLDEST:
            return self._told(await self._bus.since(FEED, self._all, 1, limit=PAGE))
        is_far = place.sequence > self._head.sequence + AHEAD
        pause_s = AGAIN_MOST_S if is_far else AGAIN_S
        left_s = pause_s if is_far else EXPECT_S
        while True:
            # The place itself is read once more: what was found directly behind it leaves no gap.
            found = await self._bus.since(FEED, self._all, place.sequence, limit=PAGE + 1)
            if found:
                intact = _place(found[0]) == place
                return self._told(found[1:]) if intact else None
            if left_s <= 0:
                return None
            # Another replica may have answered, which is a little behind.
            await asyncio.sleep(pause_s)
            left_s -= pause_s
            pause_s = min(2 * pause_s, AGAIN_MOST_S)

    def _told(self, messages: Sequence[Stored]) -> list[Told]:
        return [self._read(message) for message in messages]

    def _read(self, message: Stored) -> Told:
        place = _place(message)
        if message.subject != self._mark_subject:
            try:
                item = decode(NEWS, message.payload)
                return Told(place, item, encode(item))
            except ContractViolation as exc:
                log.warning("news.refused", reason=exc.message)
        return Told(place, None, b"")

    def _take(self, found: Sequence[Told]) -> None:
        for told in found:
            self._expected.pop(told.place.crc, None)
            self._recent.append(told)
            if len(self._recent) > RECENT:
                self._floor = self._recent.popleft().place.sequence
        if found:
            self._head = found[-1].place
            self._moved_s = self._clock.monotonic()
            self._tell()

    async def _mark(self) -> Place:
        """Store a message that is no news; its number says how far the stream goes."""
        payload = self._clock.new_id().encode()
        receipt = await self._bus.send(self._mark_subject, payload, msg_id=f"{MARK}:{payload.decode()}")
        self._moved_s = self._clock.monotonic()
        return Place(receipt.sequence, zlib.crc32(payload))

    def _begin(self, mark: Place) -> None:
        """Go on from a mark; readers who are elsewhere must look for their own places."""
        if self._epoch:
            log.warning("feed.begun_again", sequence=mark.sequence)
        self._epoch += 1
        self._head = mark
        self._floor = mark.sequence
        self._recent.clear()
        self._expected.clear()
        self._tell()

    def _tell(self) -> None:
        for cursor in self.cursors:
            cursor.changed.set()

    def _on_message(self, subject: str, payload: bytes) -> None:
        if subject == self._mark_subject:
            return
        crc = zlib.crc32(payload)
        # It may have been read before it was heard.
        if not any(told.place.crc == crc for told in islice(reversed(self._recent), PAGE)):
            self._expected[crc] = self._clock.monotonic() + EXPECT_S
        self._wake.set()


def _place(message: Stored) -> Place:
    return Place(message.sequence, zlib.crc32(message.payload))
