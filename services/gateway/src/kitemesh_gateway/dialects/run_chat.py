"""The `run_chat` dialect: the UI message stream of the AI SDK, with conversations and messages of its own."""

from collections.abc import Callable, Mapping
from typing import Final

from kitemesh_contracts.errors import ErrorInfo
from kitemesh_gateway.dialects.base import (
    SSE_HEADERS,
    Encoder,
    ErrorBody,
    Facts,
    Mistake,
    Mistakes,
    Refused,
    TurnRequest,
)
from kitemesh_gateway.dialects.problems import problem_body
from kitemesh_gateway.dialects.run_chat_encoder import WORDS, WORDS_WITH_OPERATIONS, RunChatEncoder
from kitemesh_gateway.dialects.run_chat_parse import NOTHING_NEW, parse
from kitemesh_gateway.dialects.run_chat_rest import RestOnly
from kitemesh_runtime.catalog_tools import Tool

UI_HEADERS: Final[Mapping[str, str]] = {
    **SSE_HEADERS,
    "x-vercel-ai-ui-message-stream": "v1",
    "x-vercel-ai-data-stream": "v2",
}


class RunChat:
    """`POST /run/api/chat`.

    Args:
        tools: Returns the tools as they are now; what is secret in their arguments is not told.
        tells_operations: What the server does is told beside the message.
        skips: How many of a stream's first events are not sent.

    """

    name = "run_chat"
    stream_headers: Mapping[str, str] = UI_HEADERS

    def __init__(
        self, tools: Callable[[], Mapping[str, Tool]], *, tells_operations: bool = False, skips: int = 0
    ) -> None:
        self._tools: Final = tools
        self._tells_operations: Final = tells_operations
        self._skips: Final = skips

    @property
    def words(self) -> str:
        """How the ids of its events say that they are its own."""
        return WORDS_WITH_OPERATIONS if self._tells_operations else WORDS

    def told(self, *, tells_operations: bool = False, skips: int = 0) -> "RunChat":
        """Return the same dialect for one request."""
        return RunChat(self._tools, tells_operations=tells_operations, skips=skips)

    def parse(self, body: object) -> TurnRequest:
        """Validate a decoded body that brings a new message."""
        asked = parse(body).asked
        if asked is None:
            raise Mistakes([Mistake("messages", NOTHING_NEW)])
        return asked

    def encoder(self, facts: Facts) -> Encoder:
        """Return the encoder of one answer."""
        encoder = RunChatEncoder(facts, self._tools(), tells_operations=self._tells_operations)
        return RestOnly(encoder, self._skips) if self._skips else encoder

    def refusal(self, error: ErrorInfo, about: Refused) -> ErrorBody:
        """Return the body of an error."""
        return problem_body(error, about)
