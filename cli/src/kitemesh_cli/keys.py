"""`kitemesh keys create | list | revoke`: API keys of a tenant."""

import argparse
import asyncio
import json
import os
import time
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from kitemesh_cli.arguments import add_data, folder_of, identifier, lifetime_s
from kitemesh_cli.connections import open_cli_bus, open_cli_stores
from kitemesh_cli.failures import Failed
from kitemesh_cli.issuing import issue, state_of
from kitemesh_cli.settings import KeysSettings, load_settings
from kitemesh_contracts import subjects
from kitemesh_contracts.errors import Unavailable
from kitemesh_contracts.scopes import Scope
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
        help="model id, agent:ID or group:UUID that it may use; repeatable (default: all)",
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
        each.add_argument("--tenant", type=identifier, required=True, metavar="T", help="whose keys")
        each.add_argument("--json", action="store_true", help="print JSON")
        add_data(each)


def create_key(arguments: argparse.Namespace) -> int:
    """Be `keys create`."""
    settings = _settings(arguments)
    pepper = settings.key_pepper.get_secret_value().encode()
    if not pepper:
        raise Failed("KITEMESH_KEY_PEPPER is not set; it must be the gateways', or they will not know the key")

    async def make() -> tuple[str, KeyRecord]:
        async with open_cli_stores(settings) as stores:
            return await issue(
                stores.keys,
                pepper,
                tenant=arguments.tenant,
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

    async def read() -> list[KeyRecord]:
        async with open_cli_stores(settings) as stores:
            return await stores.keys.list(arguments.tenant)

    records = asyncio.run(read())
    if arguments.json:
        _print_json([_public(record) for record in records])
    elif not records:
        print(f"tenant {arguments.tenant} has no keys")
    else:
        _print_table(records)
    return 0


def revoke_key(arguments: argparse.Namespace) -> int:
    """Be `keys revoke`."""
    settings = _settings(arguments)

    async def revoke() -> tuple[KeyRecord | None, bool]:
        async with open_cli_stores(settings) as stores:
            record = await stores.keys.revoke(arguments.tenant, arguments.id)
        return record, record is not None and await _broadcast(settings, record.id)

    record, told = asyncio.run(revoke())
    if record is None:
        raise Failed(f"tenant {arguments.tenant} has no key {arguments.id}")
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


def _public(record: KeyRecord) -> dict[str, Any]:
    content: dict[str, Any] = msgspec.to_builtins(record)
    del content["digest"]
    return {**content, "state": state_of(record, time.time())}


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def _print_table(records: list[KeyRecord]) -> None:
    rows = [("ID", "STATE", "SCOPES", "AGENT", "MODELS", "CREATED", "EXPIRES", "NAME")]
    rows += [
        (
            record.id,
            state_of(record, time.time()),
            ",".join(record.scopes),
            record.default_agent or "-",
            "all" if record.models is None else ",".join(record.models),
            _day(record.created_at_s),
            _day(record.expires_at_s),
            record.name,
        )
        for record in records
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _day(epoch_s: float | None) -> str:
    return "never" if epoch_s is None else datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%d %H:%M")
