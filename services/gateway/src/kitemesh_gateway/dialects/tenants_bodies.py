"""What the routes of tenants take, as it is validated and as `/openapi.json` shows it."""

from typing import Annotated, Final, cast, get_args

from pydantic import Field, ValidationError

from kitemesh_gateway.dialects.base import Mistakes
from kitemesh_gateway.dialects.completions_messages import Body
from kitemesh_gateway.dialects.limits_bodies import Id, LimitsIn, Models, PriorityIn, limits_of
from kitemesh_gateway.dialects.mistakes import mistakes_of
from kitemesh_runtime.tenancy import Kind, TenantRecord

DAYS_MAX: Final = 36_500

Days = Annotated[int, Field(ge=1, le=DAYS_MAX)]


class RetentionIn(Body):
    """For how many days what is there of each kind is kept, where it is not the default."""

    turns: Days | None = None
    conversations: Days | None = None
    holds: Days | None = None
    ledger: Days | None = None
    audit: Days | None = None


class TenantIn(Body):
    """All that is said of a tenant; where it says nothing, what is said of `_default` holds."""

    limits: Annotated[LimitsIn, Field(description="Of the whole tenant.")] = LimitsIn()
    key_limits: Annotated[LimitsIn, Field(description="Of each of its keys that has none of its own.")] = LimitsIn()
    default_agent: Annotated[Id | None, Field(description="Answers where neither request nor key names one.")] = None
    models: Annotated[
        Models | None, Field(description="Model ids, `agent:…` and `group:…` that its keys may use at most.")
    ] = None
    priority: Annotated[PriorityIn | None, Field(description="Of its turns, where nothing else says one.")] = None
    retention_days: RetentionIn = RetentionIn()


def parse_tenant(name: str, body: object) -> TenantRecord:
    """Validate a decoded body and return what is to be said of the tenant of that name.

    Raises:
        Mistakes: With everything that is wrong.

    """
    try:
        given = TenantIn.model_validate(body)
    except ValidationError as exc:
        raise Mistakes(mistakes_of(exc)) from exc
    days = {kind: getattr(given.retention_days, kind) for kind in get_args(Kind)}
    return TenantRecord(
        id=name,
        limits=limits_of(given.limits),
        key_limits=limits_of(given.key_limits),
        default_agent=given.default_agent,
        models=given.models,
        priority=given.priority,
        retention_days=cast("dict[Kind, int]", {kind: value for kind, value in days.items() if value is not None}),
    )
