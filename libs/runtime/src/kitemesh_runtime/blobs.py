"""Contents that are too large for a message or a document.

What holds for every store is said in `stores`.
"""

from collections.abc import Sequence
from typing import Protocol


class Blobs(Protocol):
    """Bytes too large to travel or to embed."""

    async def put(
        self, tenant: str, data: bytes, *, keep_s: float | None, about: str = "", name: str | None = None
    ) -> str:
        """Store the bytes for at least `keep_s` seconds and return their id.

        Args:
            tenant: Whose they are.
            data: The bytes.
            keep_s: How long; a `name` that is stored again is kept for so long from then. `None`: longer than a turn
                is kept that names them, and that waits for a person no longer than some days.
            about: What they belong to, for `forget`: a conversation, or a turn that has none.
            name: Their id, made of the tenant and the bytes: the same bytes are stored once. `None`: a new one.

        """

    async def get(self, tenant: str, blob: str) -> bytes | None:
        """Return the bytes, or `None`."""

    async def forget(self, tenant: str, about: str, blobs: Sequence[str] = ()) -> None:
        """Remove what belongs to `about`, and the blobs named besides."""
