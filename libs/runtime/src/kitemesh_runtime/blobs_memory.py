"""The memory twin of `Blobs`."""

from kitemesh_runtime.clock import Clock


class MemoryBlobs:
    """The `Blobs` port in memory. Nothing is ever removed: `keep_s` is a lower bound."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._blobs: dict[str, tuple[str, bytes]] = {}

    async def put(self, tenant: str, data: bytes, *, keep_s: float) -> str:
        """Store the bytes and return their id."""
        del keep_s
        blob = self._clock.new_id()
        self._blobs[blob] = (tenant, bytes(data))
        return blob

    async def get(self, tenant: str, blob: str) -> bytes | None:
        """Return the bytes, or `None`."""
        owner, data = self._blobs.get(blob, (None, None))
        return data if owner == tenant else None
