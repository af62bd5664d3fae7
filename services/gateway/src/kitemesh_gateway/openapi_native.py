"""The native routes in `/openapi.json`. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args

from kitemesh_contracts.errors import ErrorCode
from kitemesh_contracts.headers import CONVERSATION_ID, EXECUTION_ID
from kitemesh_gateway.dialects.base import JSON
from kitemesh_gateway.dialects.native import PROBLEM_JSON, Problem
from kitemesh_gateway.dialects.native_answers import ApprovalPage, CancelOut, ExecutionOut
from kitemesh_gateway.dialects.native_bodies import DecideIn
from kitemesh_gateway.openapi_parts import AUTH_CODES, NAMED, Refusal, Schema, content, lookup
from kitemesh_runtime.execution_stores import HoldStatus

STRUCTS: Final = (ApprovalPage, ExecutionOut, CancelOut, Problem)
BODIES: Final = (DecideIn,)

_PROBLEMS: Final = Refusal(PROBLEM_JSON, "Problem", {})
_HEADERS: Final[Mapping[str, str]] = {
    **NAMED,
    EXECUTION_ID: "The execution.",
    CONVERSATION_ID: "Its conversation, when one is kept.",
}
_READ: Final = (*AUTH_CODES, ErrorCode.PERMISSION_DENIED)
_BODY: Final = (
    ErrorCode.REQUEST_INVALID,
    ErrorCode.REQUEST_MALFORMED,
    ErrorCode.REQUEST_TIMEOUT,
    ErrorCode.REQUEST_TOO_LARGE,
    ErrorCode.REQUEST_MEDIA_TYPE,
)


def paths() -> Schema:
    """Describe the native routes."""
    approval, execution = _id("The approval."), _id("The execution.")
    return {
        "/v1/approvals": {
            "get": {
                **_operation("listApprovals", "List the approvals", "ApprovalPage", (ErrorCode.REQUEST_INVALID,)),
                "description": (
                    "Newest first, without those of models that the key may not name. A page may be short, or empty, "
                    "and still have a `next_cursor`. Needs the scope `approve`."
                ),
                "parameters": [
                    _query("status", "Only those.", {"enum": list(get_args(HoldStatus))}),
                    _query("cursor", "`next_cursor` of the page before.", {"type": "string"}),
                    _query(
                        "limit", "Most of a page; 20 without it.", {"type": "integer", "minimum": 1, "maximum": 100}
                    ),
                ],
            },
        },
        "/v1/approvals/{id}": {
            "get": {
                **_operation("getApproval", "Show an approval", "ApprovalOut", (ErrorCode.APPROVAL_UNKNOWN,)),
                "description": "With its audit. Needs the scope `approve`, or the one that the approval names.",
                "parameters": approval,
            },
        },
        "/v1/approvals/{id}/decide": {
            "post": {
                **_operation(
                    "decideApproval",
                    "Decide held tool calls",
                    "ApprovalOut",
                    (
                        *_BODY,
                        ErrorCode.APPROVAL_UNKNOWN,
                        ErrorCode.APPROVAL_DECIDED,
                        ErrorCode.TOOL_CHANGED,
                        ErrorCode.APPROVAL_GONE,
                    ),
                ),
                "description": (
                    "Calls that are not named stay undecided, unless `decide` is `batch`. The same decision again "
                    "changes nothing and succeeds. Needs the scope that the approval names."
                ),
                "parameters": approval,
                "requestBody": {"required": True, "content": content(JSON, "DecideIn")},
            },
        },
        "/v1/executions/{id}": {
            "get": {
                **_operation("getExecution", "Show an execution", "ExecutionOut", (ErrorCode.EXECUTION_UNKNOWN,)),
                "description": "A classic one is there once it has ended or is held.",
                "parameters": execution,
            },
        },
        "/v1/executions/{id}/cancel": {
            "post": {
                **_operation(
                    "cancelExecution",
                    "Cancel an execution",
                    "CancelOut",
                    (ErrorCode.EXECUTION_UNKNOWN, ErrorCode.BUS_DOWN),
                ),
                "description": (
                    "Whether it waits, runs or is held. After the answer no call with an effect begins that had not "
                    "begun before. Again is the same; an execution that has ended stays as it is."
                ),
                "parameters": execution,
            },
        },
    }


def _operation(name: str, summary: str, schema: str, codes: Sequence[ErrorCode]) -> Schema:
    headers = NAMED if schema == "ApprovalPage" else _HEADERS
    return lookup(name, summary, schema, (*_READ, *codes), headers=headers, refusal=_PROBLEMS)


def _id(description: str) -> list[Schema]:
    schema = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}
    return [{"name": "id", "in": "path", "required": True, "description": description, "schema": schema}]


def _query(name: str, description: str, schema: dict[str, Any]) -> Schema:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}
