"""What else the scripted model could have said: further choices, and how likely each word was. Pure, and made up."""

from collections.abc import Iterator, Sequence
from typing import Final

from msgspec.structs import replace

from kitemesh_contracts.content import Alternative, Logprob, ToolCall, TopLogprob
from kitemesh_contracts.deltas import Delta, ReasoningDelta, TextDelta
from kitemesh_model_runner.script import Script

LOGPROB: Final = -0.125
"""Of every word."""


def likely(deltas: Sequence[Delta], top: int) -> Iterator[Delta]:
    """Say how likely the words were, and name so many for each place, the word itself first."""
    for delta in deltas:
        yield replace(delta, logprobs=(_logprob(delta.text, top),)) if isinstance(delta, TextDelta) else delta


def further(index: int, script: Script, calls: tuple[ToolCall, ...], *, top: int | None, is_json: bool) -> Alternative:
    """Return a further choice: the same words behind its number.

    Args:
        index: Of the choice; its number is one more.
        script: What the first choice says.
        calls: It makes.
        top: As in `likely`; `None`: nobody asked.
        is_json: The words are to stay as they are.

    """
    words = [delta.text for delta in script.deltas if isinstance(delta, TextDelta)]
    if not is_json:
        words.insert(0, f"({index + 1}) ")
    return Alternative(
        index=index,
        finish=script.finish,
        text="".join(words),
        reasoning="".join(delta.text for delta in script.deltas if isinstance(delta, ReasoningDelta)),
        calls=calls,
        logprobs=() if top is None else tuple(_logprob(word, top) for word in words),
    )


def _logprob(token: str, top: int) -> Logprob:
    others = tuple(TopLogprob(token=f"other{n}", logprob=LOGPROB - n) for n in range(1, top))
    itself = (TopLogprob(token=token, logprob=LOGPROB, bytes=tuple(token.encode())),) if top else ()
    return Logprob(token=token, logprob=LOGPROB, bytes=tuple(token.encode()), top=(*itself, *others))
