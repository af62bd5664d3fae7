"""Files in a request: what a data URI or an address says, checked, and their bytes collected in order. Pure.

Images and PDFs have at most 10 MiB, texts 256 KiB. An address is only passed on: nothing here ever opens it, but the
provider may stand in the operator's own network, so it must name a public host.
"""

import binascii
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema

from kitemesh_contracts.content import FilePart
from kitemesh_gateway.dialects.mistakes import wrong

MAX_BINARY_BYTES: Final = 10 * 1024 * 1024
MAX_TEXT_BYTES: Final = 256 * 1024
MAX_FILES: Final = 64
"""In the messages of a request that are used."""
MAX_URL_CHARS: Final = 2048
MAX_NAME_CHARS: Final = 255

PDF: Final = "application/pdf"
_ANY_IMAGE: Final = "image/*"
_MIB: Final = 1024 * 1024
_KIB: Final = 1024
_HEADER_CHARS: Final = 256
_PDF_WITHIN_BYTES: Final = 1024
_MEDIA_TYPE: Final = re.compile(r"\A[a-z]+/(?:[a-z0-9][a-z0-9.+-]{0,99}|\*)\Z")
_ADDRESS: Final = re.compile(r"\Ahttps://([A-Za-z0-9.-]+)(?::[0-9]{1,5})?(?:[/?](?:(?!\\)[!-~])*)?\Z")
_PUBLIC: Final = re.compile(r"\A(?:(?!-)[a-z0-9-]{1,63}\.)+[a-z][a-z0-9-]{0,62}\.?\Z")
_INTERNAL: Final = re.compile(r"\.(?:local|localhost|localdomain|internal|intranet|lan|home|corp|arpa)\.?\Z")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")

_ENDINGS: Final[Mapping[str, str]] = {
    "csv": "text/csv",
    "gif": "image/gif",
    "htm": "text/html",
    "html": "text/html",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "json": "application/json",
    "md": "text/markdown",
    "pdf": PDF,
    "png": "image/png",
    "txt": "text/plain",
    "webp": "image/webp",
}
_ALIASES: Final[Mapping[str, str]] = {"image/jpg": "image/jpeg", "application/x-pdf": PDF, "text/*": "text/plain"}
_IMAGES: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", _ANY_IMAGE})


class Source(NamedTuple):
    """A file as a client gave it: `data` or `url`.

    Attributes:
        media_type: Empty for an address that does not say; such a file is an image.

    """

    media_type: str
    data: bytes | None = None
    url: str | None = None

    @property
    def is_image(self) -> bool:
        """Whether it is an image, as far as it says."""
        return is_image(self.media_type)


class Files:
    """Collects the files of one request: what `TurnRequest.files` is to hold. The same bytes are kept once."""

    def __init__(self) -> None:
        self._places: dict[bytes, int] = {}

    def add(self, source: Source, *, name: str = "", detail: str = "") -> FilePart:
        """Take a file and return its part."""
        if source.data is None:
            return FilePart(media_type=source.media_type, name=name, url=source.url, detail=detail)
        place = self._places.setdefault(source.data, len(self._places))
        return FilePart(media_type=source.media_type, name=name, blob=f"#{place}", size=len(source.data), detail=detail)

    def all(self) -> tuple[bytes, ...]:
        """Return the bytes of all that came with the request, in order."""
        return tuple(self._places)


def is_image(media_type: str) -> bool:
    """Tell whether a media type is an image's; an address that does not say one is."""
    return not media_type or media_type.startswith("image/")


def is_text(media_type: str) -> bool:
    """Tell whether a media type is that of a text."""
    return media_type.startswith("text/") or media_type == "application/json"


def read_source(text: str, *, media_type: str = "", name: str = "") -> Source:
    """Read a data URI or an https address.

    Args:
        text: The URI.
        media_type: As the client states it beside; a data URI's own counts more.
        name: The file's, whose ending says the type where nothing else does.

    Raises:
        PydanticCustomError: It is none of them, or not a file that is taken.

    """
    if text[:5].lower() == "data:":
        return _read_data(text, media_type or _by_name(name))
    if text[:8].lower() == "https://":
        _check_address(text)
        stated = _type_of(media_type or _by_name(name))
        if is_text(stated):
            raise wrong("must be a data URI: a text is not fetched from an address")
        return Source("" if stated in {"", _ANY_IMAGE} else _allowed(stated), url=text)
    raise wrong("must be an https:// address or a data: URI")


