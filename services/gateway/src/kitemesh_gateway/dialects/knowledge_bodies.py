"""What the routes of the knowledge base take, as it is validated and as `/openapi.json` shows it."""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, ValidationError

from kitemesh_contracts.ids import is_id
from kitemesh_gateway.dialects.base import Mistakes
from kitemesh_gateway.dialects.completions_messages import Body
from kitemesh_gateway.dialects.mistakes import mistakes_of, wrong
from kitemesh_runtime.knowledge import DEFAULT_BASE, NAME_MAX_CHARS, is_name

_ID_PATTERN: Final = "^[A-Za-z0-9_-]{1,64}$"


def _check_base(text: str) -> str:
    if not is_id(text):
        raise wrong("must be 1 to 64 of A-Z, a-z, 0-9, _ and -")
    return text


def _check_name(text: str) -> str:
    if not is_name(text):
        raise wrong(f"must be 1 to {NAME_MAX_CHARS} printable characters without blanks around them")
    return text


def _check_text(text: str) -> str:
    if not text.strip():
        raise wrong("must have something in it")
    return text


class DocumentIn(Body):
    """A document; it takes the place of the one of that name in its base."""

    name: Annotated[
        str,
        AfterValidator(_check_name),
        Field(min_length=1, max_length=NAME_MAX_CHARS, description="What passages name as their source."),
    ]
    text: Annotated[str, AfterValidator(_check_text), Field(min_length=1)]
    base: Annotated[
        str,
        AfterValidator(_check_base),
        Field(description="Which roles name as `knowledge`.", json_schema_extra={"pattern": _ID_PATTERN}),
    ] = DEFAULT_BASE
    format: (
        Annotated[Literal["text", "markdown"], Field(description="As the name ends, `.md` or not, without it.")] | None
    ) = None


def parse_document(body: object) -> DocumentIn:
    """Validate a decoded body.

    Raises:
        Mistakes: With everything that is wrong.

    """
    try:
        return DocumentIn.model_validate(body)
    except ValidationError as exc:
        raise Mistakes(mistakes_of(exc)) from exc
