"""The routes of API keys in `/openapi.json`. Pure."""

from collections.abc import Sequence
from typing import Any, Final

from kitemesh_contracts.errors import ErrorCode
from kitemesh_gateway.dialects.keys_answers import KeyMade, KeyOut, KeyPage, KeyRotated
from kitemesh_gateway.dialects.keys_bodies import KeyIn, KeyPatch, KeyRotation
from kitemesh_gateway.openapi_bodies import Described, Schema
from kitemesh_gateway.openapi_codes import BODY_CODES, SCOPED_CODES
from kitemesh_gateway.openapi_parts import ID_SCHEMA, PAGE_PARAMETERS, Family, body_of, id_of, lookup, query
from kitemesh_gateway.openapi_refusals import PROBLEMS

_NEEDS: Final = "Needs the scope `admin`."
_TENANT: Final = query("tenant", "Whose; another than one's own needs the scope `operator`.", ID_SCHEMA)
_KEY: Final = [*id_of("The key's id, not its text."), _TENANT]
_SEEN: Final = (ErrorCode.REQUEST_INVALID, ErrorCode.KEY_UNKNOWN)


def _operation(name: str, summary: str, answer: Described, codes: Sequence[ErrorCode], **more: Any) -> Schema:
    described = lookup(name, summary, answer, (*SCOPED_CODES, *codes), refusal=PROBLEMS)
    return {**described, "description": _NEEDS, **more}


def _making(name: str, summary: str, answer: Described, codes: Sequence[ErrorCode], **more: Any) -> Schema:
    operation = _operation(name, summary, answer, codes, **more)
    made = operation["responses"].pop("200")
    told = {**made, "description": "The key; its text is told here and nowhere else"}
    return {**operation, "responses": {"201": told, **operation["responses"]}}


FAMILY: Final = Family(
    "Keys",
    "API keys: who may do what, how often, and until when.",
    {
        "/v1/keys": {
            "get": _operation(
                "listKeys",
                "List the keys",
                KeyPage,
                (ErrorCode.REQUEST_INVALID,),
                parameters=[_TENANT, *PAGE_PARAMETERS],
            ),
            "post": _making(
                "createKey",
                "Make a key",
                KeyMade,
                BODY_CODES,
                description=f"It can be given only scopes, models and agents that the asking key has. {_NEEDS}",
                parameters=[_TENANT],
                requestBody=body_of(KeyIn),
            ),
        },
        "/v1/keys/{id}": {
            "get": _operation("getKey", "Show a key", KeyOut, _SEEN, parameters=_KEY),
            "patch": _operation(
                "changeKey",
                "Change a key",
                KeyOut,
                (*BODY_CODES, ErrorCode.KEY_UNKNOWN),
                description=f"Every server goes by it within 5 s. It never gets another scope. {_NEEDS}",
                parameters=_KEY,
                requestBody=body_of(KeyPatch),
            ),
            "delete": _operation(
                "revokeKey",
                "Revoke a key for good",
                KeyOut,
                _SEEN,
                description=f"It is refused everywhere within 5 s. {_NEEDS}",
                parameters=_KEY,
            ),
        },
        "/v1/keys/{id}/rotate": {
            "post": _making(
                "rotateKey",
                "Put a new key in the place of one",
                KeyRotated,
                (*BODY_CODES, ErrorCode.KEY_UNKNOWN),
                description=(
                    "The new key may do all that the old one may, which goes on serving for `grace_s` and then runs "
                    f"out. {_NEEDS}"
                ),
                parameters=_KEY,
                requestBody={**body_of(KeyRotation), "required": False},
            ),
        },
    },
)