def read_bytes(text: str, *, name: str) -> Source:
    """Read what stands for a file: a data URI, an https address, or bare base64 of a file whose name says its type.

    Raises:
        PydanticCustomError: It is none of them, or not a file that is taken.

    """
    if ":" in text[:_HEADER_CHARS]:
        return read_source(text, name=name)
    media_type = _by_name(name)
    if not media_type:
        raise wrong("must be a data URI: the name of the file does not say its type")
    return _checked(media_type, text, is_base64=True)


def _read_data(text: str, stated: str) -> Source:
    end = text.find(",", 0, _HEADER_CHARS)
    if end < 0:
        raise wrong("is not a data URI")
    media_type, *parameters = (part.strip().lower() for part in text[5:end].split(";"))
    charsets = {each.partition("=")[2].strip('"') for each in parameters if each.startswith("charset=")}
    if not charsets <= {"utf-8", "utf8", "us-ascii"}:
        raise wrong("must be a text in UTF-8")
    return _checked(media_type or stated or "text/plain", text[end + 1 :], is_base64="base64" in parameters)


def _checked(stated: str, text: str, *, is_base64: bool) -> Source:
    """Decode a file of a stated type, unless it is too large or something else."""
    media_type = _allowed(_type_of(stated))
    is_short = is_text(media_type)
    most = MAX_TEXT_BYTES if is_short else MAX_BINARY_BYTES
    too_large = wrong(f"must have at most {most // _KIB} KiB" if is_short else f"must have at most {most // _MIB} MiB")
    # Neither form has fewer bytes than this: what is far too large is not decoded.
    if len(text) > most * (4 / 3 if is_base64 else 3) + 4:
        raise too_large
    data = _decoded(text) if is_base64 else unquote_to_bytes(text)
    if len(data) > most:
        raise too_large
    if not data:
        raise wrong("is an empty file")
    if is_short:
        _check_text(data)
        return Source(media_type, data)
    if media_type == PDF:
        if b"%PDF-" not in data[:_PDF_WITHIN_BYTES]:
            raise wrong("is not a PDF")
        return Source(PDF, data)
    return Source(_image_type(data), data)


def _decoded(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as exc:
        raise wrong("is not valid base64") from exc


def _check_text(data: bytes) -> None:
    try:
        data.decode()
    except UnicodeDecodeError as exc:
        raise wrong("must be a text in UTF-8") from exc
    if b"\0" in data:
        raise wrong("is not a text")


def _image_type(data: bytes) -> str:
    """Say what an image is by its first bytes: clients state the wrong one of the four."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data[:6] in {b"GIF87a", b"GIF89a"}:
        return "image/gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    raise wrong("is not a PNG, JPEG, GIF or WebP image")


def _allowed(media_type: str) -> str:
    if media_type in _IMAGES or media_type == PDF or is_text(media_type):
        return media_type
    raise wrong("must be a PNG, JPEG, GIF or WebP image, a PDF or a text")


def _type_of(stated: str) -> str:
    media_type = stated.split(";", 1)[0].strip().lower()
    if media_type and not _MEDIA_TYPE.match(media_type):
        raise wrong("must be a PNG, JPEG, GIF or WebP image, a PDF or a text")
    return _ALIASES.get(media_type, media_type)


def _by_name(name: str) -> str:
    _, dot, ending = name.rpartition(".")
    return _ENDINGS.get(ending.lower(), "") if dot else ""


def _check_address(text: str) -> None:
    if len(text) > MAX_URL_CHARS:
        raise wrong(f"must have at most {MAX_URL_CHARS} characters")
    match = _ADDRESS.match("https://" + text[8:])
    if match is None:
        raise wrong("must be an https:// address of ASCII characters, without user, blanks and backslashes")
    host = match[1].lower()
    if not _PUBLIC.match(host) or _INTERNAL.search(host):
        raise wrong("must name a public host")


def _check_name(name: str) -> str:
    if _CONTROL.search(name):
        raise wrong("must not hold control characters")
    return name


def _image(value: Any) -> Source:
    if not isinstance(value, str):
        raise wrong("must be a string")
    source = read_source(value, media_type=_ANY_IMAGE)
    if not source.is_image:
        raise wrong("must be an image")
    return source


FileName = Annotated[str, Field(max_length=MAX_NAME_CHARS), AfterValidator(_check_name)]
ImageSource = Annotated[
    Source,
    PlainValidator(_image),
    WithJsonSchema(
        {
            "type": "string",
            "format": "uri",
            "description": "An https address of a public host, or a data URI: a PNG, JPEG, GIF or WebP of at most "
            f"{MAX_BINARY_BYTES // _MIB} MiB.",
        },
    ),
]
"""A field that holds an image's address or its bytes."""
