"""`kitemesh bootstrap`: make NATS and MongoDB agree with what the cluster needs. Nothing else ever creates a stream."""

import argparse
import asyncio
import os

from kitemesh_cli.arguments import add_data, folder_of
from kitemesh_cli.connections import open_cli_bus, open_cli_database
from kitemesh_cli.settings import BootstrapSettings, load_settings
from kitemesh_contracts.topology import topology
from kitemesh_runtime import catalog_file
from kitemesh_runtime.catalog import Catalog
from kitemesh_runtime.indexes_mongo import Retention, ensure_indexes
from kitemesh_runtime.moves_mongo import move_conversations
from kitemesh_runtime.topology_nats import apply

DESCRIPTION = """\
Create the streams, consumers and indexes that the cluster needs, and change what may be changed in place.

Run it before the first start and after every change of the catalog's pools or of a release; running it again changes
nothing. What differs in a way that cannot be changed in place is refused (exit 1) and left alone.
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
    add_data(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Be the verb."""
    environ = dict(os.environ)
    if arguments.replicas is not None:
        environ["KITEMESH_REPLICAS"] = str(arguments.replicas)
    settings = load_settings(BootstrapSettings, folder_of(arguments), environ)
    catalog = catalog_file.read(settings.catalog)
    changes = asyncio.run(bootstrap(settings, catalog))
    for change in changes:
        print(change)
    print(f"{len(changes)} changes made" if changes else "everything is as it should be")
    return 0


async def bootstrap(settings: BootstrapSettings, catalog: Catalog) -> list[str]:
    """Make the servers agree with the catalog and return what was done, one line each.

    Raises:
        Conflict: A stream, consumer or index differs in a way that only an operator may resolve.
        Unavailable: A server does not answer.

    """
    streams = topology(catalog.model_pools(), catalog.tool_pools(), turn_queue_max=settings.turn_queue_max)
    retention = Retention(turns_days=settings.retention_days, conversations_days=settings.retention_days)
    async with open_cli_bus(settings) as bus:
        changes = await apply(bus, streams, replicas=settings.replicas)
    async with open_cli_database(settings) as database:
        moved = await move_conversations(database)
        moves = [f"moved {moved} conversations to names of this release"] if moved else []
        return [*changes, *moves, *await ensure_indexes(database, retention)]
