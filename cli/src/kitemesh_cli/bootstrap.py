"""`kitemesh bootstrap`: make NATS and MongoDB agree with what the cluster needs. Nothing else ever creates a stream."""

import argparse
import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

from kitemesh_cli.access_files import NATS_USERS, write_access
from kitemesh_cli.arguments import add_data, folder_of
from kitemesh_cli.connections import open_cli_bus, open_cli_database
from kitemesh_cli.failures import Failed
from kitemesh_cli.output import add_json, print_json
from kitemesh_cli.retention import ensure_retention
from kitemesh_cli.settings import BootstrapSettings, load_settings
from kitemesh_contracts.permissions import SERVICES, ServiceName
from kitemesh_contracts.topology import topology
from kitemesh_runtime import catalog_file
from kitemesh_runtime.access_mongo import ensure_access
from kitemesh_runtime.catalog import Catalog
from kitemesh_runtime.indexes_mongo import ensure_indexes
from kitemesh_runtime.moves_mongo import move_conversations
from kitemesh_runtime.topology_nats import apply

DESCRIPTION = """\
Create the streams, consumers and indexes that the cluster needs, and change what may be changed in place.

Run it before the first start and after every change of the catalog's pools or of a release; running it again changes
nothing. What differs in a way that cannot be changed in place is refused (exit 1) and left alone.

With --access DIR each service gets a user of its own that may do only what the service needs: DIR keeps passwords,
nats-users.conf for nats-server to include, and variables for each service; MongoDB's users and roles are made. Run it
so before every release, reload nats-server, and then start the services with their own variables.
"""


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb."""
    parser = verbs.add_parser(
        "bootstrap",
        help="create or update streams, consumers and indexes",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--replicas", type=int, metavar="N", help="copies of each stream (KITEMESH_REPLICAS; 1 on one machine, else 3)"
    )
    parser.add_argument("--access", type=Path, metavar="DIR", help="give each service a user of its own; see above")
    parser.add_argument(
        "--files-only", action="store_true", help="with --access: write the files, for servers that do not run yet"
    )
    add_json(parser)
    add_data(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Be the verb."""
    environ = dict(os.environ)
    if arguments.replicas is not None:
        environ["KITEMESH_REPLICAS"] = str(arguments.replicas)
    settings = load_settings(BootstrapSettings, folder_of(arguments), environ)
    if arguments.files_only and arguments.access is None:
        raise Failed("--files-only says which files with --access DIR")
    written: list[str] = []
    passwords: Mapping[ServiceName, str] | None = None
    if arguments.access is not None:
        access, written = write_access(arguments.access, settings)
        passwords = {service: access.mongo[service] for service in SERVICES}
    must_reload = any(line.endswith(NATS_USERS) for line in written)
    if not arguments.json:
        for line in written:
            print(line)
        if must_reload:
            print("include it in nats-server's configuration, and reload the server")
    made = [] if arguments.files_only else _on_servers(settings, passwords)
    changes = [*written, *made]
    if arguments.json:
        print_json({"changes": changes, "reload_nats": must_reload})
        return 0
    for change in made:
        print(change)
    print(f"{len(changes)} changes made" if changes else "everything is as it should be")
    return 0


def _on_servers(settings: BootstrapSettings, passwords: Mapping[ServiceName, str] | None) -> list[str]:
    catalog = catalog_file.read(settings.catalog)
    return asyncio.run(bootstrap(settings, catalog, passwords))


async def bootstrap(
    settings: BootstrapSettings, catalog: Catalog, passwords: Mapping[ServiceName, str] | None = None
) -> list[str]:
    """Make the servers agree with the catalog and return what was done, one line each.

    Args:
        settings: Where they are.
        catalog: Says which pools there are.
        passwords: Of the services in MongoDB, if they are to have users of their own there.

    Raises:
        Conflict: A stream, consumer or index differs in a way that only an operator may resolve.
        Unavailable: A server does not answer.

    """
    streams = topology(
        catalog.model_pools(),
        catalog.tool_pools(),
        turn_queue_max=settings.turn_queue_max,
        out_max_bytes=settings.out_max_bytes,
    )
    async with open_cli_bus(settings) as bus:
        changes = await apply(bus, streams, replicas=settings.replicas)
    async with open_cli_database(settings) as database:
        moved = await move_conversations(database)
        moves = [f"moved {moved} conversations to names of this release"] if moved else []
        moves += await ensure_retention(settings, database)
        granted = [] if passwords is None else await ensure_access(database, passwords)
        return [*changes, *moves, *await ensure_indexes(database), *granted]
