"""Changes of keys and tenants, as everybody makes them: noted in the audit first, then done, then told to all.

A change that nobody noted cannot be; a note whose change then failed can, and its caller was told so. Who may change
what is the caller's to judge.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from kitemesh_contracts import subjects
from kitemesh_contracts.errors import BadRequest, ErrorCode
from kitemesh_runtime.audit import Audit, AuditRow
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.issuing import make_successor, state_of
from kitemesh_runtime.keys import KeyChanges, KeyRecord, Keys
from kitemesh_runtime.tenancy import DEFAULT_NAME, DEFAULT_TENANT, TenantRecord, Tenants

GRACE_S: Final = 24 * 3600.0
"""How long a key that was rotated goes on serving, unless somebody says otherwise."""

BY_CLI: Final = "cli"


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who makes a change.

    Attributes:
        by: The key's id, `BY_CLI`, or empty for the anonymous principal.
        origin: The address that it came from.

    """

    by: str = ""
    origin: str = ""


class Administration:
    """Changes keys and tenants.

    Args:
        keys: The store.
        tenants: The store.
        audit: Where every change is noted.
        pepper: Under which keys are digested.
        clock: Time and ids.
        tell: Broadcasts on a subject.

    """

    def __init__(
        self, keys: Keys, tenants: Tenants, audit: Audit, *, pepper: bytes, clock: Clock, tell: Callable[[str], None]
    ) -> None:
        self._keys: Final = keys
        self._tenants: Final = tenants
        self._audit: Final = audit
        self._pepper: Final = pepper
        self._clock: Final = clock
        self._tell: Final = tell

    async def create_key(self, actor: Actor, record: KeyRecord) -> None:
        """Store a key that was just made."""
        await self._note(actor, record.tenant, record.id, "key.created", _values(record, "digest", "id", "tenant"))
        await self._keys.put(record.tenant, record)

    async def change_key(self, actor: Actor, record: KeyRecord, changes: KeyChanges) -> KeyRecord | None:
        """Change a key and return it; `None` when it is gone."""
        await self._note(actor, record.tenant, record.id, "key.changed", _values(changes))
        changed = await self._keys.update(record.tenant, record.id, changes)
        self._tell(subjects.key_changed(record.id))
        return changed

    async def rotate_key(self, actor: Actor, old: KeyRecord, *, grace_s: float) -> tuple[str, KeyRecord, KeyRecord]:
        """Make a key that takes the place of another; return its text, its record, and the other as it is then.

        Raises:
            BadRequest: The other one does not serve any more, or was rotated before (`request.invalid`).

        """
        if old.rotated_to or state_of(old, self._clock.now_ms() / 1000) != "active":
            raise _cannot_rotate()
        text, record = make_successor(self._pepper, old, created_by=actor.by, clock=self._clock)
        values = {"rotated_to": record.id, "grace_s": grace_s}
        await self._note(actor, old.tenant, old.id, "key.rotated", values)
        await self._keys.put(old.tenant, record)
        replaced = await self._keys.replace(old.tenant, old.id, by=record.id, grace_s=grace_s)
        if replaced is None:
            # Its text was told to nobody.
            await self._keys.revoke(old.tenant, record.id)
            raise _cannot_rotate()
        self._tell(subjects.key_changed(old.id))
        return text, record, replaced

    async def revoke_key(self, actor: Actor, record: KeyRecord) -> KeyRecord | None:
        """Revoke a key for good and return it; again is the same."""
        if record.revoked_at_s is None:
            await self._note(actor, record.tenant, record.id, "key.revoked", {})
        revoked = await self._keys.revoke(record.tenant, record.id)
        self._tell(subjects.key_changed(record.id))
        return revoked

    async def put_tenant(self, actor: Actor, record: TenantRecord) -> TenantRecord:
        """Put what is said of a tenant in the place of what was, and return it."""
        await self._note(actor, record.id, record.id, "tenant.changed", _values(record, "id", "updated_at_s"))
        stored = await self._tenants.put(record)
        self._tell(subjects.tenant_changed(token_of(record.id)))
        return stored

    async def remove_tenant(self, actor: Actor, tenant: str) -> bool:
        """Take back what is said of a tenant; tell whether there was anything."""
        if await self._tenants.get(tenant) is None:
            return False
        await self._note(actor, tenant, tenant, "tenant.removed", {})
        removed = await self._tenants.remove(tenant)
        self._tell(subjects.tenant_changed(token_of(tenant)))
        return removed

    async def _note(self, actor: Actor, tenant: str, subject: str, what: str, values: dict[str, Any]) -> None:
        row = AuditRow(
            id=self._clock.new_id(),
            tenant=tenant,
            subject=subject,
            what=what,
            by=actor.by,
            origin=actor.origin,
            values=msgspec.json.encode(values).decode() if values else "",
        )
        await self._audit.append(tenant, row)


def _cannot_rotate() -> BadRequest:
    message = "This key is revoked, has expired or was rotated before: it cannot be rotated"
    return BadRequest(ErrorCode.REQUEST_INVALID, message)


def token_of(tenant: str) -> str:
    """Return the name of a tenant as subjects and paths have it."""
    return DEFAULT_NAME if tenant == DEFAULT_TENANT else tenant


def tenant_of(token: str) -> str:
    """Return the tenant that subjects and paths name."""
    return DEFAULT_TENANT if token == DEFAULT_NAME else token


def _values(value: msgspec.Struct, *without: str) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(value)
    return {name: each for name, each in fields.items() if name not in without}
