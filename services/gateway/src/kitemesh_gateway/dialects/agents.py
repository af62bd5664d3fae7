"""The `agents` dialect: a message to an agent, its answer as one numbered row, and streams without `[DONE]`."""

from collections.abc import Mapping

from kitemesh_contracts.errors import ErrorCode, ErrorInfo, NotFound
from kitemesh_gateway.dialects.agents_bodies import parse
from kitemesh_gateway.dialects.agents_encoder import WORDS, AgentsEncoder
from kitemesh_gateway.dialects.agents_errors import error_body
from kitemesh_gateway.dialects.base import SSE_HEADERS, ErrorBody, Facts, Refused, TurnRequest


class Agents:
    """`/api/agents/{id}/chat`."""

    name = "agents"
    words = WORDS
    stream_headers: Mapping[str, str] = SSE_HEADERS

    def parse(self, body: object) -> TurnRequest:
        """Validate a decoded body; whom it is for, and under which numbers, is to be added."""
        return parse(body)

    def encoder(self, facts: Facts) -> AgentsEncoder:
        """Return the encoder of one answer.

        Raises:
            NotFound: The turn was begun elsewhere and is no rows of an agent's history (`execution.unknown`).

        """
        if not facts.row:
            raise NotFound(ErrorCode.EXECUTION_UNKNOWN, "There is no such execution")
        return AgentsEncoder(facts)

    def refusal(self, error: ErrorInfo, about: Refused) -> ErrorBody:
        """Return the body of an error."""
        return error_body(error, about)
