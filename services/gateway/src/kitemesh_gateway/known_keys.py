"""The keys that a gateway has seen, by digest: bounded, and each found by its id when it changes.

It reads no clock and no store; whether what it remembers may still be trusted is the authenticator's to say.
"""

from collections import OrderedDict
from typing import Final

from msgspec import Struct

from kitemesh_gateway.principals import Principal
from kitemesh_runtime.keys import KeyRecord


class Known(Struct):
    """A key as it was when the store was asked.

    Attributes:
        principal: Who asks with it, as long as `version` is the directory's.
        asked_s: When the store was asked, on the monotonic clock.

    """

    record: KeyRecord
    principal: Principal
    version: int
    asked_s: float


class KnownKeys:
    """Keys, those longest known forgotten first.

    Args:
        most: How many are remembered.

    """

    def __init__(self, most: int) -> None:
        self._most: Final = most
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._digests: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._known)

    def get(self, digest: str) -> Known | None:
        """Return what is known of a key."""
        return self._known.get(digest)

    def put(self, digest: str, known: Known) -> None:
        """Remember a key."""
        if digest not in self._known and len(self._known) >= self._most:
            _, oldest = self._known.popitem(last=False)
            self._digests.pop(oldest.record.id, None)
        self._known[digest] = known
        self._digests[known.record.id] = digest

    def drop(self, key: str) -> None:
        """Forget the key of that id, if it is known."""
        digest = self._digests.pop(key, None)
        if digest is not None:
            self._known.pop(digest, None)
