"""Makes the database's roles and users agree with what the services need, and a server's first user.

Roles and users live in the database that they are for. A user keeps a digest of its password beside itself, so that
what has not changed is not written again. Where passwords come from is not known here.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from pymongo.errors import OperationFailure

from kitemesh_contracts.errors import Bug, Unavailable
from kitemesh_contracts.permissions import SERVICES, ServiceName
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.roles_mongo import ROLES

_DIGEST: Final = "kitemesh_password_sha256"
_NOT_SIGNED_IN: Final = 18
_KEPT: Final = {"writeConcern": {"w": "majority", "j": True}}
"""A command has none of its own, and a server that is killed would forget whom it was told of."""


def role_of(service: ServiceName) -> str:
    """Name a service's role."""
    return f"kitemesh-{service}"


async def is_signed_in(database: Database) -> bool:
    """Tell whether the server knows the user and the password that the connection was opened with.

    Raises:
        Unavailable: It does not answer.

    """
    try:
        await database.command({"ping": 1})
    except Unavailable as exc:
        if isinstance(exc.__cause__, OperationFailure) and exc.__cause__.code == _NOT_SIGNED_IN:
            return False
        raise
    return True


async def make_first_user(admin: Database, user: str, password: str) -> None:
    """Make the user that may do everything, which a server allows whoever is on its machine while it has none.

    Raises:
        Bug: It has users already.
        Unavailable: It does not answer.

    """
    await admin.command({"createUser": user, "pwd": password, "roles": ["root"], **_KEPT})


async def ensure_access(database: Database, passwords: Mapping[ServiceName, str]) -> list[str]:
    """Create what is missing, change what differs, and return what was done, one line each.

    Raises:
        Bug: Whoever asks may not do that.
        Unavailable: The server does not answer.

    """
    roles = await database.command({"rolesInfo": [role_of(each) for each in SERVICES], "showPrivileges": True})
    found = {role["role"]: role for role in roles["roles"]}
    users = await database.command({"usersInfo": list(passwords)})
    known = {user["user"]: user for user in users["users"]}
    done: list[str] = []
    for service in SERVICES:
        name = role_of(service)
        wanted = _privileges(database.name, service)
        role = {"privileges": wanted, "roles": []}
        if name not in found:
            await _create(database, "Role", name, role)
            done.append(f"created role {name}")
        elif _comparable(found[name]["privileges"]) != _comparable(wanted):
            await database.command({"updateRole": name, **role, **_KEPT})
            done.append(f"changed role {name}")
    for service, password in passwords.items():
        user = {
            "pwd": password,
            "roles": [{"role": role_of(service), "db": database.name}],
            "customData": {_DIGEST: hashlib.sha256(password.encode()).hexdigest()},
        }
        if service not in known:
            await _create(database, "User", service, user)
            done.append(f"created user {service}")
        elif known[service].get("customData") != user["customData"] or known[service]["roles"] != user["roles"]:
            await database.command({"updateUser": service, **user, **_KEPT})
            done.append(f"changed user {service}")
    return done


async def _create(database: Database, what: Literal["Role", "User"], name: str, content: Mapping[str, Any]) -> None:
    try:
        await database.command({f"create{what}": name, **content, **_KEPT})
    except Bug:
        # Somebody else bootstraps, too, and was first; whoever may not create it may not change it, either.
        await database.command({f"update{what}": name, **content, **_KEPT})


def _privileges(database: str, service: ServiceName) -> list[dict[str, Any]]:
    return [
        {"resource": {"db": database, "collection": collection}, "actions": list(actions)}
        for collection, actions in ROLES[service].items()
    ]


def _comparable(privileges: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], frozenset[str]]:
    """Return privileges without their order, which the server changes."""
    return {
        (each["resource"].get("db", ""), each["resource"].get("collection", "")): frozenset(each["actions"])
        for each in privileges
    }
