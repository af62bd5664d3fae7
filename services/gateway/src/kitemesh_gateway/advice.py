"""What a client does about each error that it may be told. Pure."""

from collections.abc import Mapping
from typing import Final

from kitemesh_contracts.errors import ErrorCode

_RETRY: Final = "Send it again after `Retry-After`."

ADVICE: Final[Mapping[ErrorCode, str]] = {
    ErrorCode.REQUEST_INVALID: "Mend the fields that the message names; `param` is the first of them.",
    ErrorCode.REQUEST_MALFORMED: "Send valid HTTP and valid JSON; the message says what could not be read.",
    ErrorCode.REQUEST_UNSUPPORTED: "Leave out what the message names; this version does not do it.",
    ErrorCode.REQUEST_TIMEOUT: "Send the whole body at once.",
    ErrorCode.REQUEST_TOO_LARGE: "Send less; a stored conversation needs only its new messages.",
    ErrorCode.REQUEST_MEDIA_TYPE: "Send `Content-Type: application/json`, not compressed.",
    ErrorCode.REQUEST_METHOD: "Use a method that `Allow` names.",
    ErrorCode.CREDENTIAL_INVALID: "Send `Authorization: Bearer km_…` with a key that is neither revoked nor expired.",
    ErrorCode.PERMISSION_DENIED: "Use a key that has the scope which the message names.",
    ErrorCode.MODEL_UNKNOWN: "Name an id from `GET /v1/models`.",
    ErrorCode.ROUTE_UNKNOWN: "Mind the path: it is one of those on this page.",
    ErrorCode.CONVERSATION_UNKNOWN: "Leave out `metadata.conversation_id` to begin a new conversation.",
    ErrorCode.CONVERSATION_BUSY: "Wait until the conversation's running turn has ended, then send it again.",
    ErrorCode.CONVERSATION_FULL: (
        "Too many messages wait for this one conversation (`param` names it): send them one after the other."
    ),
    ErrorCode.QUEUE_FULL: _RETRY + " The whole cluster has too much to do.",
    ErrorCode.RATE_LIMITED: _RETRY + " The key, or its tenant, asks for more than it may in a minute.",
    ErrorCode.CONCURRENCY_LIMITED: _RETRY + " The key, or its tenant, has as many turns at once as it may.",
    ErrorCode.BUS_DOWN: _RETRY,
    ErrorCode.STORE_DOWN: _RETRY,
    ErrorCode.DRAINING: _RETRY + " Another server takes it meanwhile.",
    ErrorCode.UPSTREAM_FAILED: "Try again later, or another model: the model's provider failed.",
    ErrorCode.UPSTREAM_UNREACHABLE: "Try again; then tell the operator: the model's provider cannot be reached.",
    ErrorCode.UPSTREAM_REFUSED: "Tell the operator: the model's provider does not take what it was sent.",
    ErrorCode.UPSTREAM_LIMITED: _RETRY + " The model's provider is over its limit.",
    ErrorCode.UPSTREAM_TIMEOUT: "Try again later, or another model: the model's provider did not answer in time.",
    ErrorCode.UPSTREAM_CUT: "Try again: the model's provider broke off.",
    ErrorCode.UPSTREAM_CONTEXT: "Send less, or name a model that takes more: the prompt is too long for this one.",
    ErrorCode.TOOL_FAILED: "Try again: a tool of the agent failed.",
    ErrorCode.TOOL_UNKNOWN: "Try again: the model called a tool that it was not given.",
    ErrorCode.TOOL_ARGUMENTS: "Nothing: the model is told what was wrong with its call.",
    ErrorCode.TOOL_TIMEOUT: "Nothing: the model is told. A call whose effect is not `safe` may have had it.",
    ErrorCode.TOOL_CHANGED: "Ask again: the tool's definition is another one than when the call was held.",
    ErrorCode.TOOL_DENIED: "Nothing: a person or a rule denied the call, and the model is told why.",
    ErrorCode.TOOL_BLOCKED: "Tell the operator: the tool's address is not one that may be connected to.",
    ErrorCode.TOOL_CANCELLED: "Nothing: the call was stopped before it began.",
    ErrorCode.TOOL_UNCERTAIN: "Look whether the call had its effect: nobody here can tell, and it is not repeated.",
    ErrorCode.APPROVAL_UNKNOWN: "Name an id from `GET /v1/approvals`.",
    ErrorCode.APPROVAL_DECIDED: "Nothing: the message says who decided what.",
    ErrorCode.APPROVAL_GONE: "Ask again in a new message: the approval ran out or was cancelled.",
    ErrorCode.EXECUTION_UNKNOWN: "Mind the id: it is in the header `x-execution-id` of the answer.",
    ErrorCode.EXECUTION_CLASSIC: "Send the request again: only the stream of a durable turn can be gone on with.",
    ErrorCode.STREAM_GAP: "Read the answer at `GET /v1/executions/{id}`: its stream cannot be gone on with from there.",
    ErrorCode.IDEMPOTENCY_MISMATCH: "Use a new `Idempotency-Key`: this one stands for another request.",
    ErrorCode.IDEMPOTENCY_PENDING: _RETRY + " The first request with this `Idempotency-Key` is being accepted.",
    ErrorCode.CONVERSATION_HELD: "Decide the approval that the answer names, or wait until it expires.",
    ErrorCode.MESSAGE_EXISTS: "Give the message an id of its own: this one stands for an earlier message.",
    ErrorCode.KNOWLEDGE_UNKNOWN: "Name an id from `GET /v1/knowledge`.",
    ErrorCode.KEY_UNKNOWN: "Name an id from `GET /v1/keys`.",
    ErrorCode.TENANT_UNKNOWN: "Name a tenant from `GET /v1/tenants`.",
    ErrorCode.DEAD_UNKNOWN: "Name an id from `GET /v1/dead`.",
    ErrorCode.DEAD_REFUSED: "Nothing, or drop it: the message says why its turn cannot go on.",
    ErrorCode.TURN_BUDGET: "Ask for less: the turn used up the calls or tokens that its agent may use.",
    ErrorCode.TURN_CANCELLED: "Nothing: somebody stopped the turn.",
    ErrorCode.TURN_TIMEOUT: "Ask for less, or a faster model: the turn took longer than it may.",
    ErrorCode.TURN_LOST: "Try again: the turn's answer cannot be completed.",
    ErrorCode.TURN_EXHAUSTED: "Try again later: what ran the turn failed repeatedly.",
    ErrorCode.CONTRACT_VIOLATED: "Tell the operator the `request_id`.",
    ErrorCode.INTERNAL: "Tell the operator the `request_id`.",
}
"""A code that is missing stays inside the cluster."""
