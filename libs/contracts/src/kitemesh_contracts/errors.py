"""Every error that crosses a process or reaches a client: its code, family, HTTP status and outcome.

An `ErrorCode` is one stable dotted word, used unchanged in logs, metrics, events and HTTP. Families say what the
catcher should do. Bodies are a dialect's business and live in the gateway.
"""

from enum import StrEnum
from typing import Final, Literal, NamedTuple

from msgspec import Struct

Outcome = Literal["refused", "failed", "cancelled"]
"""`refused`: nothing was run. `failed`: work was begun or lost. `cancelled`: somebody asked for it to stop."""


class ErrorCode(StrEnum):
    """Stable names of everything that can go wrong."""

    REQUEST_INVALID = "request.invalid"
    REQUEST_MALFORMED = "request.malformed"
    REQUEST_UNSUPPORTED = "request.unsupported"
    REQUEST_TIMEOUT = "request.timeout"
    REQUEST_TOO_LARGE = "request.too_large"
    REQUEST_MEDIA_TYPE = "request.media_type"
    REQUEST_METHOD = "request.method"
    CREDENTIAL_INVALID = "credential.invalid"
    PERMISSION_DENIED = "permission.denied"
    MODEL_UNKNOWN = "model.unknown"
    ROUTE_UNKNOWN = "route.unknown"
    CONVERSATION_UNKNOWN = "conversation.unknown"
    CONVERSATION_BUSY = "conversation.busy"
    CONVERSATION_FULL = "conversation.full"
    STALE = "store.stale"
    DUPLICATE = "store.duplicate"
    QUEUE_FULL = "queue.full"
    RATE_LIMITED = "limit.rate"
    CONCURRENCY_LIMITED = "limit.concurrency"
    BUS_DOWN = "bus.down"
    STORE_DOWN = "store.down"
    DRAINING = "service.draining"
    UPSTREAM_FAILED = "upstream.failed"
    UPSTREAM_UNREACHABLE = "upstream.unreachable"
    UPSTREAM_REFUSED = "upstream.refused"
    UPSTREAM_LIMITED = "upstream.limited"
    UPSTREAM_TIMEOUT = "upstream.timeout"
    UPSTREAM_CUT = "upstream.cut"
    UPSTREAM_CONTEXT = "upstream.context"
    TOOL_FAILED = "tool.failed"
    TOOL_UNKNOWN = "tool.unknown"
    TOOL_ARGUMENTS = "tool.arguments"
    TOOL_TIMEOUT = "tool.timeout"
    TOOL_CHANGED = "tool.changed"
    TOOL_DENIED = "tool.denied"
    TOOL_BLOCKED = "tool.blocked"
    TOOL_CANCELLED = "tool.cancelled"
    TOOL_UNCERTAIN = "tool.outcome_unknown"
    APPROVAL_UNKNOWN = "approval.unknown"
    APPROVAL_DECIDED = "approval.decided"
    APPROVAL_GONE = "approval.gone"
    EXECUTION_UNKNOWN = "execution.unknown"
    EXECUTION_CLASSIC = "execution.classic"
    STREAM_GAP = "stream.gap"
    IDEMPOTENCY_MISMATCH = "idempotency.mismatch"
    IDEMPOTENCY_PENDING = "idempotency.pending"
    CONVERSATION_HELD = "conversation.held"
    MESSAGE_EXISTS = "message.exists"
    KNOWLEDGE_UNKNOWN = "knowledge.unknown"
    KEY_UNKNOWN = "key.unknown"
    TENANT_UNKNOWN = "tenant.unknown"
    DEAD_UNKNOWN = "dead.unknown"
    DEAD_REFUSED = "dead.refused"
    TURN_BUDGET = "turn.budget"
    TURN_CANCELLED = "turn.cancelled"
    TURN_TIMEOUT = "turn.timeout"
    TURN_LOST = "turn.lost"
    TURN_EXHAUSTED = "turn.exhausted"
    CONTRACT_VIOLATED = "contract.violated"
    INTERNAL = "internal"


class Meaning(NamedTuple):
    """What a code means to a client and to a counter."""

    status: int
    outcome: Outcome


