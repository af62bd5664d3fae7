"""`kitemesh conversation`: print a stored conversation as JSON."""

import argparse
import asyncio
import os
from typing import Any, Final

import msgspec

from kitemesh_cli.arguments import add_data, folder_of, identifier
from kitemesh_cli.connections import open_cli_stores
from kitemesh_cli.failures import Failed
from kitemesh_cli.output import tame
from kitemesh_cli.settings import KeysSettings, load_settings, tenant_of
from kitemesh_runtime.settings import Settings

DESCRIPTION = """\
Print a conversation and its newest 100 turns, oldest first, as MongoDB holds them. The id is in every answer: in the
header x-conversation-id, and in the body as kitemesh.conversation_id.
"""

_TURNS: Final = 100


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb."""
    parser = verbs.add_parser(
        "conversation",
        help="print a stored conversation as JSON",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("conversation", type=identifier, metavar="ID", help="the conversation's id")
    parser.add_argument(
        "--tenant",
        type=identifier,
        metavar="T",
        help="whose it is; the anonymous tenant when left out (KITEMESH_ANONYMOUS_TENANT)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, as it always does")
    add_data(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Be the verb."""
    folder = folder_of(arguments)
    settings = load_settings(KeysSettings, folder, os.environ)
    tenant = tenant_of(arguments.tenant, settings, folder)
    found = asyncio.run(_read(settings, tenant, arguments.conversation))
    if found is None:
        raise Failed(f"tenant {tenant} has no conversation {arguments.conversation}")
    print(tame(msgspec.json.format(msgspec.json.encode(found), indent=2).decode()))
    return 0


async def _read(settings: Settings, tenant: str, conversation: str) -> dict[str, Any] | None:
    async with open_cli_stores(settings) as stores:
        found = await stores.conversations.get(tenant, conversation)
        if found is None:
            return None
        content: dict[str, Any] = msgspec.to_builtins(found)
        content["waiting"] = [entry.turn for entry in found.waiting]
        content["turns"] = await stores.turns.recent(tenant, conversation, limit=_TURNS)
        return content
