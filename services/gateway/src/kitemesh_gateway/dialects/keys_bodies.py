"""What the routes of API keys take, as it is validated and as `/openapi.json` shows it."""

from typing import Annotated, Final, Literal

from msgspec import UNSET
from pydantic import Field, ValidationError, model_validator

from kitemesh_gateway.dialects.base import Mistakes
from kitemesh_gateway.dialects.completions_messages import Body
from kitemesh_gateway.dialects.limits_bodies import Id, LimitsIn, Line, Models, PriorityIn, limits_of
from kitemesh_gateway.dialects.mistakes import mistakes_of, wrong
from kitemesh_runtime.administration import GRACE_S
from kitemesh_runtime.keys import KeyChanges

NAME_MAX_CHARS: Final = 200
LIFETIME_MAX_S: Final = 10 * 365 * 86_400
GRACE_MAX_S: Final = 90 * 86_400

ScopeIn = Literal["chat", "approve", "admin", "operator"]
Scopes = Annotated[tuple[ScopeIn, ...], Field(min_length=1, max_length=4, strict=False)]
Name = Annotated[Line, Field(max_length=NAME_MAX_CHARS, description="A note for people.")]
Agent = Annotated[Id | None, Field(description="Answers where a request names none.")]
Named = Annotated[
    Models | None, Field(description="Model ids, `agent:…` and `group:…` that it may use; `null` allows all.")
]
Lifetime = Annotated[
    Annotated[int, Field(ge=1, le=LIFETIME_MAX_S)] | None,
    Field(description="Seconds from now; `null`: it does not expire."),
]
Bounds = Annotated[LimitsIn, Field(description="Where it says nothing, the tenant's `key_limits` hold.")]
Urgency = Annotated[PriorityIn | None, Field(description="Of its turns; `null` is as the tenant says.")]


class KeyIn(Body):
    """A key to be made; it can be given only what the asking key has."""

    name: Name = ""
    scopes: Annotated[Scopes, Field(description="What it may do.")] = ("chat",)
    default_agent: Agent = None
    models: Named = None
    expires_in_s: Lifetime = None
    limits: Bounds = LimitsIn()
    priority: Urgency = None


class KeyPatch(Body):
    """What of a key is to be something else; what is not named stays as it is."""

    name: Name = ""
    scopes: Annotated[Scopes, Field(description="Those of its scopes that it keeps.")] = ("chat",)
    default_agent: Agent = None
    models: Named = None
    expires_in_s: Lifetime = None
    limits: Annotated[LimitsIn, Field(description="They take the place of all that it has.")] = LimitsIn()
    priority: Urgency = None

    @model_validator(mode="after")
    def _something(self) -> "KeyPatch":
        if not self.model_fields_set:
            raise wrong(f"must have one of {', '.join(type(self).model_fields)}")
        return self


class KeyRotation(Body):
    """How a key is rotated."""

    grace_s: Annotated[
        int, Field(ge=0, le=GRACE_MAX_S, description="Seconds that the old key goes on serving; 0: it ends at once.")
    ] = int(GRACE_S)


def parse_key(body: object) -> KeyIn:
    """Validate a decoded body.

    Raises:
        Mistakes: With everything that is wrong.

    """
    try:
        return KeyIn.model_validate(body)
    except ValidationError as exc:
        raise Mistakes(mistakes_of(exc)) from exc


def parse_patch(body: object) -> KeyPatch:
    """Validate a decoded body.

    Raises:
        Mistakes: With everything that is wrong.

    """
    try:
        return KeyPatch.model_validate(body)
    except ValidationError as exc:
        raise Mistakes(mistakes_of(exc)) from exc


def parse_rotation(body: object) -> KeyRotation:
    """Validate a decoded body.

    Raises:
        Mistakes: With everything that is wrong.

    """
    try:
        return KeyRotation.model_validate(body)
    except ValidationError as exc:
        raise Mistakes(mistakes_of(exc)) from exc


def changes_of(given: KeyPatch, now_s: float) -> KeyChanges:
    """Return what is to be changed.

    Args:
        given: What was asked for.
        now_s: What a lifetime counts from.

    """
    fields = given.model_fields_set
    lifetime_s = given.expires_in_s
    return KeyChanges(
        name=given.name if "name" in fields else UNSET,
        scopes=given.scopes if "scopes" in fields else UNSET,
        default_agent=given.default_agent if "default_agent" in fields else UNSET,
        models=given.models if "models" in fields else UNSET,
        expires_at_s=(None if lifetime_s is None else now_s + lifetime_s) if "expires_in_s" in fields else UNSET,
        limits=limits_of(given.limits) if "limits" in fields else UNSET,
        priority=given.priority if "priority" in fields else UNSET,
    )
