"""The port of the messages that were given up: references that people look at, requeue or drop.

It knows neither what a message said nor what became of its turn. The one adapter is `dead_letters_nats`.
"""

from typing import Protocol

from msgspec import Struct


class Letter(Struct, frozen=True, kw_only=True):
    """A reference to a message that was given up.

    Attributes:
        number: Where the reference stands among all of them; later ones have greater numbers.
        stream: Where the message was.
        subject: Of the message; empty when it was gone before anybody looked.
        turn: Whose message it was; empty when its subject does not say.
        deliveries: How often it was delivered.
        at: When the server gave it up, RFC 3339.

    """

    number: int
    stream: str
    subject: str
    turn: str
    deliveries: int
    reason: str
    at: str


class DeadLetters(Protocol):
    """What was given up. Every method raises `Unavailable` (`bus.down`) when the server does not answer."""

    async def count(self) -> int:
        """Return how many there are."""

    async def page(self, *, stream: str | None, before: int | None, limit: int) -> list[Letter]:
        """Return letters, newest first.

        Args:
            stream: Only those of messages that were there.
            before: The number of the last one seen.
            limit: How many.

        """

    async def get(self, number: int) -> Letter | None:
        """Return a letter; `None` when there is none of that number."""

    async def remove(self, number: int) -> None:
        """Remove a letter; again is the same."""
