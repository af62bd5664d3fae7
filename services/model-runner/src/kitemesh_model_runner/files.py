"""The files that a prompt names, fetched for the model that is asked; words in the place of those it cannot be shown.

How a provider is given a file is not known here.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from kitemesh_contracts.content import FilePart, Message, Part, TextPart, UserMessage
from kitemesh_model_runner.provider import is_image, is_text
from kitemesh_runtime.blobs import Blobs
from kitemesh_runtime.catalog import Capability

FILES_MAX_BYTES: Final = 32 * 1024 * 1024
"""Of one prompt's files, the newest first; no provider takes more in one request."""


class Prompt(NamedTuple):
    """A prompt that can be shown.

    Attributes:
        files: The bytes of every blob that is left in `messages`.

    """

    messages: tuple[Message, ...]
    files: Mapping[str, bytes]


class Files:
    """Fetches files."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs: Final = blobs

    async def fetch(self, tenant: str, messages: tuple[Message, ...], can: Sequence[Capability] | None) -> Prompt:
        """Return a prompt with its files.

        Args:
            tenant: Whose they are.
            messages: The prompt.
            can: What may be asked of the model; `None`: everything.

        Raises:
            Unavailable: The store does not answer.

        """
        if not any(map(_has_files, messages)):
            return Prompt(messages, {})
        files: dict[str, bytes] = {}
        shown: list[Message] = []
        left = FILES_MAX_BYTES
        for message in reversed(messages):
            if not _has_files(message):
                shown.append(message)
                continue
            assert isinstance(message, UserMessage)  # noqa: S101  nothing else has files
            parts: list[Part] = []
            for part in reversed(message.parts):
                if isinstance(part, TextPart):
                    parts.append(part)
                    continue
                blob = part.blob
                if not _can_see(part, can):
                    parts.append(_instead(part, "cannot be shown to this model"))
                elif blob is None or blob in files:
                    parts.append(part)
                elif part.size > left:
                    parts.append(_instead(part, "is not shown again"))
                elif (data := await self._blobs.get(tenant, blob)) is None:
                    parts.append(_instead(part, "is not kept any more"))
                else:
                    files[blob] = data
                    left -= len(data)
                    parts.append(part)
            shown.append(UserMessage(parts=tuple(reversed(parts))))
        return Prompt(tuple(reversed(shown)), files)


def _has_files(message: Message) -> bool:
    return isinstance(message, UserMessage) and any(isinstance(part, FilePart) for part in message.parts)


def _can_see(part: FilePart, can: Sequence[Capability] | None) -> bool:
    # Text is given as such.
    return can is None or is_text(part) or ("images" if is_image(part) else "files") in can


def _instead(part: FilePart, why: str) -> TextPart:
    return TextPart(text=f"(The file {part.name or part.media_type} {why}.)")
