"""The routes of approvals in `/openapi.json`. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final, get_args

from kitemesh_contracts.errors import ErrorCode
from kitemesh_contracts.headers import CONVERSATION_ID, EXECUTION_ID
from kitemesh_gateway.dialects.native_answers import ApprovalOut, ApprovalPage
from kitemesh_gateway.dialects.native_bodies import DecideIn
from kitemesh_gateway.openapi_bodies import NAMED, Described, Schema
from kitemesh_gateway.openapi_codes import BODY_CODES, SCOPED_CODES
from kitemesh_gateway.openapi_parts import PAGE_PARAMETERS, Family, body_of, id_of, lookup, query
from kitemesh_gateway.openapi_refusals import PROBLEMS
from kitemesh_runtime.holds import HoldStatus

_HEADERS: Final[Mapping[str, str]] = {
    **NAMED,
    EXECUTION_ID: "The execution.",
    CONVERSATION_ID: "Its conversation, when one is kept.",
}


def _paths() -> Schema:
    """Describe the routes."""
    approval = id_of("The approval.")
    return {
        "/v1/approvals": {
            "get": {
                **_operation("listApprovals", "List the approvals", ApprovalPage, (ErrorCode.REQUEST_INVALID,)),
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
                **_operation("getApproval", "Show an approval", ApprovalOut, (ErrorCode.APPROVAL_UNKNOWN,)),
                "description": "With its audit. Needs the scope `approve`, or the one that the approval names.",
                "parameters": approval,
            },
        },
        "/v1/approvals/{id}/decide": {
            "post": {
                **_operation(
                    "decideApproval",
                    "Decide held tool calls",
                    ApprovalOut,
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
                "requestBody": body_of(DecideIn),
            },
        },
    }


def _operation(name: str, summary: str, answer: Described, codes: Sequence[ErrorCode]) -> Schema:
    headers = NAMED if answer is ApprovalPage else _HEADERS
    return lookup(name, summary, answer, (*SCOPED_CODES, *codes), headers=headers, refusal=PROBLEMS)


FAMILY: Final = Family(
    "Approvals",
    "Tool calls that wait for a person.",
    _paths(),
)
