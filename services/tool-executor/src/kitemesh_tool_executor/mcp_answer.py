"""From the result of an MCP tool to what the model sees. Pure.

Text is taken as it is, structured content as JSON, and of everything else only what it is.
"""

from typing import Any, Final

import msgspec
from mcp.types import CallToolResult, TextContent

from kitemesh_contracts.errors import ErrorCode
from kitemesh_tool_executor.tool import CallFailed

MAX_ERROR_CHARACTERS: Final = 2000

_encode: Final = msgspec.json.Encoder(order="sorted").encode


def read_result(result: CallToolResult, *, max_bytes: int) -> str:
    """Return a result's text.

    Raises:
        CallFailed: The tool says that it failed, or the text is larger than `max_bytes`.

    """
    texts = [each.text if isinstance(each, TextContent) else _named(each) for each in result.content]
    if result.is_error:
        words = "\n".join(texts).strip()[:MAX_ERROR_CHARACTERS]
        raise CallFailed(ErrorCode.TOOL_FAILED, words or "The tool failed", sent=True, answered=True)
    structured = result.structured_content
    if structured is not None and not any(_says(text, structured) for text in texts):
        texts.append(_encode(structured).decode())
    text = "\n".join(texts)
    if len(text.encode(errors="replace")) > max_bytes:
        raise CallFailed(ErrorCode.TOOL_FAILED, "The tool's answer is too large", sent=True, answered=True)
    return text


def _named(content: Any) -> str:
    media_type = getattr(content, "mime_type", None) or getattr(getattr(content, "resource", None), "mime_type", None)
    return f"[{content.type}{f' {media_type}' if media_type else ''}, not shown]"


def _says(text: str, value: object) -> bool:
    """Tell whether a text is that value as JSON, as servers repeat it for clients that know only text."""
    try:
        return bool(msgspec.json.decode(text) == value)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return False
