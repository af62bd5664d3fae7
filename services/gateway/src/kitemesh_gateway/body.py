"""Reading a request's body: what its headers may say, how large it may be, how long it may take.

What the bytes mean is `strict_json`'s business.
"""

import asyncio
from typing import Final

from aiohttp import web

from kitemesh_contracts.errors import BadRequest, ErrorCode

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


def check_headers(request: web.BaseRequest, max_bytes: int) -> None:
    """Refuse a body by what the headers say of it, before any of it is read.

    Raises:
        BadRequest: Not JSON, encoded, or too large.

    """
    headers = request.headers
    if headers.get("Content-Type") != "application/json":
        _check_type(headers.getall("Content-Type", []))
    if any(encoding.strip().lower() != "identity" for encoding in headers.getall("Content-Encoding", [])):
        raise BadRequest(ErrorCode.REQUEST_MEDIA_TYPE, "Content-Encoding must be absent or identity")
    length = request.content_length
    if length is not None and length > max_bytes:
        raise _too_large(max_bytes)


async def read_body(request: web.BaseRequest, max_bytes: int, timeout_s: float) -> bytes:
    """Read the whole body.

    Raises:
        BadRequest: It is too large, did not arrive in time, or broke off.

    """
    content = request.content
    if content.is_eof() and content.exception() is None:
        data = content.read_nowait(-1)
        if len(data) > max_bytes:
            raise _too_large(max_bytes)
        return data
    try:
        async with asyncio.timeout(timeout_s):
            return await _read_all(request, max_bytes)
    except TimeoutError as exc:
        message = f"The body did not arrive within {timeout_s:g} s"
        raise BadRequest(ErrorCode.REQUEST_TIMEOUT, message) from exc
    except web.RequestPayloadError as exc:
        raise BadRequest(ErrorCode.REQUEST_MALFORMED, "The body is not framed as HTTP demands") from exc


async def _read_all(request: web.BaseRequest, max_bytes: int) -> bytes:
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(_CONTINUE)
    data = bytearray()
    while True:
        piece = await request.content.readany()
        if not piece:
            return bytes(data)
        data += piece
        if len(data) > max_bytes:
            raise _too_large(max_bytes)


def _check_type(given: list[str]) -> None:
    if len(given) == 1:
        media, *parameters = (part.strip().lower() for part in given[0].split(";"))
        charsets = {p.partition("=")[2].strip('"') for p in parameters if p.startswith("charset=")}
        if media == "application/json" and charsets <= {"utf-8", "utf8"}:
            return
    raise BadRequest(ErrorCode.REQUEST_MEDIA_TYPE, "Content-Type must be application/json in UTF-8")


def _too_large(max_bytes: int) -> BadRequest:
    return BadRequest(ErrorCode.REQUEST_TOO_LARGE, f"The body must not be larger than {max_bytes} bytes")
