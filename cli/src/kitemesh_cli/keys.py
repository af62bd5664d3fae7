"""`kitemesh keys create | list | rotate | revoke`: API keys of a tenant."""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from kitemesh_cli.administering import ACTOR, broadcast, how_told, open_desk, pepper_of
from kitemesh_cli.arguments import add_data, folder_of, grace_s, identifier, lifetime_s
from kitemesh_cli.failures import Failed
from kitemesh_cli.limits import add_limits, limits_of, shown
from kitemesh_cli.output import add_json, print_json
from kitemesh_cli.settings import KeysSettings, load_settings, tenant_of
from kitemesh_cli.tables import lay_out, moment
from kitemesh_contracts.scopes import Scope
from kitemesh_contracts.topology import PRIORITIES
from kitemesh_runtime import catalog_file, issuing
from kitemesh_runtime.administration import GRACE_S
from kitemesh_runtime.catalog import CatalogError
from kitemesh_runtime.issuing import state_of
from kitemesh_runtime.keys import KeyRecord
from kitemesh_runtime.tenancy import Limits

PREFIX: Final = "limit"
DESCRIPTION = (
    "Make, list, rotate and revoke the API keys of a tenant. What is stored of a key cannot be turned back into it."
)


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verbs."""
    parser = verbs.add_parser("keys", help="make, list, rotate and revoke API keys", description=DESCRIPTION)
    what = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    create = what.add_parser("create", help="make a key and print it once", description="Make a key and print it once.")
    create.add_argument("--name", default="", help="a note for people")
    create.add_argument(
        "--scope",
        action="append",
        choices=[str(scope) for scope in Scope],
        dest="scopes",
        help="what it may do; repeatable (default: chat)",
    )
    create.add_argument(
        "--default-agent", type=identifier, metavar="A", help="agent that answers where a request names none"
    )
    create.add_argument(
        "--model",
        action="append",
        dest="models",
        metavar="M",
        help="model id, agent:ID or group:UUID that it may use beside its default agent; repeatable (default: all)",
    )
    create.add_argument(
        "--expires-in", type=lifetime_s, metavar="TIME", help="such as 12h or 30d (default: it does not expire)"
    )
    add_limits(create, PREFIX, "this key")
    create.add_argument("--priority", choices=PRIORITIES, help="of its turns (default: as the tenant says)")
    create.set_defaults(run=create_key)
    listing = what.add_parser("list", help="list a tenant's keys", description="List a tenant's keys, newest first.")
    listing.set_defaults(run=list_keys)
    rotate = what.add_parser(
        "rotate",
        help="put a new key in the place of one",
        description="Make a key that may do all that another one may, and print it once; the old one then runs out.",
    )
    rotate.add_argument("id", type=identifier, metavar="ID", help="the old key's id, as `keys list` shows it")
    rotate.add_argument(
        "--grace",
        type=grace_s,
        default=GRACE_S,
        metavar="TIME",
        help="how long the old key goes on serving, such as 30m, or 0 (default: 24h)",
    )
    rotate.set_defaults(run=rotate_key)
    revoke = what.add_parser(
        "revoke", help="revoke a key for good", description="Revoke a key for good; every gateway is told at once."
    )
    revoke.add_argument("id", type=identifier, metavar="ID", help="the key's id, as `keys list` shows it")
    revoke.set_defaults(run=revoke_key)
    for each in (create, listing, rotate, revoke):
        each.add_argument(
            "--tenant",
            type=identifier,
            metavar="T",
            help="whose keys; the anonymous tenant's when left out (KITEMESH_ANONYMOUS_TENANT)",
        )
        add_json(each)
        add_data(each)


def create_key(arguments: argparse.Namespace) -> int:
    """Be `keys create`."""
    settings = _settings(arguments)
    pepper = pepper_of(settings)
    tenant = _tenant(arguments, settings)
    for warning in _find_unknown(settings, arguments.models or [], arguments.default_agent):
        sys.stderr.write(f"kitemesh: warning: {warning}\n")
    text, record = issuing.make(
        pepper,
        tenant=tenant,
        scopes=tuple(dict.fromkeys(arguments.scopes or [Scope.CHAT])),
        name=arguments.name,
        default_agent=arguments.default_agent,
        models=arguments.models,
        lifetime_s=arguments.expires_in,
        limits=limits_of(arguments, PREFIX, Limits()),
        priority=arguments.priority,
    )

    async def store() -> None:
        async with open_desk(settings) as desk:
            await desk.administration.create_key(ACTOR, record)

    asyncio.run(store())
    if arguments.json:
        print_json({**_public(record), "key": text})
    else:
        _print_new(text, record)
    return 0


def list_keys(arguments: argparse.Namespace) -> int:
    """Be `keys list`."""
    settings = _settings(arguments)
    tenant = _tenant(arguments, settings)

    async def read() -> list[KeyRecord]:
        async with open_desk(settings) as desk:
            return await desk.stores.keys.list(tenant)

    records = asyncio.run(read())
    if arguments.json:
        print_json([_public(record) for record in records])
    elif not records:
        print(f"tenant {tenant} has no keys")
    else:
        _print_table(records)
    return 0


def rotate_key(arguments: argparse.Namespace) -> int:
    """Be `keys rotate`."""
    settings = _settings(arguments)
    pepper_of(settings)
    tenant = _tenant(arguments, settings)

    async def rotate() -> tuple[str, KeyRecord, KeyRecord, bool]:
        async with open_desk(settings) as desk:
            old = await desk.stores.keys.get(tenant, arguments.id)
            if old is None:
                raise _missing(tenant, arguments.id)
            text, made, replaced = await desk.administration.rotate_key(ACTOR, old, grace_s=arguments.grace)
            return text, made, replaced, await broadcast(settings, desk.told)

    text, record, old, told = asyncio.run(rotate())
    if arguments.json:
        print_json({**_public(record), "key": text, "replaces": _public(old), "broadcast": told})
    else:
        _print_new(text, record)
        until = "it has run out" if old.expires_at_s is None else f"it serves until {moment(old.expires_at_s)} UTC"
        print(f"It takes the place of {old.id}: {until}; {how_told(told)}")
    return 0


def revoke_key(arguments: argparse.Namespace) -> int:
    """Be `keys revoke`."""
    settings = _settings(arguments)
    tenant = _tenant(arguments, settings)

    async def revoke() -> tuple[KeyRecord, bool]:
        async with open_desk(settings) as desk:
            found = await desk.stores.keys.get(tenant, arguments.id)
            revoked = None if found is None else await desk.administration.revoke_key(ACTOR, found)
            if revoked is None:
                raise _missing(tenant, arguments.id)
            return revoked, await broadcast(settings, desk.told)

    record, told = asyncio.run(revoke())
    if arguments.json:
        print_json({**_public(record), "broadcast": told})
    else:
        print(f"key {record.id} is revoked; {how_told(told)}")
    return 0


def _missing(tenant: str, key: str) -> Failed:
    return Failed(f"tenant {tenant} has no key {key}")


def _print_new(text: str, record: KeyRecord) -> None:
    print(text)
    print(f"This is key {record.id} of tenant {record.tenant}. It is shown only now: nobody keeps its text.")


def _settings(arguments: argparse.Namespace) -> KeysSettings:
    return load_settings(KeysSettings, folder_of(arguments), os.environ)


def _tenant(arguments: argparse.Namespace, settings: KeysSettings) -> str:
    return tenant_of(arguments.tenant, settings, folder_of(arguments))


def _find_unknown(settings: KeysSettings, models: Sequence[str], agent: str | None) -> list[str]:
    """Say what the catalog lacks of what a key names; nothing is said where no catalog can be read."""
    try:
        catalog = catalog_file.read(settings.catalog)
    except CatalogError:
        return []
    offered = {name for name, _ in catalog.offered()}
    unknown = [f"model {each!r}" for each in models if each not in offered]
    if agent is not None and agent not in catalog.agents:
        unknown.append(f"agent {agent!r}")
    return [f"the catalog {settings.catalog} has no {each}" for each in unknown]


def _public(record: KeyRecord) -> dict[str, Any]:
    content: dict[str, Any] = msgspec.to_builtins(record)
    del content["digest"]
    return {**content, "state": state_of(record, time.time())}


def _print_table(records: list[KeyRecord]) -> None:
    rows = [
        (
            record.id,
            state_of(record, time.time()),
            ",".join(record.scopes),
            record.default_agent or "-",
            "all" if record.models is None else ",".join(record.models),
            shown(record.limits),
            record.priority or "-",
            moment(record.created_at_s),
            "never" if record.expires_at_s is None else moment(record.expires_at_s),
            record.name,
        )
        for record in records
    ]
    header = ("ID", "STATE", "SCOPES", "AGENT", "MODELS", "LIMITS", "PRIORITY", "CREATED", "EXPIRES", "NAME")
    print(lay_out(header, rows))
