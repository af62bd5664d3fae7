"""The routes of the knowledge base in `/openapi.json`. Pure."""

from collections.abc import Sequence
from typing import Final

from kitemesh_contracts.errors import ErrorCode
from kitemesh_gateway.dialects.knowledge_answers import DocumentOut, DocumentPage, DocumentRemoved
from kitemesh_gateway.dialects.knowledge_bodies import DocumentIn
from kitemesh_gateway.openapi_bodies import Described, Schema
from kitemesh_gateway.openapi_codes import BODY_CODES, SCOPED_CODES
from kitemesh_gateway.openapi_parts import ID_SCHEMA, PAGE_PARAMETERS, Family, body_of, id_of, lookup, query
from kitemesh_gateway.openapi_refusals import PROBLEMS

_DOCUMENT: Final = id_of("The document.")


def _operation(name: str, summary: str, answer: Described, codes: Sequence[ErrorCode] = ()) -> Schema:
    return lookup(name, summary, answer, (*SCOPED_CODES, *codes), refusal=PROBLEMS)


def _add() -> Schema:
    operation = _operation("addDocument", "Store a document", DocumentOut, BODY_CODES)
    stored = operation["responses"].pop("200")
    return {
        **operation,
        "description": "It takes the place of the one of that name in its base. Needs the scope `admin`.",
        "requestBody": body_of(DocumentIn),
        "responses": {
            "200": {**stored, "description": "It took the place of an earlier one"},
            "201": {**stored, "description": "It is new"},
            **operation["responses"],
        },
    }


FAMILY: Final = Family(
    "Knowledge",
    "Documents whose passages models are given.",
    {
        "/v1/knowledge": {
            "get": {
                **_operation("listDocuments", "List the documents", DocumentPage, (ErrorCode.REQUEST_INVALID,)),
                "description": "Needs the scope `admin`.",
                "parameters": [query("base", "Only those of this base.", ID_SCHEMA), *PAGE_PARAMETERS],
            },
            "post": _add(),
        },
        "/v1/knowledge/{id}": {
            "get": {
                **_operation("getDocument", "Show a document", DocumentOut, (ErrorCode.KNOWLEDGE_UNKNOWN,)),
                "description": "With its passages. Needs the scope `admin`.",
                "parameters": _DOCUMENT,
            },
            "delete": {
                **_operation("removeDocument", "Remove a document", DocumentRemoved, (ErrorCode.KNOWLEDGE_UNKNOWN,)),
                "description": "Needs the scope `admin`.",
                "parameters": _DOCUMENT,
            },
        },
    },
)
