"""What `agents` takes: the body of a message and the queries of the history, every mistake told at once. Pure.

Which agent is asked stands in the path and is not known here.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Final

import msgspec
from pydantic import AfterValidator, Field, ValidationError

from kitemesh_contracts.codec import encode
from kitemesh_contracts.content import Message, Sampling, SystemMessage, TextPart, UserMessage
from kitemesh_contracts.ids import is_id
from kitemesh_gateway.dialects.agents_errors import MESSAGE
from kitemesh_gateway.dialects.base import Mistake, Mistakes, TurnRequest
from kitemesh_gateway.dialects.completions_messages import Body
from kitemesh_gateway.dialects.mistakes import mistakes_of, wrong
from kitemesh_runtime.rows import ROW_MAX, RowQuery

LIMIT: Final = 50
LIMIT_MAX: Final = 200
CONTEXT: Final = "Context:\n"
_AN_ID: Final = "must be an id: 1 to 64 of A-Z, a-z, 0-9, _ and -"


def _check_id(text: str) -> str:
    if not is_id(text):
        raise wrong(_AN_ID)
    return text


class AgentRequest(Body):
    """A message to an agent. Fields that are not listed are ignored."""

    message: Annotated[str, Field(min_length=1)]
    conversation_id: (
        Annotated[
            str,
            AfterValidator(_check_id),
            Field(
                description="Continues a conversation, or begins it under this id; without one, a new one begins.",
                json_schema_extra={"pattern": "^[A-Za-z0-9_-]{1,64}$"},
            ),
        ]
        | None
    ) = None
    stream: bool | None = None
    context: Annotated[dict[str, Any], Field(description="Told to the model, for this answer.")] | None = None
    system_prompt: (
        Annotated[str, Field(description="Takes the place of the agent's prompt, for this answer.")] | None
    ) = None
    metadata: Annotated[dict[str, Any], Field(description="Kept with the message and shown in the history.")] | None = (
        None
    )


def parse(body: object) -> TurnRequest:
    """Validate a decoded body.

    Raises:
        Mistakes: With everything that is wrong.

    """
    try:
        request = AgentRequest.model_validate(body)
    except ValidationError as exc:
        # A body that is no object has no message either.
        raise Mistakes(
            [mistake if mistake.field else mistake._replace(field=MESSAGE) for mistake in mistakes_of(exc)]
        ) from exc
    said: tuple[Message, ...] = (UserMessage(parts=(TextPart(text=request.message),)),)
    if request.context:
        told = CONTEXT + msgspec.json.encode(request.context, order="sorted").decode()
        said = (SystemMessage(text=told), *said)
    return TurnRequest(
        model=None,
        messages=said,
        sampling=Sampling(),
        stream=request.stream or False,
        conversation=request.conversation_id,
        creates=request.conversation_id is not None,
        # The user's row is to be in the history before there is an answer.
        durable=True,
        prompt=request.system_prompt,
        details=encode(request.metadata).decode() if request.metadata else "",
    )


def parse_history(query: Iterable[tuple[str, str]]) -> RowQuery:
    """Read which rows are asked for.

    Raises:
        Mistakes: With everything that is wrong.

    """
    given, mistakes = _read(query, ("limit", "conversation_id", "before", "after"))
    limit = _number(given.get("limit", str(LIMIT)), 1, LIMIT_MAX)
    before, after = (_number(given[name], 0, ROW_MAX) if name in given else None for name in ("before", "after"))
    if limit is None:
        mistakes.append(Mistake("limit", f"must be a number from 1 to {LIMIT_MAX}"))
    mistakes += [
        Mistake(name, "must be the id of a message: a whole number")
        for name, number in (("before", before), ("after", after))
        if name in given and number is None
    ]
    if mistakes or limit is None:
        raise Mistakes(mistakes)
    return RowQuery(given.get("conversation_id"), before, after, limit)


def parse_clear(query: Iterable[tuple[str, str]]) -> str | None:
    """Read which conversation is to be cleared; `None`: all.

    Raises:
        Mistakes: With everything that is wrong.

    """
    given, mistakes = _read(query, ("conversation_id",))
    if mistakes:
        raise Mistakes(mistakes)
    return given.get("conversation_id")


def _read(query: Iterable[tuple[str, str]], names: tuple[str, ...]) -> tuple[dict[str, str], list[Mistake]]:
    pairs = [(name, value) for name, value in query if name in names]
    given = dict(pairs)
    mistakes = [Mistake(name, "must be given once") for name in given if sum(name == each for each, _ in pairs) > 1]
    if "conversation_id" in given and not is_id(given["conversation_id"]):
        mistakes.append(Mistake("conversation_id", _AN_ID))
    return given, mistakes


def _number(text: str, least: int, most: int) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(most))):
        return None
    return number if least <= (number := int(text)) <= most else None
