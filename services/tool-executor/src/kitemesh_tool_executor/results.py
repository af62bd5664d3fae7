"""What becomes of a tool's text: a result that travels, a blob when it is long, an error when it is too long.

A result is never cut. It knows no tool and no ledger.
"""

import asyncio
from typing import Final

import structlog

from kitemesh_contracts.content import CallResult
from kitemesh_contracts.errors import ErrorCode, ErrorInfo, Unavailable
from kitemesh_runtime.blobs import Blobs

INLINE_MAX_BYTES: Final = 64 * 1024
"""Longer texts are stored and travel by name."""
EMERGENCY_MAX_BYTES: Final = 256 * 1024
"""Texts up to this travel by themselves while the store is down."""

BACKOFF_S: Final = 0.1
BACKOFF_MAX_S: Final = 2.0

log: Final = structlog.get_logger()


def refused(call: str, code: ErrorCode, message: str) -> CallResult:
    """Return a result that is an error."""
    return CallResult(call=call, error=ErrorInfo(code=code, message=message))


class Results:
    """Makes results of texts.

    Args:
        blobs: Where long ones go.

    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs: Final = blobs

    async def make(self, tenant: str, call: str, text: str, *, max_bytes: int, patient: bool) -> CallResult:
        """Return the result that a text makes.

        Args:
            tenant: Whose it is.
            call: The tool execution id.
            text: What the tool answered.
            max_bytes: Of the text; one that is longer is an error.
            patient: Wait for a store that is down, as long as it takes.

        """
        try:
            data = text.encode()
        except UnicodeEncodeError:
            return refused(call, ErrorCode.TOOL_FAILED, "The result is not text")
        if len(data) > max_bytes:
            return refused(call, ErrorCode.TOOL_FAILED, f"The result is larger than {max_bytes} bytes")
        if len(data) <= INLINE_MAX_BYTES:
            return CallResult(call=call, text=text)
        pause_s = BACKOFF_S
        while True:
            try:
                return CallResult(call=call, blob=await self._blobs.put(tenant, data, keep_s=None))
            except Unavailable:
                if not patient:
                    break
            log.warning("result.unstored", call=call, after_s=pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, BACKOFF_MAX_S)
        if len(data) <= EMERGENCY_MAX_BYTES:
            return CallResult(call=call, text=text)
        return refused(call, ErrorCode.TOOL_FAILED, "The result is too large to travel while the store is down")
