"""The body of `POST /run/v1/chat/completions`, as it is validated and as `/openapi.json` shows it.

It is that of a chat completion, with a conversation, a mode and a message id of its own.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from kitemesh_gateway.dialects.completions_models import ChatRequest
from kitemesh_gateway.dialects.run_chat_models import IdIn, Kept


class RunCompletionRequest(ChatRequest):
    """A chat completion request of the run API. Fields that are not listed are ignored."""

    conversationId: (  # noqa: N815  the wire's name
        Annotated[IdIn, Field(description="Goes on with this conversation, which is made if there is none.")] | None
    ) = None
    executionMode: (  # noqa: N815  the wire's name
        Annotated[
            Literal["classic", "durable"],
            Field(description="Wins over the agent's own; `classic` where neither says anything."),
        ]
        | None
    ) = None
    headers: (
        Annotated[dict[str, Any], Field(description="For the places of the agent's prompt, as its schema wants them.")]
        | None
    ) = None
    messageId: (  # noqa: N815  the wire's name
        Annotated[
            IdIn,
            Field(description="Of the new user message; one that is known already is refused. Made here if absent."),
        ]
        | None
    ) = None
    properties: Kept | None = None
    runConfig: Kept | None = None  # noqa: N815  the wire's name
    stream: Annotated[bool, Field(description="`true` without it.")] | None = None
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    userProperties: Kept | None = None  # noqa: N815  the wire's name
