"""Making API keys: the text that is shown once, and the record that is kept of it."""

import os
from collections.abc import Sequence

from kitemesh_runtime import keyring
from kitemesh_runtime.clock import Clock, SystemClock
from kitemesh_runtime.stores import KeyRecord, Keys


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
    """Make a key, store its record and return both; the text cannot be had again."""
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
    )
    await keys.put(tenant, record)
    return made.text, record


def state_of(record: KeyRecord, now_s: float) -> str:
    """Say whether a key is `active`, `revoked` or `expired`."""
    if record.revoked_at_s is not None:
        return "revoked"
    if record.expires_at_s is not None and record.expires_at_s <= now_s:
        return "expired"
    return "active"
