"""What `run_chat` answers in one piece: a `chat.completion` that names its conversation. Pure."""

from collections.abc import Iterable
from typing import Final

from kitemesh_contracts.codec import encode
from kitemesh_contracts.deltas import TurnEnded
from kitemesh_gateway.dialects.base import Facts
from kitemesh_gateway.dialects.completions_answers import (
    ChoiceOut,
    Completion,
    KitemeshOut,
    MessageOut,
    call_out,
    usage_out,
)
from kitemesh_gateway.instants import iso

BETWEEN_STEPS: Final = "\n\n"
FINGERPRINT: Final = "fp_kitemesh"


class ChatAnswer(Completion, frozen=True, kw_only=True, tag_field="object", tag="chat.completion"):
    """A whole answer.

    Attributes:
        conversationId: Null when none is kept.

    """

    conversationId: str | None  # noqa: N815  the wire's name


def answer_body(facts: Facts, ended: TurnEnded) -> bytes:
    """Return the JSON of an answer, complete or held."""
    text = _joined([*(step.text for step in ended.earlier), ended.text])
    hold = ended.hold
    message = MessageOut(
        role="assistant",
        content=None if hold is not None or (ended.calls and not text) else text,
        reasoning_content=_joined([*(step.reasoning for step in ended.earlier), ended.reasoning]),
        tool_calls=tuple(call_out(call) for call in ended.calls),
    )
    answer = ChatAnswer(
        id=f"chatcmpl-{facts.turn}",
        created=facts.created_s,
        model=facts.model,
        system_fingerprint=FINGERPRINT,
        choices=(
            ChoiceOut(
                index=0,
                message=message,
                finish_reason="tool_calls" if ended.calls else ended.finish or "stop",
            ),
        ),
        usage=usage_out(ended.usage),
        kitemesh=KitemeshOut(
            execution_id=facts.turn,
            request_id=facts.label,
            conversation_id=facts.conversation,
            stored=ended.stored,
            approval_id=hold.id if hold is not None else None,
            expires_at=iso(hold.expires_at_ms / 1000) if hold is not None else None,
        ),
        conversationId=facts.conversation,
    )
    return encode(answer)


def _joined(texts: Iterable[str]) -> str:
    return BETWEEN_STEPS.join(text for text in texts if text)
