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
)
from kitemesh_contracts.deltas import RESULT_SHOWN_CHARS
from kitemesh_runtime.catalog import Agent, History
from kitemesh_runtime.prompt_sizes import CHARACTERS_PER_TOKEN, total_characters
from kitemesh_runtime.turns import TurnRecord

Texts = Mapping[str, str]
"""Blob id to its text."""

NO_TEXTS: Final[Texts] = {}
GONE: Final = "(The result is not kept any more.)"


def render(
    start: StartTurn, agent: Agent | None, history: Sequence[TurnRecord], texts: Texts = NO_TEXTS
) -> tuple[Message, ...]:
    """Put the prompt of a first step together.

    Args:
        start: The turn; its own prompt, if it has one, takes the place of the agent's.
        agent: Whose prompt and window apply; `None` for a bare model.
        history: Earlier turns of the conversation, oldest first.
        texts: Of the blobs in the history.

    """
    usual = agent.prompt if agent else ""
    prompt = usual if start.prompt is None else start.prompt
    said = [prompt] if prompt else []
    said += [message.text for message in start.input if isinstance(message, SystemMessage)]
    system: tuple[Message, ...] = (SystemMessage(text="\n\n".join(said)),) if said else ()
    shown = window(history, agent.history if agent else History(), texts)
    return (*system, *shown, *_spoken(start.input))


def window(history: Sequence[TurnRecord], bounds: History, texts: Texts = NO_TEXTS) -> list[Message]:
    """Return the newest whole turns that fit, oldest first."""
    kept: list[list[Message]] = []
    left = characters_within(bounds)
    messages_left = bounds.messages
    for record in reversed(history[-bounds.turns :] if bounds.turns else []):
        messages = [*_spoken(record.input), *follow_up(record.steps, texts)]
        answer = record.answer
        # Calls of the caller's own are in the last step, beside those that ran here.
        if answer is not None and not answer.calls and (answer.text or answer.reasoning):
            messages.append(answer)
        left -= total_characters(messages)
        if messages_left is not None:
            messages_left -= len(messages)
        if left < 0 or (messages_left is not None and messages_left < 0):
            break
        kept.append(messages)
    return [message for messages in reversed(kept) for message in messages]


def turns_within(bounds: History) -> int:
    """Return how many turns a window can hold at the most: none is without a message."""
    return bounds.turns if bounds.messages is None else min(bounds.turns, bounds.messages)


def characters_within(bounds: History) -> int:
    """Return how many characters a window can hold at the most."""
    if bounds.tokens is None:
        return bounds.characters
    return min(bounds.characters, bounds.tokens * CHARACTERS_PER_TOKEN)


def follow_up(steps: Iterable[Step], texts: Texts = NO_TEXTS) -> list[Message]:
    """Return what was said in steps that called tools: the model, the results, and what a person added."""
    messages: list[Message] = []
    for step in steps:
        messages.append(AssistantMessage(text=step.text, reasoning=step.reasoning, calls=step.calls))
        messages += [ToolMessage(call=result.call, text=_told(result, texts)) for result in step.results]
        messages += [UserMessage(parts=(TextPart(text=text),)) for text in step.texts]
    return messages


def results_of(step: Step, texts: Texts = NO_TEXTS) -> tuple[CallResult, ...]:
    """Return what is told in a stream of a step's results: as the model sees them, but cut.

    A character too many is left, which says to whoever tells them that there is more.
    """
    return tuple(
        CallResult(call=result.call, text=_whole(result, texts)[: RESULT_SHOWN_CHARS + 1], error=result.error)
        for result in step.results
    )


def blobs_of(steps: Iterable[Step]) -> list[str]:
    """List the blobs that the results of steps are in."""
    return [result.blob for step in steps for result in step.results if result.blob is not None]


def _told(result: CallResult, texts: Texts) -> str:
    if result.error is not None:
        return f"Error ({result.error.code.value}): {result.error.message}"
    return _whole(result, texts)


def _whole(result: CallResult, texts: Texts) -> str:
    return result.text if result.blob is None else result.text + texts.get(result.blob, GONE)


def _spoken(messages: Sequence[Message]) -> list[Message]:
    return [message for message in messages if not isinstance(message, SystemMessage)]
