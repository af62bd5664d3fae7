"""What must be unique within a tenant.

What holds for every store is said in `stores`.
"""

from typing import Final, NamedTuple, Protocol

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
