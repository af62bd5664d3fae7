"""The routes of conversations in `/openapi.json`. Pure."""

from collections.abc import Sequence
from typing import Final

from kitemesh_contracts.errors import ErrorCode
from kitemesh_gateway.dialects.conversations_answers import (
    ConversationDeleted,
    ConversationOut,
    ConversationPage,
    MessagePage,
)
from kitemesh_gateway.dialects.conversations_bodies import QUERY_MAX_CHARS, WORDS_MAX, ConversationPatch
from kitemesh_gateway.openapi_bodies import Described, Schema
from kitemesh_gateway.openapi_codes import BODY_CODES, SCOPED_CODES
from kitemesh_gateway.openapi_parts import LIMIT, PAGE_PARAMETERS, Family, body_of, id_of, lookup, query
from kitemesh_gateway.openapi_refusals import PROBLEMS

_CONVERSATION: Final = id_of("The conversation.")
_WORDS: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": QUERY_MAX_CHARS}


def _operation(
    name: str, summary: str, answer: Described, codes: Sequence[ErrorCode] = (ErrorCode.CONVERSATION_UNKNOWN,)
) -> Schema:
    return lookup(name, summary, answer, (*SCOPED_CODES, *codes), refusal=PROBLEMS)


FAMILY: Final = Family(
    "Conversations",
    "What was said, kept.",
    {
        "/v1/conversations": {
            "get": {
                **_operation(
                    "listConversations", "List the conversations", ConversationPage, (ErrorCode.REQUEST_INVALID,)
                ),
                "description": (
                    "Those begun last first, without those of models that the key may not name. A page may be short, "
                    "or empty, and still have a `next_cursor`."
                ),
                "parameters": [
                    query(
                        "q",
                        f"Only those whose title, or one question, has all these words; at most {WORDS_MAX}.",
                        _WORDS,
                    ),
                    *PAGE_PARAMETERS,
                ],
            },
        },
        "/v1/conversations/{id}": {
            "get": {
                **_operation("getConversation", "Show a conversation", ConversationOut),
                "parameters": _CONVERSATION,
            },
            "patch": {
                **_operation(
                    "changeConversation",
                    "Give a conversation a title or metadata",
                    ConversationOut,
                    (*BODY_CODES, ErrorCode.CONVERSATION_UNKNOWN),
                ),
                "parameters": _CONVERSATION,
                "requestBody": body_of(ConversationPatch),
            },
            "delete": {
                **_operation(
                    "deleteConversation",
                    "Delete a conversation",
                    ConversationDeleted,
                    (ErrorCode.CONVERSATION_UNKNOWN, ErrorCode.BUS_DOWN),
                ),
                "description": (
                    "What runs or is held in it is cancelled first; its messages, executions, approvals and files go, "
                    "and nothing of them comes back."
                ),
                "parameters": _CONVERSATION,
            },
        },
        "/v1/conversations/{id}/messages": {
            "get": {
                **_operation(
                    "listMessages",
                    "Show what was said",
                    MessagePage,
                    (ErrorCode.REQUEST_INVALID, ErrorCode.CONVERSATION_UNKNOWN),
                ),
                "description": "The latest messages, in their order; `next_cursor` leads to those before them.",
                "parameters": [
                    *_CONVERSATION,
                    query(
                        "cursor",
                        "`next_cursor` of the page before.",
                        {"type": "string", "pattern": "^[0-9]{1,9}-[0-9]{1,6}$"},
                    ),
                    LIMIT,
                ],
            },
        },
    },
)
