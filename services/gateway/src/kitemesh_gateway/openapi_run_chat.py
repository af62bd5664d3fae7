"""The run API's chat in `/openapi.json`: the UI message stream of the AI SDK. Pure."""

from typing import Final, get_args

from kitemesh_contracts.errors import ErrorCode
from kitemesh_gateway.dialects.base import JSON
from kitemesh_gateway.dialects.run_chat_answers import ChatAnswer
from kitemesh_gateway.dialects.run_chat_events import Event
from kitemesh_gateway.dialects.run_chat_models import RunChatRequest
from kitemesh_gateway.openapi_bodies import DONE, NAMED, Schema, content, events, headers_of
from kitemesh_gateway.openapi_codes import MESSAGE_CODES, SCOPED_CODES
from kitemesh_gateway.openapi_parts import TURN_HEADERS, Family, header, id_of, last_event_parameter, query, run
from kitemesh_gateway.openapi_refusals import RUN_PROBLEMS, refusals
from kitemesh_gateway.ui_chat import EMIT_OPERATIONS
from kitemesh_gateway.ui_streams import AFTER, AFTER_DIGITS

_APPROVALS: Final = (ErrorCode.APPROVAL_UNKNOWN, ErrorCode.APPROVAL_DECIDED, ErrorCode.APPROVAL_GONE)

_EVENTS: Final = events(*get_args(Event), last=DONE)
_FOLLOW: Final = (
    *SCOPED_CODES,
    ErrorCode.REQUEST_INVALID,
    ErrorCode.CONVERSATION_UNKNOWN,
    ErrorCode.EXECUTION_UNKNOWN,
    ErrorCode.EXECUTION_CLASSIC,
    ErrorCode.STREAM_GAP,
    ErrorCode.QUEUE_FULL,
    ErrorCode.BUS_DOWN,
)
_CONVERSATION: Final = id_of("The conversation.")
_OPERATIONS: Final = header(
    EMIT_OPERATIONS,
    "`true`: the stream has events of the type `data-operation`, which tell what the server does.",
    {"type": "string", "enum": ["true", "false"]},
)


def _stream(name: str, summary: str, description: str, *parameters: Schema) -> Schema:
    return {
        "summary": summary,
        "description": description,
        "operationId": name,
        "parameters": [*_CONVERSATION, *parameters, _OPERATIONS, _LAST_EVENT],
        "responses": {
            "200": {"description": "The events", "headers": headers_of(TURN_HEADERS), "content": _EVENTS},
            "204": {"description": "Nothing runs that could be followed", "headers": headers_of(NAMED)},
            **refusals(_FOLLOW, RUN_PROBLEMS),
        },
    }


_LAST_EVENT: Final = last_event_parameter("The id of the last event that was received: what follows is behind it.")

FAMILY: Final = Family(
    "Run API: chat",
    "The UI message stream of the AI SDK, for its chat transport.",
    {
        "/run/api/chat": {
            "post": run(
                "createRunChat",
                "Send a message, or answer held calls",
                "The key's default agent answers. Only the last message of the user is new, the rest of the "
                "conversation is the server's. Unless `stream` is `false` the answer is server-sent events of the UI "
                "message stream, and `[DONE]` is the last one. Tool parts in the state `approval-responded` decide the "
                "calls that the conversation waits for, and the answer goes on under the message id that it had. A "
                "message whose id was used before is refused and changes nothing.",
                RunChatRequest,
                answers={**content(JSON, ChatAnswer), **_EVENTS},
                codes=(*MESSAGE_CODES, *_APPROVALS),
                refusal=RUN_PROBLEMS,
                parameters=(_OPERATIONS,),
            ),
        },
        "/run/api/chat/{id}/stream": {
            "get": _stream(
                "resumeRunChat",
                "Come back to a chat",
                "What the conversation's running turn says, from its beginning, if that turn is durable.",
            ),
        },
        "/run/v1/conversations/{id}/stream": {
            "get": _stream(
                "followConversation",
                "Come back to a conversation",
                "The same, from behind an event.",
                query(
                    AFTER,
                    "The index, from 0, of the last event that was received.",
                    {"type": "integer", "minimum": -1, "maximum": 10**AFTER_DIGITS - 1},
                ),
            ),
        },
    },
)
