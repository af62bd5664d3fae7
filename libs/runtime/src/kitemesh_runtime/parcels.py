"""Messages too large to travel: stored once as a blob, sent as a `Parcel` that names it, fetched by who receives it.

It knows the codec and the blobs, and nothing of how bytes travel.
"""

from typing import Any, Final, TypeVar

import msgspec

from kitemesh_contracts.codec import decode, encode
from kitemesh_contracts.commands import INLINE_MAX_BYTES, Parcel
from kitemesh_contracts.errors import ContractViolation, Unavailable
from kitemesh_runtime.blobs import Blobs

T = TypeVar("T")

TRAVEL_MAX_BYTES: Final = 1000 * 1024
"""What the bus takes at the most, a control line and a header less: for a message whose blob cannot be stored."""

KEEP_S: Final = 24 * 3600.0
"""Longer than any message lives in a stream that works are done from."""


def pack_small(message: msgspec.Struct) -> bytes | None:
    """Encode a message that may travel by itself; `None` when it needs a parcel."""
    data = encode(message)
    return data if len(data) <= INLINE_MAX_BYTES else None


class Parcels:
    """Packs what is sent and unpacks what is received."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def pack(self, tenant: str, message: msgspec.Struct) -> bytes:
        """Encode a message, or store it and encode a parcel in its place.

        Raises:
            Unavailable: The store does not answer, and the message is too large to do without it.

        """
        data = encode(message)
        if len(data) <= INLINE_MAX_BYTES:
            return data
        try:
            blob = await self._blobs.put(tenant, data, keep_s=KEEP_S)
        except Unavailable:
            if len(data) <= TRAVEL_MAX_BYTES:
                return data
            raise
        return encode(Parcel(tenant=tenant, blob=blob, size=len(data)))

    async def unpack(self, decoder: msgspec.json.Decoder[T | Parcel], data: bytes) -> T:
        """Decode a message, fetching it first when a parcel came in its place.

        Raises:
            ContractViolation: It is not a message of that union; or the blob is gone, which no redelivery heals,
                because it was durable before the parcel was sent.
            Unavailable: The blob cannot be fetched now.

        """
        message = decode(decoder, data)
        if not isinstance(message, Parcel):
            return message
        stored = await self._blobs.get(message.tenant, message.blob)
        if stored is None:
            raise ContractViolation("the blob that a parcel names is gone")
        content: Any = decode(decoder, stored)
        if isinstance(content, Parcel) or content.tenant != message.tenant:
            raise ContractViolation("a parcel holds another parcel or another tenant's message")
        unpacked: T = content
        return unpacked
