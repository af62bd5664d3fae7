"""The memory twin of `Blobs`."""

from collections.abc import Sequence

from kitemesh_runtime.clock import Clock


class MemoryBlobs:
    """The `Blobs` port in memory. Nothing is ever removed: `keep_s` is a lower bound."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._blobs: dict[str, tuple[str, bytes, str]] = {}

    async def put(
        self, tenant: str, data: bytes, *, keep_s: float | None, about: str = "", name: str | None = None
    ) -> str:
        """Store the bytes and return their id."""
        del keep_s
        blob = self._clock.new_id() if name is None else name
        self._blobs[blob] = (tenant, bytes(data), about)
        return blob

    async def get(self, tenant: str, blob: str) -> bytes | None:
        """Return the bytes, or `None`."""
        owner, data, _ = self._blobs.get(blob, (None, None, None))
        return data if owner == tenant else None

    async def forget(self, tenant: str, about: str, blobs: Sequence[str] = ()) -> None:
        """Remove what belongs to `about`, and the blobs named besides."""
        for blob, (owner, _, belongs_to) in list(self._blobs.items()):
            if owner == tenant and (belongs_to == about or blob in blobs):
                del self._blobs[blob]
