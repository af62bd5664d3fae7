"""What a model is shown: prompt, history window, new messages. Pure.

A client's system text is appended to the agent's prompt, never the other way round.
"""

from collections.abc import Sequence

from kitemesh_contracts.commands import Generate, StartTurn
from kitemesh_contracts.content import (
    AssistantMessage,
    Message,
    SystemMessage,
    ToolMessage,
    UserMessage,
    user_text,
)
from kitemesh_runtime.catalog import Agent, History
from kitemesh_runtime.stores import TurnRecord


def render(start: StartTurn, agent: Agent | None, history: Sequence[TurnRecord]) -> tuple[Message, ...]:
    """Put a prompt together.

    Args:
        start: The turn.
        agent: Whose prompt and window apply; `None` for a bare model.
        history: Earlier turns of the conversation, oldest first.

    """
    said = [agent.prompt] if agent and agent.prompt else []
    said += [message.text for message in start.input if isinstance(message, SystemMessage)]
    system: tuple[Message, ...] = (SystemMessage(text="\n\n".join(said)),) if said else ()
    shown = window(history, agent.history if agent else History())
    return (*system, *shown, *_spoken(start.input))


def window(history: Sequence[TurnRecord], bounds: History) -> list[Message]:
    """Return the newest whole turns that fit, oldest first."""
    kept: list[list[Message]] = []
    left = bounds.characters
    for record in reversed(history[-bounds.turns :] if bounds.turns else []):
        messages = [*_spoken(record.input), *([record.answer] if record.answer else [])]
        left -= sum(_length(message) for message in messages)
        if left < 0:
            break
        kept.append(messages)
    return [message for messages in reversed(kept) for message in messages]


def generate(start: StartTurn, messages: tuple[Message, ...], *, step: int, attempt: int) -> Generate:
    """Build the model job of a step; its `carry` is added when it is published."""
    return Generate(
        turn=start.turn,
        tenant=start.tenant,
        gateway=start.gateway,
        mode=start.mode,
        step=step,
        attempt=attempt,
        models=start.route.models,
        messages=messages,
        budget_s=start.budget_s,
        sampling=start.sampling,
        stream=start.stream,
    )


def _spoken(messages: Sequence[Message]) -> list[Message]:
    return [message for message in messages if not isinstance(message, SystemMessage)]


def _length(message: Message) -> int:
    match message:
        case UserMessage():
            return len(user_text(message))
        case AssistantMessage():
            return len(message.text) + sum(len(call.arguments) for call in message.calls)
        case SystemMessage() | ToolMessage():
            return len(message.text)
