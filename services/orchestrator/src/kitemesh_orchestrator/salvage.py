"""Who waits for a message that cannot be read: as much as any version of the contract lets one see. Pure."""

from typing import Final

import msgspec
from msgspec import Struct

from kitemesh_contracts.codec import decode
from kitemesh_contracts.errors import ContractViolation
from kitemesh_contracts.ids import is_id


class Waiter(Struct, frozen=True, kw_only=True):
    """A turn and where its client is.

    Attributes:
        gateway: The replica that holds the client.

    """

    turn: str = ""
    tenant: str = ""
    gateway: str = ""


class _Carry(Struct, frozen=True, kw_only=True):
    start: Waiter = Waiter()


class _Seen(Waiter, frozen=True, kw_only=True):
    """A command says it itself, an event by its carried state, a hand-back by its job."""

    carry: _Carry | None = None
    job: Waiter | None = None


_SEEN: Final = msgspec.json.Decoder(_Seen)


def waiter_of(data: bytes, turn: str) -> Waiter | None:
    """Return who waits for a message of that turn; `None` when it does not say."""
    try:
        seen = decode(_SEEN, data)
    except ContractViolation:
        return None
    said = (seen, seen.carry.start if seen.carry else None, seen.job)
    return next((each for each in said if each and each.turn == turn and is_id(each.gateway)), None)
