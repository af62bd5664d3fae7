"""What a model is shown: prompt, history window, new messages, and the steps of the turn so far. Pure.

A client's system text is appended to the agent's prompt, never the other way round. Texts of results that are blobs
are given.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from kitemesh_contracts.commands import StartTurn
from kitemesh_contracts.content import (
    AssistantMessage,
    CallResult,
    Message,
    Step,
    SystemMessage,
    TextPart,
    ToolMessage,
    UserMessage,
    user_text,
)
from kitemesh_runtime.catalog import Agent, History
from kitemesh_runtime.stores import TurnRecord

Texts = Mapping[str, str]
"""Blob id to its text."""

NO_TEXTS: Final[Texts] = {}
GONE: Final = "(The result is not kept any more.)"


def render(
    start: StartTurn, agent: Agent | None, history: Sequence[TurnRecord], texts: Texts = NO_TEXTS
) -> tuple[Message, ...]:
    """Put the prompt of a first step together.

    Args:
        start: The turn.
        agent: Whose prompt and window apply; `None` for a bare model.
        history: Earlier turns of the conversation, oldest first.
        texts: Of the blobs in the history.

    """
    said = [agent.prompt] if agent and agent.prompt else []
    said += [message.text for message in start.input if isinstance(message, SystemMessage)]
    system: tuple[Message, ...] = (SystemMessage(text="\n\n".join(said)),) if said else ()
    shown = window(history, agent.history if agent else History(), texts)
    return (*system, *shown, *_spoken(start.input))


def window(history: Sequence[TurnRecord], bounds: History, texts: Texts = NO_TEXTS) -> list[Message]:
    """Return the newest whole turns that fit, oldest first."""
    kept: list[list[Message]] = []
    left = bounds.characters
    for record in reversed(history[-bounds.turns :] if bounds.turns else []):
        messages = [*_spoken(record.input), *follow_up(record.steps, texts)]
        answer = record.answer
        # Calls of the caller's own are in the last step, beside those that ran here.
        if answer is not None and not answer.calls and (answer.text or answer.reasoning):
            messages.append(answer)
        left -= sum(_length(message) for message in messages)
        if left < 0:
            break
        kept.append(messages)
    return [message for messages in reversed(kept) for message in messages]


def follow_up(steps: Iterable[Step], texts: Texts = NO_TEXTS) -> list[Message]:
    """Return what was said in steps that called tools: the model, the results, and what a person added."""
    messages: list[Message] = []
    for step in steps:
        messages.append(AssistantMessage(text=step.text, reasoning=step.reasoning, calls=step.calls))
        messages += [ToolMessage(call=result.call, text=_told(result, texts)) for result in step.results]
        messages += [UserMessage(parts=(TextPart(text=text),)) for text in step.texts]
    return messages


def blobs_of(steps: Iterable[Step]) -> list[str]:
    """List the blobs that the results of steps are in."""
    return [result.blob for step in steps for result in step.results if result.blob is not None]


def _told(result: CallResult, texts: Texts) -> str:
    if result.error is not None:
        return f"Error ({result.error.code.value}): {result.error.message}"
    if result.blob is not None:
        return result.text + texts.get(result.blob, GONE)
    return result.text


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
