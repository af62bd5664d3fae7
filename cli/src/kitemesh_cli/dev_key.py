"""The development key and the pepper: made once, kept beside the data, shown at every start."""

import secrets
from pathlib import Path
from typing import Final, NamedTuple

from kitemesh_cli.data_folder import read_text, write_private
from kitemesh_cli.issuing import issue, state_of
from kitemesh_contracts.scopes import Scope
from kitemesh_runtime import keyring
from kitemesh_runtime.clock import Clock, SystemClock
from kitemesh_runtime.stores import Keys

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
    default_agent: str | None,
    clock: Clock | None = None,
) -> DevKey:
    """Return the key kept in the file if the store still honours it, else a new one that may do everything."""
    clock = clock or SystemClock()
    kept = read_text(path)
    problem = "made"
    if kept:
        record = await keys.find(keyring.digest(kept, pepper))
        if record is None:
            problem = "made anew: the store does not know the one that was kept"
        elif (state := state_of(record, clock.now_ms() / 1000)) != "active":
            problem = f"made anew: the one that was kept is {state}"
        elif missing := {scope for scope in Scope if scope not in record.scopes}:
            problem = f"made anew: the one that was kept lacks {', '.join(sorted(missing))}"
        elif (record.tenant, record.default_agent) != (tenant, default_agent):
            problem = f"made anew: the one that was kept is for tenant {record.tenant}, agent {record.default_agent}"
        else:
            return DevKey(kept, "as before")
    text, _ = await issue(
        keys, pepper, tenant=tenant, scopes=tuple(Scope), name=NAME, default_agent=default_agent, clock=clock
    )
    write_private(path, text + "\n")
    return DevKey(text, problem)
