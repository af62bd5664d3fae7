"""Make the passwords of compose.yaml's containers once, and hand each container what it has to know and no more.

Run before the servers start, as root, for what is written is its reader's alone: `python access.py KEPT TOLD` keeps
everything in one folder and writes into a folder below TOLD for each container.
"""

# ruff: noqa: INP001  a script, not a package

import os
import secrets
import sys
from pathlib import Path
from typing import Final

from kitemesh_cli.access import Access
from kitemesh_cli.access_files import NATS_USERS, write_access
from kitemesh_cli.data_folder import environment_text, read_text, write_private
from kitemesh_cli.settings import BootstrapSettings
from kitemesh_contracts.permissions import OPERATOR, SERVICES
from kitemesh_runtime.settings import load

NATS: Final = "nats://nats:4222"
MONGO: Final = "mongodb://mongodb:27017/?directConnection=true"
ADMIN: Final = "admin"
"""MongoDB's own database of users, in which its image makes the first one."""
PEPPER: Final = "KITEMESH_KEY_PEPPER"

OPERATORS: Final = "bootstrap"
OURS: Final = 10001
"""As whom our images run."""
MONGODBS: Final = 999
"""As whom MongoDB's image runs when it reads the password."""


def hand_out(kept: Path, below: Path) -> None:
    """Make what is missing, and write what differs."""
    settings = load(BootstrapSettings, {"KITEMESH_NATS_URL": NATS, "KITEMESH_MONGO_URL": MONGO})
    access, _ = write_access(kept, settings)
    pepper = read_text(kept / "pepper") or secrets.token_hex(32)
    _put(kept / "pepper", pepper, OURS)
    for service in SERVICES:
        variables = access.variables(service, nats=NATS, mongo=MONGO, database=settings.mongo_database)
        more = {PEPPER: pepper} if service == "gateway" else {}
        _put(below / service / "env", environment_text({**variables, **more}), OURS)
    _put(below / OPERATORS / "env", environment_text(_operators(access, pepper)), OURS)
    _put(below / "nats" / NATS_USERS, access.nats_users(), 0)
    _put(below / "mongodb" / "password", access.mongo[OPERATOR], MONGODBS)
    # Bootstrap reads the passwords, to make MongoDB's users of them.
    _give(OURS, kept, *kept.iterdir())


def _operators(access: Access, pepper: str) -> dict[str, str]:
    return {
        "KITEMESH_NATS_URL": access.bus_url(NATS, OPERATOR),
        "KITEMESH_MONGO_URL": access.store_url(MONGO, OPERATOR, source=ADMIN),
        PEPPER: pepper,
    }


def _put(path: Path, text: str, reader: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if read_text(path) != text.strip():
        write_private(path, text)
    _give(reader, path)


def _give(reader: int, *paths: Path) -> None:
    if os.geteuid() == 0:
        for path in paths:
            os.chown(path, reader, reader)


if __name__ == "__main__":
    hand_out(Path(sys.argv[1]), Path(sys.argv[2]))
