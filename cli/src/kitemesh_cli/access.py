"""The passwords of the services, kept in one file, and what is told with them: to the servers, and to each service.

It writes nothing but that file; which rights belong to a user is said elsewhere.
"""

import json
import secrets
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

import msgspec
from msgspec import Struct

from kitemesh_cli.data_folder import read_text, write_private
from kitemesh_cli.failures import Failed
from kitemesh_contracts.permissions import OPERATOR, SERVICES, BusRights, ServiceName, bus_rights

PASSWORD_BYTES: Final = 32


class Access(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Passwords by user, those of the operator among them."""

    nats: dict[str, str] = {}
    mongo: dict[str, str] = {}

    def bus_url(self, url: str, user: str) -> str:
        """Return the address of NATS as a user gives it; several are separated by commas."""
        return ",".join(_named(each.strip(), user, self.nats[user]) for each in url.split(","))

    def store_url(self, url: str, user: str, *, source: str) -> str:
        """Return the address of MongoDB as a user gives it, whose account is in the database `source`."""
        parts = urlsplit(_named(url, user, self.mongo[user]))
        options = [each for each in parts.query.split("&") if each and not each.lower().startswith("authsource=")]
        query = "&".join([*options, f"authSource={quote(source)}"])
        return urlunsplit(parts._replace(path=parts.path or "/", query=query))

    def variables(self, service: ServiceName, *, nats: str, mongo: str, database: str) -> dict[str, str]:
        """Return what a service is told of both servers."""
        return {
            "KITEMESH_NATS_URL": self.bus_url(nats, service),
            "KITEMESH_MONGO_URL": self.store_url(mongo, service, source=database),
        }

    def nats_users(self) -> str:
        """Return the part of a nats-server's configuration that names its users and what they may do."""
        users = [_user(service, self.nats[service], bus_rights(service)) for service in SERVICES]
        lines = ",\n".join(f"    {user}" for user in (*users, _user(OPERATOR, self.nats[OPERATOR])))
        return f"authorization {{\n  users = [\n{lines}\n  ]\n}}\n"


def ensure_access(path: Path) -> Access:
    """Return the passwords that the file keeps, after making those that are missing.

    Raises:
        Failed: The file cannot be understood.

    """
    text = read_text(path)
    try:
        kept = msgspec.json.decode(text, type=Access) if text else Access()
    except msgspec.DecodeError as exc:
        raise Failed(f"{path} does not hold the passwords of the services: {exc}") from exc
    users = (*SERVICES, OPERATOR)
    full = Access(nats=_complete(kept.nats, users), mongo=_complete(kept.mongo, users))
    if full != kept:
        write_private(path, json.dumps(msgspec.to_builtins(full), indent=2) + "\n")
    return full


def _complete(passwords: dict[str, str], users: tuple[str, ...]) -> dict[str, str]:
    return {user: passwords.get(user) or secrets.token_urlsafe(PASSWORD_BYTES) for user in users}


def _user(name: str, password: str, rights: BusRights | None = None) -> str:
    user: dict[str, object] = {"user": name, "password": password}
    if rights is not None:
        user["permissions"] = {
            "publish": {"allow": list(rights.publish)},
            "subscribe": {"allow": list(rights.subscribe)},
        }
    return json.dumps(user)


def _named(url: str, user: str, password: str) -> str:
    parts = urlsplit(url)
    hosts = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(user, safe='')}:{quote(password, safe='')}@{hosts}"))
