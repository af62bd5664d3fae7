"""Which conversations a key may see: those with what it may name. Pure."""

from kitemesh_contracts.errors import ErrorCode, NotFound
from kitemesh_gateway.auth import Principal
from kitemesh_runtime.conversations import Conversation


def conversation_unknown() -> NotFound:
    """Return the one refusal of a conversation that does not exist, is another tenant's, or not for this key."""
    return NotFound(ErrorCode.CONVERSATION_UNKNOWN, "The conversation does not exist")


def may_see(principal: Principal, conversation: Conversation) -> bool:
    """Tell whether a conversation is one with what the key may name."""
    if principal.models is None or (conversation.model and principal.allows(conversation.model)):
        return True
    return conversation.agent is not None and principal.allows(f"agent:{conversation.agent}")
