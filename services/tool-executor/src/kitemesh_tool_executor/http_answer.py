"""From the answer of an HTTP tool to what the model sees, or to why there is nothing to see. Pure.

An upstream's words are data: bounded, decoded, and never taken for our own.
"""

from collections.abc import Mapping
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Final

from kitemesh_contracts.errors import ErrorCode
from kitemesh_contracts.headers import RETRY_AFTER
from kitemesh_tool_executor.tool import CallFailed

MAX_ERROR_CHARACTERS: Final = 500
MAX_RETRY_AFTER_S: Final = 86_400.0

_AGAIN: Final = frozenset({429, 502, 503, 504})
_TEXTUAL: Final = ("json", "xml", "yaml", "javascript", "x-www-form-urlencoded", "ndjson")


def is_success(status: int) -> bool:
    """Say whether a status is a 2xx."""
    return 200 <= status <= 299  # noqa: PLR2004  the protocol's own numbers


def read_text(headers: Mapping[str, str], body: bytes) -> str | None:
    """Decode a body; `None` when it is no text. What does not fit its charset is replaced."""
    message = Message()
    message["content-type"] = headers.get("Content-Type", "text/plain")
    media_type = message.get_content_type()
    if headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        return None
    if not (media_type.startswith("text/") or media_type.endswith(_TEXTUAL)):
        return None if body else ""
    charset = message.get_content_charset("utf-8")
    try:
        return body.decode(charset, "replace")
    except LookupError:
        return body.decode("utf-8", "replace")


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> CallFailed:
    """Return the failure that a status other than 2xx is. A redirect is not followed, nor is its target told.

    A server that failed may have had its effect all the same: only up to 499 is its word final.
    """
    words = f"The tool answered {status}"
    text = (read_text(headers, body) or "").strip() if status >= 400 else ""  # noqa: PLR2004  the protocol's own
    if text:
        words = f"{words}: {text[:MAX_ERROR_CHARACTERS]}"
    return CallFailed(
        ErrorCode.TOOL_FAILED,
        words,
        sent=True,
        again=status in _AGAIN,
        answered=status < 500,  # noqa: PLR2004  the protocol's own
        retry_after_s=retry_after_s(headers),
    )


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Read the pause that an answer asks for, seconds or a date; `None` when there is none that can be read.

    A date is compared with the answer's own, so that it does not matter whose clock is right.
    """
    text = headers.get(RETRY_AFTER, "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), MAX_RETRY_AFTER_S)
    try:
        pause = parsedate_to_datetime(text) - parsedate_to_datetime(headers.get("Date", ""))
    except (ValueError, TypeError):
        return None
    return min(max(pause.total_seconds(), 0.0), MAX_RETRY_AFTER_S)
