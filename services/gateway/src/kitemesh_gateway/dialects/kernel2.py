"""The `kernel2` dialect: chunks for readers that look into the first choice of every event, and errors of its own."""

from collections.abc import Mapping

from kitemesh_contracts.codec import encode
from kitemesh_contracts.errors import ErrorInfo
from kitemesh_gateway.dialects.base import JSON, SSE_HEADERS, ErrorBody, Facts, Refused, TurnRequest
from kitemesh_gateway.dialects.kernel2_encoder import KernelEncoder, refusal
from kitemesh_gateway.dialects.kernel2_parse import parse


class Kernel2:
    """`POST /api/kernel2/chat`."""

    name = "kernel2"
    words = ""
    stream_headers: Mapping[str, str] = SSE_HEADERS

    def parse(self, body: object) -> TurnRequest:
        """Validate a decoded body."""
        return parse(body)

    def encoder(self, facts: Facts) -> KernelEncoder:
        """Return the encoder of one answer."""
        return KernelEncoder(facts)

    def refusal(self, error: ErrorInfo, about: Refused) -> ErrorBody:  # noqa: ARG002  the body has no place for it
        """Return the body of an error."""
        return ErrorBody(JSON, encode(refusal(error)))
