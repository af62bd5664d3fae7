"""Keeping the files that a request brings: once in the tenant's blobs, where every worker finds them. It knows no HTTP.

Within a conversation the same bytes are one blob, so a client that sends its history again stores nothing again.
"""

import hashlib
from collections.abc import Sequence
from typing import Final
from uuid import NAMESPACE_OID, uuid5

from msgspec.structs import replace

from kitemesh_contracts.commands import StartTurn
from kitemesh_contracts.content import FilePart, Message, Part, UserMessage, files_of
from kitemesh_runtime.blobs import Blobs

UNKEPT_S: Final = 2 * 86_400.0
"""Where no conversation is kept: as long as such a turn may wait for a decision."""
INLINE: Final = "#"
"""Begins the `blob` of a file whose bytes came with the request; behind it, its place among them."""


class Keeping:
    """Stores what requests bring."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs: Final = blobs

    async def keep(self, start: StartTurn, files: Sequence[bytes]) -> StartTurn:
        """Store a turn's files and return its start, which names them then; again it changes nothing.

        Raises:
            Unavailable: The store does not answer.

        """
        if not files:
            return start
        about = start.conversation or start.turn
        keep_s = UNKEPT_S if start.conversation is None else None
        names: list[str] = []
        for data in files:
            name = str(uuid5(NAMESPACE_OID, f"{start.tenant}/{about}/{hashlib.sha256(data).hexdigest()}"))
            names.append(await self._blobs.put(start.tenant, data, keep_s=keep_s, about=about, name=name))
        return replace(start, input=tuple(_named(message, names) for message in start.input))

    async def give_back(self, start: StartTurn) -> None:
        """Remove the files of a turn that was refused; those of a conversation that goes on may be others' as well.

        Raises:
            Unavailable: The store does not answer.

        """
        is_alone = start.fresh or start.conversation is None
        if is_alone and any(isinstance(message, UserMessage) and files_of(message) for message in start.input):
            await self._blobs.forget(start.tenant, start.conversation or start.turn)


def _named(message: Message, names: Sequence[str]) -> Message:
    if not isinstance(message, UserMessage):
        return message
    parts: tuple[Part, ...] = tuple(
        replace(part, blob=names[int(part.blob.removeprefix(INLINE))])
        if isinstance(part, FilePart) and part.blob is not None and part.blob.startswith(INLINE)
        else part
        for part in message.parts
    )
    return replace(message, parts=parts)
