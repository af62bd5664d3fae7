"""API keys, by the digest of their text.

What holds for every store is said in `stores`.
"""

from collections.abc import Sequence
from typing import Protocol

from msgspec import UNSET, Struct, UnsetType

from kitemesh_contracts.commands import Priority
from kitemesh_runtime.tenancy import Changes, Limits


class KeyRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An API key. The key itself is never stored.

    Attributes:
        id: The eight characters that people may see.
        digest: HMAC-SHA256 of the whole key under the installation's pepper, hexadecimal.
        default_agent: Answers where a request names none.
        models: Catalog ids, `agent:…` and `group:…` that it may use; `None` allows all.
        expires_at_s: Epoch seconds; `None` never.
        limits: Of this key; what they do not say is as the tenant's `key_limits` say.
        priority: Of its turns; `None` is as the tenant says.
        rotated_to: The id of the key that takes its place; empty when none does.
        created_by: The id of the key that made it; empty where none did.

    """

    id: str
    tenant: str
    digest: str
    scopes: tuple[str, ...]
    created_at_s: float
    name: str = ""
    default_agent: str | None = None
    models: tuple[str, ...] | None = None
    expires_at_s: float | None = None
    revoked_at_s: float | None = None
    limits: Limits = Limits()
    priority: Priority | None = None
    rotated_to: str = ""
    created_by: str = ""


class KeyChanges(Struct, frozen=True, kw_only=True):
    """What of a key is to be something else; what is not named stays as it is.

    Attributes:
        scopes: Those of its scopes that it keeps: it never gets another one.

    """

    name: str | UnsetType = UNSET
    scopes: tuple[str, ...] | UnsetType = UNSET
    default_agent: str | UnsetType | None = UNSET
    models: tuple[str, ...] | UnsetType | None = UNSET
    expires_at_s: float | UnsetType | None = UNSET
    limits: Limits | UnsetType = UNSET
    priority: Priority | UnsetType | None = UNSET


class Keys(Protocol):
    """API keys."""

    async def put(self, tenant: str, record: KeyRecord) -> None:
        """Store a new key.

        Raises:
            Conflict: The id or the digest is taken (`store.duplicate`).

        """

    async def find(self, digest: str) -> KeyRecord | None:
        """Return the key with that digest, of whatever tenant: the only lookup that starts without one."""

    async def get(self, tenant: str, key: str) -> KeyRecord | None:
        """Return the key."""

    async def list(self, tenant: str) -> list[KeyRecord]:
        """Return the tenant's keys, newest first."""

    async def page(self, tenant: str, *, before: str | None, limit: int) -> "Sequence[KeyRecord]":
        """Return keys, newest first; `before` is the id of the last one seen, and nothing is behind an unknown one."""

    async def update(self, tenant: str, key: str, changes: KeyChanges) -> KeyRecord | None:
        """Change the key and return it; `None` when there is none."""

    async def replace(self, tenant: str, key: str, *, by: str, grace_s: float) -> KeyRecord | None:
        """Have a key run out `grace_s` from now, or sooner if it does, and name its successor; return it as it is then.

        `None` when there is none, or it was revoked, has run out or has a successor already.
        """

    async def changes(self, since: float | None) -> Changes:
        """Return the ids of keys, of all tenants, that were stored or changed since a mark; `None` begins with now."""

    async def revoke(self, tenant: str, key: str) -> KeyRecord | None:
        """Revoke the key for good and return it; again is the same. `None` when there is none."""
