"""The routes of approvals in `/openapi.json`. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final, get_args

from kitemesh_contracts.errors import ErrorCode
from kitemesh_contracts.headers import CONVERSATION_ID, EXECUTION_ID
from kitemesh_gateway.dialects.base import JSON
from kitemesh_gateway.dialects.native import Problem
from kitemesh_gateway.dialects.native_answers import ApprovalPage
from kitemesh_gateway.dialects.native_bodies import DecideIn
from kitemesh_gateway.openapi_parts import (
    AUTH_CODES,
    BODY_CODES,
    NAMED,
    PAGE_PARAMETERS,
    PROBLEMS,
    Schema,
    content,
    id_of,
    lookup,
    query,
)
from kitemesh_runtime.execution_stores import HoldStatus

STRUCTS: Final = (ApprovalPage, Problem)
BODIES: Final = (DecideIn,)

_HEADERS: Final[Mapping[str, str]] = {
    **NAMED,
    EXECUTION_ID: "The execution.",
    CONVERSATION_ID: "Its conversation, when one is kept.",
}
_READ: Final = (*AUTH_CODES, ErrorCode.PERMISSION_DENIED)


def paths() -> Schema:
    """Describe the routes."""
    approval = id_of("The approval.")
    return {
        "/v1/approvals": {
            "get": {
                **_operation("listApprovals", "List the approvals", "ApprovalPage", (ErrorCode.REQUEST_INVALID,)),
                "description": (
                    "Newest first, without those of models that the key may not name. A page may be short, or empty, "
                    "and still have a `next_cursor`. Needs the scope `approve`."
                ),
                "parameters": [
                    query("status", "Only those.", {"enum": list(get_args(HoldStatus))}),
                    *PAGE_PARAMETERS,
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
                        *BODY_CODES,
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
    }


def _operation(name: str, summary: str, schema: str, codes: Sequence[ErrorCode]) -> Schema:
    headers = NAMED if schema == "ApprovalPage" else _HEADERS
    return lookup(name, summary, schema, (*_READ, *codes), headers=headers, refusal=PROBLEMS)
