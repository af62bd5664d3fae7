"""What the native routes take, as it is validated and as `/openapi.json` shows it."""

from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from kitemesh_gateway.dialects.base import Mistakes
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
