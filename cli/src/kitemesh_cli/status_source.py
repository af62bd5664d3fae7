"""Where `kitemesh status` has it from: a gateway or, where none answers, the bus and what replicas say there."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from kitemesh_cli.connections import open_cli_bus
from kitemesh_cli.data_folder import DataFolder
from kitemesh_cli.failures import Failed
from kitemesh_cli.gateway_client import ask, find_gateway
from kitemesh_cli.settings import BootstrapSettings, load_settings
from kitemesh_contracts.errors import KitemeshError
from kitemesh_contracts.topology import Pool
from kitemesh_gateway.dialects.cluster_answers import queues_out, services_out
from kitemesh_runtime import catalog_file
from kitemesh_runtime.catalog import CatalogError
from kitemesh_runtime.clock import SystemClock
from kitemesh_runtime.cluster_view import queue_names, queue_views
from kitemesh_runtime.fleet import SILENCE_S, Fleet

GATEWAY_S: Final = 6.0
"""A gateway whose stores hang says so within five seconds; one that hangs itself is not waited for."""
LISTEN_S: Final = 2.5
"""Every replica speaks every two seconds."""


def read_cluster(folder: DataFolder, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return what `GET /v1/cluster` says, or as much of it as the bus tells; `source` names which, `why` why not.

    Raises:
        SettingsError: With every problem found.
        Failed: Neither answers.

    """
    place = find_gateway(folder, environ)
    try:
        return {"source": "gateway", "why": "", **ask(place, "GET", "/v1/cluster", timeout_s=GATEWAY_S)}
    except Failed as exc:
        why = str(exc)
    settings = load_settings(BootstrapSettings, folder, environ)
    try:
        return {"source": "bus", "why": why, **asyncio.run(_listen(settings))}
    except Failed as exc:
        raise Failed(f"{why}; and {exc}") from exc
    except KitemeshError as exc:
        raise Failed(f"{why}; and {exc.message}") from exc


async def _listen(settings: BootstrapSettings) -> dict[str, Any]:
    """Hear everybody once. What only a gateway can tell is absent."""
    fleet = Fleet(SystemClock())
    async with open_cli_bus(settings) as bus:
        await fleet.listen(bus)
        await asyncio.sleep(LISTEN_S)
    seen = fleet.seen()
    alive = [each for each in seen if each.silent_s <= SILENCE_S]
    names = queue_names(*_pools(settings))
    queues = queue_views(names, fleet.backlogs(), alive)
    told = {"services": services_out(seen), "queues": queues_out(queues)}
    content: dict[str, Any] = msgspec.to_builtins(told)
    up = {"up": True, "since_s": LISTEN_S, "reason": ""}
    return {**content, "dependencies": {"nats": up}}


def _pools(settings: BootstrapSettings) -> tuple[tuple[Pool, ...], tuple[Pool, ...]]:
    try:
        catalog = catalog_file.read(settings.catalog)
    except CatalogError:
        # The queues that somebody takes from are told all the same.
        return (), ()
    return catalog.model_pools(), catalog.tool_pools()
