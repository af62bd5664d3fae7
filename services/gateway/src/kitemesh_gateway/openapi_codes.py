"""What each kind of operation may be refused with, as `/openapi.json` says it. Pure."""

from typing import Final

from kitemesh_contracts.errors import ErrorCode
from kitemesh_gateway.advice import ADVICE

AUTH_CODES: Final = (
    ErrorCode.CREDENTIAL_INVALID,
    ErrorCode.RATE_LIMITED,
    ErrorCode.STORE_DOWN,
    ErrorCode.DRAINING,
)
"""Of any operation that looks a key up: an address that guesses is told to wait."""

SCOPED_CODES: Final = (*AUTH_CODES, ErrorCode.PERMISSION_DENIED)
BODY_CODES: Final = (
    ErrorCode.REQUEST_INVALID,
    ErrorCode.REQUEST_MALFORMED,
    ErrorCode.REQUEST_TIMEOUT,
    ErrorCode.REQUEST_TOO_LARGE,
    ErrorCode.REQUEST_MEDIA_TYPE,
)

_NEVER_OF_A_TURN: Final = frozenset(
    {
        ErrorCode.ROUTE_UNKNOWN,
        ErrorCode.REQUEST_METHOD,
        ErrorCode.APPROVAL_UNKNOWN,
        ErrorCode.APPROVAL_DECIDED,
        ErrorCode.APPROVAL_GONE,
        ErrorCode.KNOWLEDGE_UNKNOWN,
        ErrorCode.KEY_UNKNOWN,
        ErrorCode.TENANT_UNKNOWN,
        ErrorCode.DEAD_UNKNOWN,
        ErrorCode.DEAD_REFUSED,
        ErrorCode.MESSAGE_EXISTS,
        ErrorCode.TOOL_ARGUMENTS,
        ErrorCode.TOOL_TIMEOUT,
        ErrorCode.TOOL_CHANGED,
        ErrorCode.TOOL_DENIED,
        ErrorCode.TOOL_BLOCKED,
        ErrorCode.TOOL_CANCELLED,
        ErrorCode.TOOL_UNCERTAIN,
    },
)
TURN_CODES: Final = tuple(code for code in ADVICE if code not in _NEVER_OF_A_TURN)
"""Of an operation that answers with what a turn says."""
MESSAGE_CODES: Final = (*TURN_CODES, ErrorCode.MESSAGE_EXISTS)
"""Of one whose clients choose the ids of their messages."""
