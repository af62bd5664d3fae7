"""`kitemesh tenants list | show | set | remove`: what each tenant may do."""

import argparse
import asyncio
import os
from typing import Any, Final, cast, get_args

import msgspec
from msgspec.structs import replace

from kitemesh_cli.administering import ACTOR, broadcast, how_told, open_desk
from kitemesh_cli.arguments import add_data, folder_of, identifier
from kitemesh_cli.failures import Failed
from kitemesh_cli.limits import NONE, add_limits, limits_of, shown
from kitemesh_cli.output import add_json, print_json
from kitemesh_cli.settings import KeysSettings, load_settings
from kitemesh_cli.tables import lay_out, moment
from kitemesh_contracts.topology import PRIORITIES
from kitemesh_runtime.administration import tenant_of, token_of
from kitemesh_runtime.one_line import one_line
from kitemesh_runtime.tenancy import DEFAULT_DAYS, DEFAULT_NAME, DEFAULT_TENANT, Kind, TenantRecord, merge

PAGE: Final = 500
DAYS_MAX: Final = 36_500
DESCRIPTION = "List, show, set and take back what tenants may do."
SETTING = f"""\
Say what a tenant may do; what is not named stays as it is. Where nothing is said of a tenant, what is said of
`{DEFAULT_NAME}` holds. Its keys can be bounded further.

examples:
  kitemesh tenants set acme --limit-requests 600 --limit-tokens 1000000 --limit-turns 50
  kitemesh tenants set {DEFAULT_NAME} --key-limit-requests 60 --retention turns=30
  kitemesh tenants set acme --priority batch --model group:123e4567-e89b-12d3-a456-426614174000
"""


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verbs."""
    parser = verbs.add_parser("tenants", help="say what tenants may do", description=DESCRIPTION)
    what = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    listing = what.add_parser("list", help="list tenants", description="List tenants of which something is said.")
    listing.set_defaults(run=list_tenants)
    show = what.add_parser("show", help="show what holds for a tenant", description="Show what holds for a tenant.")
    show.set_defaults(run=show_tenant)
    setting = what.add_parser(
        "set",
        help="say what a tenant may do",
        description=SETTING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_limits(setting, "limit", "the whole tenant")
    add_limits(setting, "key-limit", "each of its keys that has none of its own")
    setting.add_argument(
        "--default-agent",
        type=_identifier_or_none,
        metavar="A",
        help=f"agent that answers where neither request nor key names one, or `{NONE}`",
    )
    setting.add_argument(
        "--model",
        action="append",
        dest="models",
        metavar="M",
        help=f"model id, agent:ID or group:UUID that its keys may use at most; repeatable; `{NONE}` allows all",
    )
    setting.add_argument(
        "--priority", choices=(*PRIORITIES, NONE), help="of its turns, where neither request nor key says one"
    )
    setting.add_argument(
        "--retention",
        action="append",
        type=_retention,
        default=[],
        metavar="KIND=DAYS",
        help=f"how long what there is of a kind is kept: {', '.join(DEFAULT_DAYS)}; repeatable; `{NONE}` for days",
    )
    setting.set_defaults(run=set_tenant)
    remove = what.add_parser(
        "remove",
        help="take back what is said of a tenant",
        description="Take back what is said of a tenant; its keys and conversations stay.",
    )
    remove.set_defaults(run=remove_tenant)
    for each in (show, setting, remove):
        each.add_argument("tenant", type=identifier, metavar="TENANT", help=f"its name, or {DEFAULT_NAME}")
    for each in (listing, show, setting, remove):
        add_json(each)
        add_data(each)


def list_tenants(arguments: argparse.Namespace) -> int:
    """Be `tenants list`."""
    settings = _settings(arguments)

    async def read() -> list[TenantRecord]:
        async with open_desk(settings) as desk:
            records: list[TenantRecord] = []
            while True:
                page = await desk.stores.tenants.page(after=records[-1].id if records else "", limit=PAGE)
                records += page
                if len(page) < PAGE:
                    return records

    records = asyncio.run(read())
    if arguments.json:
        print_json([_public(record) for record in records])
    elif not records:
        print("nothing is said of any tenant: each may do what it likes")
    else:
        print(lay_out(("TENANT", "LIMITS", "EACH KEY", "AGENT", "MODELS", "PRIORITY", "SAID"), map(_row, records)))
    return 0


def show_tenant(arguments: argparse.Namespace) -> int:
    """Be `tenants show`."""
    settings = _settings(arguments)
    tenant = tenant_of(arguments.tenant)

    async def read() -> tuple[TenantRecord | None, TenantRecord | None]:
        async with open_desk(settings) as desk:
            return await desk.stores.tenants.get(tenant), await desk.stores.tenants.get(DEFAULT_TENANT)

    said, default = asyncio.run(read())
    own = said or TenantRecord(id=tenant)
    effective = merge(own, default or TenantRecord(id=DEFAULT_TENANT))
    if arguments.json:
        print_json({**_public(own), "effective": _public(effective)})
    else:
        for name, value in _lines(effective):
            print(f"{name:<16}{one_line(value)}")
    return 0


def set_tenant(arguments: argparse.Namespace) -> int:
    """Be `tenants set`."""
    settings = _settings(arguments)
    tenant = tenant_of(arguments.tenant)

    async def store() -> tuple[TenantRecord, bool]:
        async with open_desk(settings) as desk:
            said = await desk.stores.tenants.get(tenant) or TenantRecord(id=tenant)
            stored = await desk.administration.put_tenant(ACTOR, _changed(said, arguments))
            return stored, await broadcast(settings, desk.told)

    record, told = asyncio.run(store())
    if arguments.json:
        print_json({**_public(record), "broadcast": told})
    else:
        print(f"tenant {token_of(record.id)} is set; {how_told(told)}")
    return 0


def remove_tenant(arguments: argparse.Namespace) -> int:
    """Be `tenants remove`."""
    settings = _settings(arguments)
    tenant = tenant_of(arguments.tenant)

    async def remove() -> bool:
        async with open_desk(settings) as desk:
            if not await desk.administration.remove_tenant(ACTOR, tenant):
                raise Failed(f"nothing is said of tenant {arguments.tenant}")
            return await broadcast(settings, desk.told)

    told = asyncio.run(remove())
    if arguments.json:
        print_json({"id": arguments.tenant, "deleted": True, "broadcast": told})
    else:
        print(f"nothing is said of tenant {arguments.tenant} any more; {how_told(told)}")
    return 0


def _changed(said: TenantRecord, arguments: argparse.Namespace) -> TenantRecord:
    fields: dict[str, Any] = {
        "limits": limits_of(arguments, "limit", said.limits),
        "key_limits": limits_of(arguments, "key-limit", said.key_limits),
    }
    if arguments.default_agent is not None:
        fields["default_agent"] = None if arguments.default_agent == NONE else arguments.default_agent
    if arguments.models is not None:
        fields["models"] = None if arguments.models == [NONE] else tuple(arguments.models)
    if arguments.priority is not None:
        fields["priority"] = None if arguments.priority == NONE else arguments.priority
    kept = {**said.retention_days, **dict(arguments.retention)}
    fields["retention_days"] = {kind: days for kind, days in kept.items() if days}
    return replace(said, **fields)


def _identifier_or_none(text: str) -> str:
    return text if text == NONE else identifier(text)


def _retention(text: str) -> tuple[Kind, int]:
    kind, _, days = text.partition("=")
    if kind not in get_args(Kind):
        raise argparse.ArgumentTypeError(f"{text!r} does not begin with one of {', '.join(get_args(Kind))}")
    if days == NONE:
        return cast("Kind", kind), 0
    if not (days.isascii() and days.isdigit() and 1 <= int(days) <= DAYS_MAX):
        raise argparse.ArgumentTypeError(f"{text!r} does not end with a number of days from 1 to {DAYS_MAX}")
    return cast("Kind", kind), int(days)


def _settings(arguments: argparse.Namespace) -> KeysSettings:
    return load_settings(KeysSettings, folder_of(arguments), os.environ)


def _public(record: TenantRecord) -> dict[str, Any]:
    content: dict[str, Any] = msgspec.to_builtins(record)
    return {**content, "id": token_of(record.id)}


def _row(record: TenantRecord) -> tuple[str, ...]:
    return (
        token_of(record.id),
        shown(record.limits),
        shown(record.key_limits),
        record.default_agent or "-",
        "all" if record.models is None else ",".join(record.models),
        record.priority or "-",
        moment(record.updated_at_s),
    )


def _lines(effective: TenantRecord) -> tuple[tuple[str, str], ...]:
    days = {**DEFAULT_DAYS, **effective.retention_days}
    return (
        ("tenant", token_of(effective.id)),
        ("limits", shown(effective.limits)),
        ("each key", shown(effective.key_limits)),
        ("default agent", effective.default_agent or "-"),
        ("models", "all" if effective.models is None else ", ".join(effective.models)),
        ("priority", effective.priority or PRIORITIES[0]),
        ("retention days", ", ".join(f"{kind} {days[kind]}" for kind in days)),
    )
