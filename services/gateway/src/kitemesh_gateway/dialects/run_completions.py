"""The `run_completions` dialect: the chat completions of the run API, with its own conversations and errors."""

from kitemesh_contracts.errors import ErrorInfo
from kitemesh_gateway.dialects.base import ErrorBody, Refused, TurnRequest
from kitemesh_gateway.dialects.completions import Completions
from kitemesh_gateway.dialects.run_completions_errors import error_body
from kitemesh_gateway.dialects.run_completions_parse import parse


class RunCompletions(Completions):
    """`POST /run/v1/chat/completions`: answers are those of `completions`."""

    name = "run_completions"

    def parse(self, body: object) -> TurnRequest:
        """Validate a decoded body."""
        return parse(body)

    def refusal(self, error: ErrorInfo, about: Refused) -> ErrorBody:
        """Return the body of an error."""
        return error_body(error, about)
