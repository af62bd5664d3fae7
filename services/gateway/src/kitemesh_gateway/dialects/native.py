"""The native routes: this server's own shapes, and problem details (RFC 9457) for everything that is refused.

Where one of them runs a turn, it is asked for as in `completions`, and streamed in events of its own.
"""

from collections.abc import Mapping

from kitemesh_contracts.errors import ErrorInfo
from kitemesh_gateway.dialects.base import SSE_HEADERS, ErrorBody, Facts, Refused, TurnRequest
from kitemesh_gateway.dialects.native_bodies import parse_background
from kitemesh_gateway.dialects.native_stream import WORDS, NativeEncoder
from kitemesh_gateway.dialects.problems import problem


class Native:
    """`/v1/approvals` and `/v1/executions`."""

    name = "native"
    words = WORDS
    stream_headers: Mapping[str, str] = SSE_HEADERS

    def parse(self, body: object) -> TurnRequest:
        """Validate a decoded body."""
        return parse_background(body)

    def encoder(self, facts: Facts) -> NativeEncoder:
        """Return the encoder of one answer."""
        return NativeEncoder(facts)

    def refusal(self, error: ErrorInfo, about: Refused) -> ErrorBody:
        """Return the body of an error."""
        return problem(error, code=error.code.value, instance=about.path, request_id=about.request_id)