MEANINGS: Final[dict[ErrorCode, Meaning]] = {
    ErrorCode.REQUEST_INVALID: Meaning(400, "refused"),
    ErrorCode.REQUEST_MALFORMED: Meaning(400, "refused"),
    ErrorCode.REQUEST_UNSUPPORTED: Meaning(400, "refused"),
    ErrorCode.REQUEST_TIMEOUT: Meaning(408, "refused"),
    ErrorCode.REQUEST_TOO_LARGE: Meaning(413, "refused"),
    ErrorCode.REQUEST_MEDIA_TYPE: Meaning(415, "refused"),
    ErrorCode.REQUEST_METHOD: Meaning(405, "refused"),
    ErrorCode.CREDENTIAL_INVALID: Meaning(401, "refused"),
    ErrorCode.PERMISSION_DENIED: Meaning(403, "refused"),
    ErrorCode.MODEL_UNKNOWN: Meaning(404, "refused"),
    ErrorCode.ROUTE_UNKNOWN: Meaning(404, "refused"),
    ErrorCode.CONVERSATION_UNKNOWN: Meaning(404, "refused"),
    ErrorCode.CONVERSATION_BUSY: Meaning(409, "refused"),
    ErrorCode.CONVERSATION_FULL: Meaning(429, "refused"),
    ErrorCode.STALE: Meaning(409, "refused"),
    ErrorCode.DUPLICATE: Meaning(409, "refused"),
    ErrorCode.QUEUE_FULL: Meaning(429, "refused"),
    ErrorCode.RATE_LIMITED: Meaning(429, "refused"),
    ErrorCode.CONCURRENCY_LIMITED: Meaning(429, "refused"),
    ErrorCode.BUS_DOWN: Meaning(503, "refused"),
    ErrorCode.STORE_DOWN: Meaning(503, "refused"),
    ErrorCode.DRAINING: Meaning(503, "refused"),
    ErrorCode.UPSTREAM_FAILED: Meaning(502, "failed"),
    ErrorCode.UPSTREAM_UNREACHABLE: Meaning(502, "failed"),
    ErrorCode.UPSTREAM_REFUSED: Meaning(502, "failed"),
    ErrorCode.UPSTREAM_LIMITED: Meaning(429, "failed"),
    ErrorCode.UPSTREAM_TIMEOUT: Meaning(504, "failed"),
    ErrorCode.UPSTREAM_CUT: Meaning(502, "failed"),
    ErrorCode.UPSTREAM_CONTEXT: Meaning(400, "failed"),
    ErrorCode.TOOL_FAILED: Meaning(502, "failed"),
    ErrorCode.TOOL_UNKNOWN: Meaning(502, "failed"),
    ErrorCode.TOOL_ARGUMENTS: Meaning(502, "failed"),
    ErrorCode.TOOL_TIMEOUT: Meaning(504, "failed"),
    ErrorCode.TOOL_CHANGED: Meaning(409, "refused"),
    ErrorCode.TOOL_DENIED: Meaning(403, "failed"),
    ErrorCode.TOOL_BLOCKED: Meaning(502, "failed"),
    ErrorCode.TOOL_CANCELLED: Meaning(409, "cancelled"),
    ErrorCode.TOOL_UNCERTAIN: Meaning(502, "failed"),
    ErrorCode.APPROVAL_UNKNOWN: Meaning(404, "refused"),
    ErrorCode.APPROVAL_DECIDED: Meaning(409, "refused"),
    ErrorCode.APPROVAL_GONE: Meaning(410, "refused"),
    ErrorCode.EXECUTION_UNKNOWN: Meaning(404, "refused"),
    ErrorCode.EXECUTION_CLASSIC: Meaning(410, "refused"),
    ErrorCode.STREAM_GAP: Meaning(410, "refused"),
    ErrorCode.IDEMPOTENCY_MISMATCH: Meaning(422, "refused"),
    ErrorCode.IDEMPOTENCY_PENDING: Meaning(409, "refused"),
    ErrorCode.CONVERSATION_HELD: Meaning(409, "refused"),
    ErrorCode.MESSAGE_EXISTS: Meaning(409, "refused"),
    ErrorCode.KNOWLEDGE_UNKNOWN: Meaning(404, "refused"),
    ErrorCode.KEY_UNKNOWN: Meaning(404, "refused"),
    ErrorCode.TENANT_UNKNOWN: Meaning(404, "refused"),
    ErrorCode.DEAD_UNKNOWN: Meaning(404, "refused"),
    ErrorCode.DEAD_REFUSED: Meaning(409, "refused"),
    ErrorCode.TURN_BUDGET: Meaning(502, "failed"),
    ErrorCode.TURN_CANCELLED: Meaning(409, "cancelled"),
    ErrorCode.TURN_TIMEOUT: Meaning(504, "failed"),
    ErrorCode.TURN_LOST: Meaning(502, "failed"),
    ErrorCode.TURN_EXHAUSTED: Meaning(502, "failed"),
    ErrorCode.CONTRACT_VIOLATED: Meaning(500, "failed"),
    ErrorCode.INTERNAL: Meaning(500, "failed"),
}


class ErrorInfo(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error as it travels on the wire and is stored.

    Attributes:
        message: For the client: no internal text, no upstream's words.
        retry_after_s: Seconds after which a retry may succeed; `None` promises nothing.
        approval: The hold in the way (`conversation.held`), or decided already.
        expires_at_ms: When that hold ends by itself, epoch milliseconds of the store's clock.

    """

    code: ErrorCode
    message: str
    retry_after_s: float | None = None
    approval: str | None = None
    expires_at_ms: int | None = None


class KitemeshError(Exception):
    """Root of every error raised on purpose.

    Attributes:
        code: Its stable name.
        message: For the client.
        retry_after_s: Seconds after which a retry may succeed; `None` promises nothing.

    """

    def __init__(self, code: ErrorCode, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s

    @property
    def status(self) -> int:
        """HTTP status of the code."""
        return MEANINGS[self.code].status

    def info(self) -> ErrorInfo:
        """Return the error as a wire value."""
        return ErrorInfo(code=self.code, message=self.message, retry_after_s=self.retry_after_s)


class BadRequest(KitemeshError):
    """The caller must change the request."""


class NotFound(KitemeshError):
    """No such thing, or not the caller's: deliberately the same."""


class Conflict(KitemeshError):
    """The world moved on: reload, then decide again."""


class Busy(KitemeshError):
    """A bound is reached: retry later, unchanged."""


class Unavailable(KitemeshError):
    """A dependency is down: wait for it, then retry."""


class ProviderFailed(KitemeshError):
    """A model's provider refused, broke or went silent."""


class ToolFailed(KitemeshError):
    """A tool refused, broke or went silent."""


class ContractViolation(KitemeshError):
    """A message that no version of the contract allows: dead-letter it."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.CONTRACT_VIOLATED, message)


class Bug(KitemeshError):
    """Something the code rules out has happened."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.INTERNAL, message)
