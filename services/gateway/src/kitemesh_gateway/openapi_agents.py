"""The routes of agents and their histories in `/openapi.json`. Pure."""

from collections.abc import Sequence
from typing import Final, get_args

from kitemesh_contracts.errors import ErrorCode
from kitemesh_gateway.dialects.agents_answers import AnswerOut, ClearedOut, Event, HistoryOut
from kitemesh_gateway.dialects.agents_bodies import LIMIT, LIMIT_MAX, AgentRequest
from kitemesh_gateway.dialects.agents_errors import ErrorEnvelope, status_of
from kitemesh_gateway.dialects.base import JSON
from kitemesh_gateway.openapi_bodies import Described, Schema, content, events
from kitemesh_gateway.openapi_codes import SCOPED_CODES, TURN_CODES
from kitemesh_gateway.openapi_parts import ID_SCHEMA, Family, id_of, lookup, query, run
from kitemesh_gateway.openapi_refusals import Refusal
from kitemesh_runtime.rows import ROW_MAX

_REFUSAL: Final = Refusal(JSON, ErrorEnvelope, {code: str(status_of(code)) for code in ErrorCode}, status=status_of)
_AGENT: Final = id_of("The agent.")
_ROW: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": ROW_MAX}
_CONVERSATION: Final = query("conversation_id", "Only what belongs to this conversation.", ID_SCHEMA)


def _operation(name: str, summary: str, answer: Described, parameters: Sequence[Schema]) -> Schema:
    codes = (*SCOPED_CODES, ErrorCode.REQUEST_INVALID, ErrorCode.MODEL_UNKNOWN)
    return {**lookup(name, summary, answer, codes, refusal=_REFUSAL), "parameters": [*_AGENT, *parameters]}


FAMILY: Final = Family(
    "Agents",
    "Messages to one agent, and its history in numbered rows.",
    {
        "/api/agents/{id}/chat": {
            "get": {
                **_operation(
                    "getAgentHistory",
                    "Show an agent's history",
                    HistoryOut,
                    (
                        query(
                            "limit",
                            f"Most of a page; {LIMIT} without it.",
                            {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX},
                        ),
                        _CONVERSATION,
                        query("before", "Only rows below this id.", _ROW),
                        query("after", "Only rows above this id, the oldest of them.", _ROW),
                    ),
                ),
                "description": "The newest rows, or with `after` the oldest above that, in the order of their ids.",
            },
            "post": run(
                "askAgent",
                "Send a message to an agent",
                "With `stream` the answer is server-sent events, each one line of JSON: `start`, any number of "
                "`delta`, and `done`, or `error` where it could not finish. The message is in the history before the "
                "answer begins. Calls that wait for a person are returned as `tool_calls` beside `approval_id`; once "
                "they are decided, the rest of the turn is in the history.",
                AgentRequest,
                answers={**content(JSON, AnswerOut), **events(*get_args(Event))},
                codes=TURN_CODES,
                refusal=_REFUSAL,
                parameters=_AGENT,
            ),
            "delete": {
                **_operation("clearAgentHistory", "Clear an agent's history", ClearedOut, (_CONVERSATION,)),
                "description": "What still runs or is held is cancelled first. Again removes nothing and succeeds.",
            },
        },
    },
)
