"""What a user said, with files, as the content of an OpenAI-compatible message: a pure function.

Images travel as data URIs or addresses, texts as text, and everything else as a file with a name.
"""

from base64 import b64encode
from collections.abc import Mapping
from typing import Final, Literal

from msgspec import Struct

from kitemesh_contracts.content import FilePart, TextPart, UserMessage, user_text
from kitemesh_model_runner.provider import is_image, is_text

NAMELESS: Final = "file"


class Text(Struct, frozen=True, kw_only=True):
    """A piece of text."""

    text: str
    type: Literal["text"] = "text"


class ImageUrl(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where an image is, or all of it."""

    url: str
    detail: str = ""


class Image(Struct, frozen=True, kw_only=True):
    """An image."""

    image_url: ImageUrl
    type: Literal["image_url"] = "image_url"


class FileData(Struct, frozen=True, kw_only=True):
    """A file as a data URI, or where it is."""

    filename: str
    file_data: str


class Attachment(Struct, frozen=True, kw_only=True):
    """A document."""

    file: FileData
    type: Literal["file"] = "file"


Content = str | list[Text | Image | Attachment]


def content_of(message: UserMessage, files: Mapping[str, bytes]) -> Content:
    """Return the content of a message; one without files is plain text.

    Args:
        message: What was said.
        files: The bytes of each of its blobs.

    """
    if all(isinstance(part, TextPart) for part in message.parts):
        return user_text(message)
    return [Text(text=part.text) if isinstance(part, TextPart) else _file(part, files) for part in message.parts]


def _file(part: FilePart, files: Mapping[str, bytes]) -> Text | Image | Attachment:
    data = None if part.blob is None else files[part.blob]
    if data is not None and is_text(part):
        return Text(text=f"The file {part.name or NAMELESS}:\n{data.decode(errors='replace')}")
    url = part.url or ""
    if data is not None:
        url = f"data:{part.media_type};base64,{b64encode(data).decode()}"
    if is_image(part):
        return Image(image_url=ImageUrl(url=url, detail=part.detail))
    return Attachment(file=FileData(filename=part.name or NAMELESS, file_data=url))
