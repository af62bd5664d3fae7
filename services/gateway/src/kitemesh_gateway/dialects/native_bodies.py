"""What the native routes take, as it is validated and as `/openapi.json` shows it."""

from typing import Annotated, Any, Final, Literal

from msgspec.structs import replace
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from kitemesh_gateway.dialects.base import Mistake, Mistakes, TurnRequest
from kitemesh_gateway.dialects.completions_models import ChatRequest
from kitemesh_gateway.dialects.completions_parse import turn_request
from kitemesh_gateway.dialects.completions_rules import across
from kitemesh_gateway.dialects.mistakes import mistakes_of, wrong

MAX_DECISIONS: Final = 50
MAX_REASON_CHARS: Final = 2000
MAX_ID_CHARS: Final = 64


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class DecisionIn(_Body):
    """What is decided of one call."""

    tool_execution_id: Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARS)]
    approved: bool
    reason: Annotated[
        str | None, Field(max_length=MAX_REASON_CHARS, description="Told to the model when the call is denied.")
    ] = None
    arguments: Annotated[
        dict[str, Any] | None,
        Field(description="Run with these instead; a secret that is left as it was shown stays what it is."),
    ] = None

    @model_validator(mode="after")
    def _only_what_runs(self) -> "DecisionIn":
        if self.arguments is not None and not self.approved:
            raise wrong("a denied call takes no arguments")
        return self


def _each_once(decisions: list[DecisionIn]) -> list[DecisionIn]:
    if len({decision.tool_execution_id for decision in decisions}) != len(decisions):
        raise wrong("must name each call once")
    return decisions


class DecideIn(_Body):
    """The body of `POST /v1/approvals/{id}/decide`."""

    decisions: Annotated[list[DecisionIn], Field(min_length=1, max_length=MAX_DECISIONS), AfterValidator(_each_once)]


def parse_decide(body: object) -> DecideIn:
    """Validate a decoded body.

    Raises:
        Mistakes: With everything that is wrong.

    """
    try:
        return DecideIn.model_validate(body)
    except ValidationError as exc:
        raise Mistakes(mistakes_of(exc)) from exc


class BackgroundRequest(ChatRequest):
    """A chat completion request that is run without its client. Fields that are not listed are ignored."""

    mode: (
        Annotated[
            Literal["auto", "durable"],
            Field(description="Either way it runs durable, and so by `metadata.mode`; `classic` is refused in both."),
        ]
        | None
    ) = None


def parse_background(body: object) -> TurnRequest:
    """Validate a decoded body. Its events are kept whether it asks for a stream or not.

    Raises:
        Mistakes: With everything that is wrong.

    """
    try:
        request = BackgroundRequest.model_validate(body)
    except ValidationError as exc:
        raise Mistakes([*mistakes_of(exc), *across(body), *_background_mistakes(body)]) from exc
    mistakes = [*across(body), *_background_mistakes(body)]
    if mistakes:
        raise Mistakes(mistakes)
    return replace(turn_request(request), stream=True, mode="durable")


def _background_mistakes(body: object) -> list[Mistake]:
    metadata = body.get("metadata") if isinstance(body, dict) else None
    if isinstance(metadata, dict) and metadata.get("mode") == "classic":
        return [Mistake("metadata.mode", "must be 'auto' or 'durable': a background run has no client to live for")]
    return []
