"""How much a request may bring beside its files, which are stored by themselves. Pure.

A body is larger where files are taken, and where clients send what is stored already; what is new of it travels, and is
kept in one document.
"""

from typing import Final

from kitemesh_contracts.codec import encode
from kitemesh_contracts.errors import BadRequest, ErrorCode
from kitemesh_gateway.dialects.base import TurnRequest

MAX_REQUEST_BYTES: Final = 1024 * 1024


def check_size(request: TurnRequest, max_bytes: int) -> None:
    """Refuse a request that is too large without its files.

    Raises:
        BadRequest: It is (`request.too_large`).

    """
    said = (request.messages, request.tools, request.sampling, request.values, request.prompt, request.details)
    if len(encode(said)) > max_bytes:
        message = f"What is new in the request must not be larger than {max_bytes} bytes, files aside"
        raise BadRequest(ErrorCode.REQUEST_TOO_LARGE, message)
