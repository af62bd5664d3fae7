"""The development key and the pepper: made once, kept beside the data, shown at every start."""

import secrets
from pathlib import Path
from typing import Final, NamedTuple

from kitemesh_cli.data_folder import read_text, write_private
from kitemesh_contracts.scopes import Scope
from kitemesh_runtime import keyring
from kitemesh_runtime.clock import Clock, SystemClock
from kitemesh_runtime.issuing import issue, state_of
from kitemesh_runtime.keys import KeyRecord, Keys

NAME: Final = "development"
PEPPER_BYTES: Final = 32


class DevKey(NamedTuple):
    """The key, and what became of it."""

    text: str
    note: str


def ensure_pepper(path: Path) -> str:
    """Return the pepper kept in the file, made on the first call."""
    pepper = read_text(path)
    if not pepper:
        pepper = secrets.token_urlsafe(PEPPER_BYTES)
        write_private(path, pepper + "\n")
    return pepper


async def ensure_key(
    keys: Keys,
    path: Path,
    pepper: bytes,
    *,
    tenant: str,
    agent: str | None = None,
    clock: Clock | None = None,
) -> DevKey:
    """Return the key kept in the file if it still serves, else a new one that may do everything.

    Its default agent is the one that answers without a key, too; one that is tied to another agent does not serve. One
    that is replaced is revoked.
    """
    clock = clock or SystemClock()
    kept = read_text(path)
    note = "made"
    if kept:
        record = await keys.find(keyring.digest(kept, pepper))
        problem = _find_problem(record, tenant, agent, clock.now_ms() / 1000)
        if problem is None:
            return DevKey(kept, "as before")
        note = f"made anew: {problem}"
        if record is not None and record.revoked_at_s is None:
            await keys.revoke(record.tenant, record.id)
            note += f", and key {record.id} is now revoked"
    text, _ = await issue(keys, pepper, tenant=tenant, scopes=tuple(Scope), name=NAME, default_agent=agent, clock=clock)
    write_private(path, text + "\n")
    return DevKey(text, note)


def _find_problem(record: KeyRecord | None, tenant: str, agent: str | None, now_s: float) -> str | None:
    if record is None:
        return "the store does not know the one that was kept"
    state = state_of(record, now_s)
    missing = sorted(scope for scope in Scope if scope not in record.scopes)
    limits = {
        f"is {state}": state != "active",
        f"lacks {', '.join(missing)}": bool(missing),
        f"is for tenant {record.tenant}": record.tenant != tenant,
        f"is tied to agent {record.default_agent}": record.default_agent not in (None, agent),
        "is tied to no agent": record.default_agent is None and agent is not None,
    }
    return next((f"the one that was kept {limit}" for limit, applies in limits.items() if applies), None)
