"""The files of `kitemesh bootstrap --access`: passwords, what nats-server includes, and variables for each service.

They are for their owner only, and written again only where they differ; passwords are made once and kept.
"""

from pathlib import Path
from typing import Final

from kitemesh_cli.access import Access, ensure_access
from kitemesh_cli.data_folder import environment_text, read_text, write_private
from kitemesh_cli.failures import Failed
from kitemesh_contracts.permissions import OPERATOR, SERVICES
from kitemesh_runtime.settings import Settings

PASSWORDS: Final = "passwords.json"
NATS_USERS: Final = "nats-users.conf"


def write_access(folder: Path, settings: Settings) -> tuple[Access, list[str]]:
    """Write the files and return the passwords, and what was done, one line each.

    Raises:
        Failed: They cannot be written, or what is kept cannot be understood.

    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        access = ensure_access(folder / PASSWORDS)
        return access, [
            f"wrote {folder / name}" for name, text in _files(access, settings).items() if _put(folder / name, text)
        ]
    except OSError as exc:
        raise Failed(f"the passwords cannot be kept in {folder}: {exc.strerror}") from exc


def environment_file(folder: Path, user: str) -> Path:
    """Return where the variables of a service, or of the operator, are."""
    return folder / f"{user}.env"


def _files(access: Access, settings: Settings) -> dict[str, str]:
    nats, mongo = settings.nats_url.get_secret_value(), settings.mongo_url.get_secret_value()
    told = {
        service: access.variables(service, nats=nats, mongo=mongo, database=settings.mongo_database)
        for service in SERVICES
    }
    operator = {"KITEMESH_NATS_URL": access.bus_url(nats, OPERATOR)}
    files = {f"{user}.env": environment_text(variables) for user, variables in (*told.items(), (OPERATOR, operator))}
    return {NATS_USERS: access.nats_users(), **files}


def _put(path: Path, text: str) -> bool:
    """Write a file unless it says that already; tell whether it did not."""
    if read_text(path) == text.strip():
        return False
    write_private(path, text)
    return True
