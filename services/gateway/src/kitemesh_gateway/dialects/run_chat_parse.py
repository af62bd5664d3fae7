"""From the body of `POST /run/api/chat` to what it asks for: a turn, answers to held calls, or both. Pure."""

from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from kitemesh_contracts.codec import encode
from kitemesh_contracts.content import Sampling
from kitemesh_contracts.ids import is_id
from kitemesh_gateway.dialects.base import Mistake, Mistakes, TurnRequest
from kitemesh_gateway.dialects.mistakes import mistakes_of
from kitemesh_gateway.dialects.run_chat_messages import Reply, read_messages
from kitemesh_gateway.dialects.run_chat_models import RunChatRequest

NOTHING_NEW: Final = "needs a message of the user as the last one, or the answer to an approval"
_KEPT: Final = ("properties", "runConfig", "userProperties")


class Asked(NamedTuple):
    """What a request asks for.

    Attributes:
        asked: The turn; `None` when nothing new is said.
        replies: To held calls; at least one when nothing new is said.
        conversation: Theirs; `None` when there is a turn and no conversation is named.

    """

    asked: TurnRequest | None
    replies: tuple[Reply, ...]
    conversation: str | None
    stream: bool


def parse(body: object) -> Asked:
    """Validate a decoded body.

    Raises:
        Mistakes: With everything that is wrong.

    """
    mistakes: list[Mistake] = []
    members: dict[str, Any] = body if isinstance(body, dict) else {}
    said = read_messages(members, mistakes)
    conversation = _conversation(members, mistakes)
    if members.get("messages") and not (said.new or said.replies or mistakes):
        mistakes.append(Mistake("messages", NOTHING_NEW))
    if conversation is None and said.replies and not said.new:
        mistakes.append(Mistake("conversationId", "is required with the answer to an approval"))
    try:
        request = RunChatRequest.model_validate(body)
    except ValidationError as exc:
        found = mistakes_of(exc)
        raise Mistakes(
            [*found, *(each for each in mistakes if each.field not in {one.field for one in found})]
        ) from exc
    if mistakes:
        raise Mistakes(mistakes)
    stream = request.stream is not False
    if not said.new:
        return Asked(None, said.replies, conversation, stream)
    asked = TurnRequest(
        model=None,
        default_agent=True,
        messages=said.new,
        sampling=Sampling(max_tokens=request.max_tokens),
        stream=stream,
        conversation=conversation,
        creates=conversation is not None,
        mode=request.executionMode or "auto",
        values=request.headers or {},
        message=said.id,
        details=_details(request),
        files=said.files,
    )
    return Asked(asked, said.replies, conversation, stream)


def _conversation(body: dict[str, Any], mistakes: list[Mistake]) -> str | None:
    named = body.get("conversationId")
    if isinstance(named, str):
        return named
    named = body.get("id")
    if not isinstance(named, str):
        return None
    if not is_id(named):
        mistakes.append(Mistake("id", "must be 1 to 64 of A-Z, a-z, 0-9, _ and -, or conversationId must be given"))
    return named


def _details(request: RunChatRequest) -> str:
    kept = {name: value for name in _KEPT if (value := getattr(request, name)) is not None}
    return encode(kept).decode() if kept else ""
