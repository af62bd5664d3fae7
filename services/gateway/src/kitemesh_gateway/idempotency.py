"""`Idempotency-Key`: what a client's key is kept as, and what a claim of it says. Pure.

A key belongs to its tenant and route. Neither it nor the body is kept, only their digests.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from kitemesh_contracts.errors import BadRequest, ErrorCode
from kitemesh_contracts.headers import IDEMPOTENCY_KEY
from kitemesh_gateway.dialects.base import Mistake, Mistakes
from kitemesh_runtime.claims import KEY_CLAIMS, Claim

_KEY: Final = re.compile(r"\A[\x20-\x7e]{1,255}\Z")


class Key(NamedTuple):
    """A key as it is claimed.

    Attributes:
        value: SHA-256 of the key, hexadecimal: a claim's value is part of an id.
        fingerprint: SHA-256 of the body, byte by byte.

    """

    kind: str
    value: str
    fingerprint: str


def read_key(given: Sequence[str]) -> str | None:
    """Read the header; `None` when there is none.

    Raises:
        Mistakes: It is none that may be.

    """
    if not given:
        return None
    if len(given) > 1:
        raise Mistakes([Mistake(IDEMPOTENCY_KEY, "must be given once")])
    if not _KEY.match(given[0]):
        raise Mistakes([Mistake(IDEMPOTENCY_KEY, "must be 1 to 255 printable ASCII characters")])
    return given[0]


def claimed_as(route: str, key: str | None, body: bytes) -> Key | None:
    """Say what is claimed for a key on a route, given the request's body; nothing without a key."""
    if key is None:
        return None
    return Key(KEY_CLAIMS + route, hashlib.sha256(key.encode()).hexdigest(), hashlib.sha256(body).hexdigest())


def check(claim: Claim, key: Key) -> None:
    """Refuse a key that stands for something else.

    Raises:
        BadRequest: It came with another body first (`idempotency.mismatch`).

    """
    if claim.fingerprint != key.fingerprint:
        message = "This Idempotency-Key was used with another body; a new request needs a new key"
        raise BadRequest(ErrorCode.IDEMPOTENCY_MISMATCH, message)
