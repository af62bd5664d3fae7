"""What the routes of conversations take, as it is validated and as `/openapi.json` shows it."""

import re
from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kitemesh_gateway.dialects.base import Mistake, Mistakes
from kitemesh_gateway.dialects.mistakes import mistakes_of, wrong

TITLE_MAX_CHARS: Final = 200
METADATA_MAX: Final = 16
NAME_MAX_CHARS: Final = 64
VALUE_MAX_CHARS: Final = 512
QUERY_MAX_CHARS: Final = 200
WORDS_MAX: Final = 10

_WORD: Final = re.compile(r"\w+")

Name = Annotated[str, Field(min_length=1, max_length=NAME_MAX_CHARS)]
Value = Annotated[str, Field(max_length=VALUE_MAX_CHARS)]


class ConversationPatch(BaseModel):
    """The body of `PATCH /v1/conversations/{id}`; what it does not name stays as it is."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    title: Annotated[
        str | None, Field(max_length=TITLE_MAX_CHARS, description="`null` or an empty text takes it away.")
    ] = None
    metadata: Annotated[
        dict[Name, Value] | None,
        Field(max_length=METADATA_MAX, description="Takes the place of all there is; `null` takes it away."),
    ] = None

    @model_validator(mode="after")
    def _something(self) -> "ConversationPatch":
        if not self.model_fields_set:
            raise wrong("must have a title or metadata")
        return self


def parse_patch(body: object) -> ConversationPatch:
    """Validate a decoded body.

    Raises:
        Mistakes: With everything that is wrong.

    """
    try:
        return ConversationPatch.model_validate(body)
    except ValidationError as exc:
        raise Mistakes(mistakes_of(exc)) from exc


def words_of(given: Sequence[str]) -> tuple[list[str], list[Mistake]]:
    """Return the words to look for, and what is wrong with them.

    Args:
        given: Every `q` of the query.

    """
    if len(given) > 1:
        return [], [Mistake("q", "must be given once")]
    words = _WORD.findall(given[0])
    if len(given[0]) > QUERY_MAX_CHARS or not 1 <= len(words) <= WORDS_MAX:
        return [], [Mistake("q", f"must have 1 to {WORDS_MAX} words and at most {QUERY_MAX_CHARS} characters")]
    return words, []
