"""The routes that describe the API, in the description. Pure."""

from typing import Final

from kitemesh_contracts.errors import ErrorCode
from kitemesh_contracts.headers import LOCATION
from kitemesh_gateway.dialects.base import JSON
from kitemesh_gateway.openapi_bodies import NAMED, Schema, headers_of
from kitemesh_gateway.openapi_parts import Family
from kitemesh_gateway.openapi_refusals import refusals

_REFUSALS: Final = refusals((ErrorCode.DRAINING,))


def _page(name: str, summary: str, media: str, kind: str) -> Schema:
    answer = {
        "description": "The page",
        "headers": headers_of(NAMED),
        "content": {media: {"schema": {"type": kind}}},
    }
    return {"summary": summary, "operationId": name, "security": [], "responses": {"200": answer, **_REFUSALS}}


FAMILY: Final = Family(
    "Reference",
    "This description. It needs no credential.",
    {
        "/": {
            "get": {
                "summary": "Lead to the description",
                "operationId": "getEntrance",
                "security": [],
                "responses": {
                    "302": {"description": "To `/docs`", "headers": headers_of({**NAMED, LOCATION: "`/docs`"})},
                    **_REFUSALS,
                },
            },
        },
        "/docs": {"get": _page("getDocs", "Describe the API for people", "text/html", "string")},
        "/openapi.json": {"get": _page("getOpenapi", "Describe the API for programs", JSON, "object")},
    },
)
