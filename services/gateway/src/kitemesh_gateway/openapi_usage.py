"""The route of usage in `/openapi.json`. Pure."""

from typing import Final

from kitemesh_contracts.errors import ErrorCode
from kitemesh_gateway.dialects.usage_answers import UsagePage
from kitemesh_gateway.openapi_codes import SCOPED_CODES
from kitemesh_gateway.openapi_parts import ID_SCHEMA, LIMIT, Family, lookup, query
from kitemesh_gateway.openapi_refusals import PROBLEMS
from kitemesh_gateway.usage_query import BYS, CURSOR_PATTERN, DAY_PATTERN, DAYS, DAYS_MAX

_DAY: Final = {"type": "string", "format": "date", "pattern": DAY_PATTERN}

FAMILY: Final = Family(
    "Usage",
    "What turns cost.",
    {
        "/v1/usage": {
            "get": {
                **lookup(
                    "readUsage",
                    "Show what turns cost",
                    UsagePage,
                    (*SCOPED_CODES, ErrorCode.REQUEST_INVALID),
                    refusal=PROBLEMS,
                ),
                "description": (
                    "Turns and tokens of one tenant, by day, model or key. A turn counts on the day on which it ended, "
                    "half a minute later, and goes on counting when it is deleted. Needs the scope `admin`; another "
                    "tenant's, and `by=tenant`, need the scope `operator`."
                ),
                "parameters": [
                    query("from", f"The first day, in UTC; {DAYS} days up to `to` without it.", _DAY),
                    query("to", f"The last day, today without it; at most {DAYS_MAX} days are told at once.", _DAY),
                    query("by", "What a row is of; `day` without it.", {"enum": list(BYS)}),
                    query("tenant", "Whose; the key's own without it.", ID_SCHEMA),
                    query("cursor", "`next_cursor` of the page before.", {"type": "string", "pattern": CURSOR_PATTERN}),
                    LIMIT,
                ],
            },
        },
    },
)
