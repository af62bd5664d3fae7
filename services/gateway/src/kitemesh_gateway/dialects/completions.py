"""The `completions` dialect: OpenAI's chat completions, with this server's own `kitemesh` object."""

from collections.abc import Mapping

from kitemesh_contracts.errors import ErrorInfo
from kitemesh_gateway.dialects.base import JSON, SSE_HEADERS, ErrorBody, Facts, Refused, TurnRequest
from kitemesh_gateway.dialects.completions_encoder import CompletionsEncoder
from kitemesh_gateway.dialects.completions_errors import error_body
from kitemesh_gateway.dialects.completions_parse import parse


class Completions:
    """`POST /v1/chat/completions`."""

    name = "completions"
    words = ""
    stream_headers: Mapping[str, str] = SSE_HEADERS

    def parse(self, body: object) -> TurnRequest:
        """Validate a decoded body."""
        return parse(body)

    def encoder(self, facts: Facts) -> CompletionsEncoder:
        """Return the encoder of one answer."""
        return CompletionsEncoder(facts)

    def refusal(self, error: ErrorInfo, about: Refused) -> ErrorBody:
        """Return the body of an error."""
        return ErrorBody(JSON, error_body(error, request_id=about.request_id, param=about.param))
