"""The routes of tenants and of the audit in `/openapi.json`. Pure."""

from collections.abc import Sequence
from typing import Any, Final

from kitemesh_contracts.errors import ErrorCode
from kitemesh_gateway.dialects.tenants_answers import DeedPage, TenantOut, TenantPage, TenantRemoved
from kitemesh_gateway.dialects.tenants_bodies import TenantIn
from kitemesh_gateway.openapi_bodies import Described, Schema
from kitemesh_gateway.openapi_codes import BODY_CODES, SCOPED_CODES
from kitemesh_gateway.openapi_parts import ID_SCHEMA, PAGE_PARAMETERS, Family, body_of, id_of, lookup, query
from kitemesh_gateway.openapi_refusals import PROBLEMS

_NEEDS: Final = "Needs the scope `operator`."
_TENANT: Final = id_of("The tenant; `_default` for what holds where a tenant's own says nothing.")


def _operation(name: str, summary: str, answer: Described, codes: Sequence[ErrorCode], **more: Any) -> Schema:
    described = lookup(name, summary, answer, (*SCOPED_CODES, *codes), refusal=PROBLEMS)
    return {**described, "description": _NEEDS, **more}


def _put() -> Schema:
    operation = _operation("putTenant", "Say what a tenant may do", TenantOut, (*BODY_CODES, ErrorCode.ROUTE_UNKNOWN))
    stored = operation["responses"].pop("200")
    return {
        **operation,
        "description": f"It takes the place of all that was said of it; known everywhere within 5 s. {_NEEDS}",
        "parameters": _TENANT,
        "requestBody": body_of(TenantIn),
        "responses": {
            "200": {**stored, "description": "It took the place of what was said"},
            "201": {**stored, "description": "Nothing was said before"},
            **operation["responses"],
        },
    }


FAMILY: Final = Family(
    "Tenants",
    "What each tenant may do, and who changed what.",
    {
        "/v1/tenants": {
            "get": _operation(
                "listTenants",
                "List the tenants of which something is said",
                TenantPage,
                (ErrorCode.REQUEST_INVALID,),
                parameters=list(PAGE_PARAMETERS),
            ),
        },
        "/v1/tenants/{id}": {
            "get": _operation(
                "getTenant",
                "Show what a tenant may do",
                TenantOut,
                (ErrorCode.TENANT_UNKNOWN,),
                description="One's own needs the scope `admin`, another one `operator`.",
                parameters=_TENANT,
            ),
            "put": _put(),
            "delete": _operation(
                "removeTenant",
                "Take back what is said of a tenant",
                TenantRemoved,
                (ErrorCode.TENANT_UNKNOWN,),
                description=f"What holds for all then holds for it; its keys and conversations stay. {_NEEDS}",
                parameters=_TENANT,
            ),
        },
        "/v1/audit": {
            "get": _operation(
                "listDeeds",
                "List who did what",
                DeedPage,
                (ErrorCode.REQUEST_INVALID,),
                description="Changes of keys and tenants, and decisions, newest first. Needs the scope `admin`.",
                parameters=[
                    query("subject", "Only what was done to it: a key's, an approval's or a tenant's id.", ID_SCHEMA),
                    query("tenant", "Whose; another than one's own needs the scope `operator`.", ID_SCHEMA),
                    *PAGE_PARAMETERS,
                ],
            ),
        },
    },
)
