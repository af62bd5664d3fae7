"""`kitemesh keys create | list | revoke`: API keys of a tenant."""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from kitemesh_cli.arguments import add_data, folder_of, identifier, lifetime_s
from kitemesh_cli.connections import open_cli_bus, open_cli_stores
from kitemesh_cli.failures import Failed
from kitemesh_cli.issuing import issue, state_of
from kitemesh_cli.settings import KeysSettings, load_settings, tenant_of
from kitemesh_cli.tables import lay_out, moment
from kitemesh_contracts import subjects
from kitemesh_contracts.errors import Unavailable
from kitemesh_contracts.scopes import Scope
from kitemesh_runtime import catalog_file
from kitemesh_runtime.catalog import CatalogError
from kitemesh_runtime.stores import KeyRecord

CACHE_S: Final = 5
"""How long a gateway may go on trusting a key that it has seen, when no broadcast reaches it."""

DESCRIPTION = "Make, list and revoke the API keys of a tenant. What is stored of a key cannot be turned back into it."


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verbs."""
    parser = verbs.add_parser("keys", help="make, list and revoke API keys", description=DESCRIPTION)
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
    create.set_defaults(run=create_key)
    listing = what.add_parser("list", help="list a tenant's keys", description="List a tenant's keys, newest first.")
    listing.set_defaults(run=list_keys)
    revoke = what.add_parser(
        "revoke", help="revoke a key for good", description="Revoke a key for good; every gateway is told at once."
    )
    revoke.add_argument("id", type=identifier, metavar="ID", help="the key's id, as `keys list` shows it")
    revoke.set_defaults(run=revoke_key)
    for each in (create, listing, revoke):
        each.add_argument(
            "--tenant",
            type=identifier,
            metavar="T",
            help="whose keys; the anonymous tenant's when left out (KITEMESH_ANONYMOUS_TENANT)",
        )
        each.add_argument("--json", action="store_true", help="print JSON")
        add_data(each)


def create_key(arguments: argparse.Namespace) -> int:
    """Be `keys create`."""
    settings = _settings(arguments)
    pepper = settings.key_pepper.get_secret_value().encode()
    if not pepper:
        raise Failed("KITEMESH_KEY_PEPPER is not set; it must be the gateways', or they will not know the key")
    tenant = _tenant(arguments, settings)
    for warning in _find_unknown(settings, arguments.models or [], arguments.default_agent):
        sys.stderr.write(f"kitemesh: warning: {warning}\n")

    async def make() -> tuple[str, KeyRecord]:
        async with open_cli_stores(settings) as stores:
            return await issue(
                stores.keys,
                pepper,
                tenant=tenant,
                scopes=tuple(dict.fromkeys(arguments.scopes or [Scope.CHAT])),
                name=arguments.name,
                default_agent=arguments.default_agent,
                models=arguments.models,
                lifetime_s=arguments.expires_in,
            )

    text, record = asyncio.run(make())
    if arguments.json:
        _print_json({**_public(record), "key": text})
    else:
        print(text)
        print(f"This is key {record.id} of tenant {record.tenant}. It is shown only now: nobody keeps its text.")
    return 0


def list_keys(arguments: argparse.Namespace) -> int:
    """Be `keys list`."""
    settings = _settings(arguments)
    tenant = _tenant(arguments, settings)

    async def read() -> list[KeyRecord]:
        async with open_cli_stores(settings) as stores:
            return await stores.keys.list(tenant)

    records = asyncio.run(read())
    if arguments.json:
        _print_json([_public(record) for record in records])
    elif not records:
        print(f"tenant {tenant} has no keys")
    else:
        _print_table(records)
    return 0


def revoke_key(arguments: argparse.Namespace) -> int:
    """Be `keys revoke`."""
    settings = _settings(arguments)
    tenant = _tenant(arguments, settings)

    async def revoke() -> tuple[KeyRecord | None, bool]:
        async with open_cli_stores(settings) as stores:
            record = await stores.keys.revoke(tenant, arguments.id)
        return record, record is not None and await _broadcast(settings, record.id)

    record, told = asyncio.run(revoke())
    if record is None:
        raise Failed(f"tenant {tenant} has no key {arguments.id}")
    if arguments.json:
        _print_json({**_public(record), "broadcast": told})
    else:
        how = "every gateway has been told" if told else f"NATS does not answer; gateways learn it within {CACHE_S} s"
        print(f"key {record.id} is revoked; {how}")
    return 0


async def _broadcast(settings: KeysSettings, key: str) -> bool:
    try:
        async with open_cli_bus(settings) as bus:
            bus.publish(subjects.key_changed(key), b"")
            await bus.barrier()
    except (Failed, Unavailable):
        # The store has the truth and caches are short; the broadcast only makes it prompt.
        return False
    return True


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


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def _print_table(records: list[KeyRecord]) -> None:
    rows = [
        (
            record.id,
            state_of(record, time.time()),
            ",".join(record.scopes),
            record.default_agent or "-",
            "all" if record.models is None else ",".join(record.models),
            moment(record.created_at_s),
            "never" if record.expires_at_s is None else moment(record.expires_at_s),
            record.name,
        )
        for record in records
    ]
    print(lay_out(("ID", "STATE", "SCOPES", "AGENT", "MODELS", "CREATED", "EXPIRES", "NAME"), rows))
