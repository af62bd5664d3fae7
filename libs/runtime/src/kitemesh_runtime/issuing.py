"""Making API keys: the text that is shown once, and the record that is kept of it."""

import os
from collections.abc import Sequence

from msgspec.structs import replace

from kitemesh_contracts.commands import Priority
from kitemesh_runtime import keyring
from kitemesh_runtime.clock import Clock, SystemClock
from kitemesh_runtime.keys import KeyRecord, Keys
from kitemesh_runtime.tenancy import Limits


def make(
    pepper: bytes,
    *,
    tenant: str,
    scopes: Sequence[str],
    name: str = "",
    default_agent: str | None = None,
    models: Sequence[str] | None = None,
    lifetime_s: float | None = None,
    limits: Limits = Limits(),  # noqa: B008  a constant
    priority: Priority | None = None,
    created_by: str = "",
    clock: Clock | None = None,
) -> tuple[str, KeyRecord]:
    """Make a key that is not stored yet; its text cannot be had again."""
    made = keyring.make(os.urandom(keyring.ENTROPY_BYTES))
    now_s = (clock or SystemClock()).now_ms() / 1000
    record = KeyRecord(
        id=made.id,
        tenant=tenant,
        digest=keyring.digest(made.text, pepper),
        scopes=tuple(scopes),
        created_at_s=now_s,
        name=name,
        default_agent=default_agent,
        models=None if models is None else tuple(models),
        expires_at_s=None if lifetime_s is None else now_s + lifetime_s,
        limits=limits,
        priority=priority,
        created_by=created_by,
    )
    return made.text, record


def make_successor(pepper: bytes, old: KeyRecord, *, created_by: str, clock: Clock) -> tuple[str, KeyRecord]:
    """Make a key that may do what another one may; it runs out when that one was to."""
    made = keyring.make(os.urandom(keyring.ENTROPY_BYTES))
    record = replace(
        old,
        id=made.id,
        digest=keyring.digest(made.text, pepper),
        created_at_s=clock.now_ms() / 1000,
        created_by=created_by,
        revoked_at_s=None,
        rotated_to="",
    )
    return made.text, record


async def issue(
    keys: Keys,
    pepper: bytes,
    *,
    tenant: str,
    scopes: Sequence[str],
    name: str = "",
    default_agent: str | None = None,
    models: Sequence[str] | None = None,
    lifetime_s: float | None = None,
    clock: Clock | None = None,
) -> tuple[str, KeyRecord]:
    """Make a key, store its record and return both, without a word in the audit: for the installation's own."""
    text, record = make(
        pepper,
        tenant=tenant,
        scopes=scopes,
        name=name,
        default_agent=default_agent,
        models=models,
        lifetime_s=lifetime_s,
        clock=clock,
    )
    await keys.put(tenant, record)
    return text, record


def state_of(record: KeyRecord, now_s: float) -> str:
    """Say whether a key is `active`, `revoked` or `expired`."""
    if record.revoked_at_s is not None:
        return "revoked"
    if record.expires_at_s is not None and record.expires_at_s <= now_s:
        return "expired"
    return "active"
