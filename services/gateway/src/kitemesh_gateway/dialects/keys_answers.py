"""What the routes of API keys answer, and how it is rendered. Times are ISO 8601 in UTC. Pure."""

from typing import Any, Literal

from msgspec import Struct

from kitemesh_contracts.commands import Priority
from kitemesh_gateway.instants import iso
from kitemesh_runtime.issuing import state_of
from kitemesh_runtime.keys import KeyRecord
from kitemesh_runtime.tenancy import Limits


class LimitsOut(Struct, frozen=True, kw_only=True):
    """Bounds; `null` is none."""

    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrent_turns: int | None


class KeyOut(Struct, frozen=True, kw_only=True):
    """An API key, without its text: that is kept by nobody.

    Attributes:
        models: What it may use; `null` is everything.
        limits: Of its own; where they say nothing, its tenant's `key_limits` hold.
        priority: Of its turns; `null` is as its tenant says.
        created_by: The id of the key that made it; `null` where none did.
        rotated_to: The id of the key that takes its place.

    """

    id: str
    tenant: str
    name: str
    state: Literal["active", "expired", "revoked"]
    scopes: tuple[str, ...]
    default_agent: str | None
    models: tuple[str, ...] | None
    limits: LimitsOut
    priority: Priority | None
    created_at: str
    created_by: str | None
    expires_at: str | None
    revoked_at: str | None
    rotated_to: str | None


class KeyMade(KeyOut, frozen=True, kw_only=True):
    """A key that was just made, and the one time that its text is told."""

    key: str


class KeyRotated(KeyMade, frozen=True, kw_only=True):
    """A key that takes the place of another one, which is told as it is now."""

    replaces: KeyOut


class KeyPage(Struct, frozen=True, kw_only=True):
    """Keys, newest first.

    Attributes:
        next_cursor: Continues the list; `null` at its end.

    """

    data: tuple[KeyOut, ...]
    next_cursor: str | None


def limits_out(limits: Limits) -> LimitsOut:
    """Render limits."""
    return LimitsOut(
        requests_per_minute=limits.requests_per_minute,
        tokens_per_minute=limits.tokens_per_minute,
        concurrent_turns=limits.concurrent_turns,
    )


def key_out(record: KeyRecord, now_s: float) -> KeyOut:
    """Render a key."""
    return KeyOut(**_fields(record, now_s))


def key_made(record: KeyRecord, text: str, now_s: float) -> KeyMade:
    """Render a key with its text."""
    return KeyMade(**_fields(record, now_s), key=text)


def key_rotated(record: KeyRecord, text: str, replaced: KeyRecord, now_s: float) -> KeyRotated:
    """Render a key with its text, and the one that it replaces."""
    return KeyRotated(**_fields(record, now_s), key=text, replaces=key_out(replaced, now_s))


def _fields(record: KeyRecord, now_s: float) -> dict[str, Any]:
    return {
        "id": record.id,
        "tenant": record.tenant,
        "name": record.name,
        "state": state_of(record, now_s),
        "scopes": record.scopes,
        "default_agent": record.default_agent,
        "models": record.models,
        "limits": limits_out(record.limits),
        "priority": record.priority,
        "created_at": iso(record.created_at_s),
        "created_by": record.created_by or None,
        "expires_at": None if record.expires_at_s is None else iso(record.expires_at_s),
        "revoked_at": None if record.revoked_at_s is None else iso(record.revoked_at_s),
        "rotated_to": record.rotated_to or None,
    }
