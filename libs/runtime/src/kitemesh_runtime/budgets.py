"""What gateways lease of a limit, so that each can spend without asking and all together never spend more.

One document for each subject (a key or a tenant) holds what is left of its rates and who has how many slots. The
database's clock refills it. It knows no limit: whoever asks says what holds.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from msgspec import Struct

SEAT_S: Final = 10.0
"""Slots of a gateway that was silent for this long are free again."""

FORGOTTEN_S: Final = 60.0
"""For this long it is known which question of a gateway was the last one that was taken."""


class RateAsk(Struct, frozen=True, kw_only=True):
    """What a gateway wants of one rate.

    Attributes:
        per_s: How fast the level rises.
        capacity: How far.
        back: What it returns unused; below 0 what it spent without having it, and owes.
        need: What requests wait for: given whole if there is enough, else as many pieces as there are.
        piece: The smallest part of `need` that is of use.
        want: What it would like to have beyond that, in whole units; it gets no more than its share of what is left.

    """

    per_s: float
    capacity: float
    back: float = 0.0
    need: float = 0.0
    piece: float = 1.0
    want: float = 0.0


class SlotsAsk(Struct, frozen=True, kw_only=True):
    """How many slots a gateway wants to have from now on.

    Attributes:
        limit: Of all gateways together.
        used: Those it cannot give up, whatever the limit is.
        want: All that it would like to have, these included.

    """

    limit: int
    used: int
    want: int


class Ask(Struct, frozen=True, kw_only=True):
    """A gateway's question about a subject. Asked again with the same `seq`, it is answered as it was.

    A part that is `None` changes nothing of it.

    Attributes:
        seq: Higher than that of its last question about this subject.
        gateways: Among how many the rest is shared.

    """

    subject: str
    seq: int
    gateways: int
    requests: RateAsk | None = None
    tokens: RateAsk | None = None
    slots: SlotsAsk | None = None


class RateGrant(Struct, frozen=True, kw_only=True):
    """What it got of a rate, and what is left for all; below 0 when more was spent than there was."""

    granted: float
    level: float


class SlotsGrant(Struct, frozen=True, kw_only=True):
    """The slots that it has now, until `SEAT_S` from now, and those that the other gateways have together."""

    held: int
    others: int


class Grant(Struct, frozen=True, kw_only=True):
    """The answer; a part is `None` where nothing was asked."""

    requests: RateGrant | None = None
    tokens: RateGrant | None = None
    slots: SlotsGrant | None = None


class Budgets(Protocol):
    """The levels of all subjects. One that nobody asked about for an hour is forgotten, and so is full again."""

    async def exchange(self, gateway: str, asks: Sequence[Ask]) -> Mapping[str, Grant]:
        """Answer questions, each subject's atomically, and return the grants by subject.

        Args:
            gateway: Who asks: an id, a new one for each life of a process.
            asks: At most one for each subject.

        Returns:
            Grants. A question that is not among them may or may not have been taken: ask it again as it was, or within
            `FORGOTTEN_S` not at all.

        Raises:
            Unavailable: Each of them may or may not have been taken.

        """
