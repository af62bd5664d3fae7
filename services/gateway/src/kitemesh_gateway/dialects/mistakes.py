"""From pydantic's findings to the sentences a client reads: every mistake at once, in our own words.

A union's branch is tagged with a leading `#`, so that a path names only what the client wrote.
"""

from collections.abc import Mapping
from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from kitemesh_gateway.dialects.base import Mistake

UNSUPPORTED: Final = "unsupported"
MAX_TOLD: Final = 1000
"""Beyond that, only how many there are is told: to say them all would take seconds."""

_SENTENCES: Final[Mapping[str, str]] = {
    "missing": "is required",
    "string_type": "must be a string",
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "list_type": "must be an array",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must have at least {min_length} item(s)",
    "too_long": "must have at most {max_length} item(s)",
    "string_too_short": "must have at least {min_length} character(s)",
    "string_too_long": "must have at most {max_length} character(s)",
    "literal_error": "must be {expected}",
}


def not_supported(what: str) -> PydanticCustomError:
    """Return the error for what is right in itself and not done here."""
    return PydanticCustomError(UNSUPPORTED, "{what}", {"what": what})


def wrong(what: str) -> PydanticCustomError:
    """Return the error for a rule that pydantic has no word for."""
    return PydanticCustomError("wrong", "{what}", {"what": what})


def mistakes_of(exc: ValidationError) -> list[Mistake]:
    """Say in our words what a validation found."""
    if exc.error_count() > MAX_TOLD:
        return [Mistake("", f"The body has {exc.error_count()} mistakes, too many to be told")]
    return [
        Mistake(_path(error["loc"]), _sentence(error), error["type"] == UNSUPPORTED)
        for error in exc.errors(include_url=False, include_input=False)
    ]


def _path(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in loc if not (isinstance(part, str) and part.startswith(("#", "["))))


def _sentence(error: ErrorDetails) -> str:
    if not error["loc"] and error["type"] == "model_type":
        return "The body must be a JSON object"
    sentence = _SENTENCES.get(error["type"])
    if sentence is None:
        return error["msg"]
    context = {name: _number(value) for name, value in error.get("ctx", {}).items()}
    return sentence.format(**context)


def _number(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value
