"""Gathers everything that `kitemesh doctor` judges, all at once, each part within its own time."""

import asyncio
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Final

import aiohttp
import msgspec
from msgspec import Struct

from kitemesh_cli.data_folder import DataFolder
from kitemesh_cli.dev_lock import holder
from kitemesh_cli.doctor_access import find_variables, look_at_access
from kitemesh_cli.doctor_facts import AccessFacts, CatalogFacts, Facts, GatewayFacts
from kitemesh_cli.doctor_probe_bus import look_at_bus
from kitemesh_cli.doctor_store_mongo import look_at_store
from kitemesh_cli.gateway_client import Place, find_gateway, read_most, why_unreachable
from kitemesh_cli.settings import BootstrapSettings, KeysSettings, load_settings
from kitemesh_contracts.permissions import ServiceName
from kitemesh_contracts.topology import StreamSpec, topology
from kitemesh_runtime import catalog_file
from kitemesh_runtime.catalog import Catalog, CatalogError
from kitemesh_runtime.one_line import one_line

LISTEN_S: Final = 4.5
"""Two signs of life of each replica."""
GATEWAY_S: Final = 3.0
_SAID_CHARS: Final = 200
_MOST_BYTES: Final = 65_536


class _Told(Struct, frozen=True, kw_only=True):
    message: str = ""


class _Error(Struct, frozen=True, kw_only=True):
    error: _Told


_ERROR: Final = msgspec.json.Decoder(_Error)


async def gather_facts(
    folder: DataFolder, access: Path | None, environ: Mapping[str, str], *, listen_s: float = LISTEN_S
) -> Facts:
    """Look at everything.

    Args:
        folder: The data folder; while a cluster runs there, its servers are looked at.
        access: Where `kitemesh bootstrap --access` wrote; `None` for what the data folder has.
        environ: The environment.
        listen_s: For how long signs of life are listened to.

    Raises:
        SettingsError: With every problem found.
        Failed: `access` does not hold what it should.

    """
    settings = load_settings(BootstrapSettings, folder, environ)
    pepper = load_settings(KeysSettings, folder, environ).key_pepper.get_secret_value()
    place = find_gateway(folder, environ)
    catalog, facts = _read(settings.catalog)
    wanted = _wanted(catalog, settings)
    running = holder(folder.lock) is not None
    variables = find_variables(access, folder) if access is not None or running else None
    (bus, fleet), store, gateway, services = await asyncio.gather(
        look_at_bus(settings, wanted, listen_s=listen_s),
        look_at_store(settings),
        look_at_gateway(place),
        _access(settings, variables, wanted),
    )
    return Facts(
        release=version("kitemesh-cli"),
        wanted=wanted,
        replicas=settings.replicas if "replicas" in settings.model_fields_set else None,
        turn_queue_max=settings.turn_queue_max if "turn_queue_max" in settings.model_fields_set else None,
        out_max_bytes=settings.out_max_bytes if "out_max_bytes" in settings.model_fields_set else None,
        bus=bus,
        store=store,
        fleet=fleet,
        gateway=gateway,
        catalog=facts,
        pepper_characters=len(pepper),
        access=services,
        disk_free_ratio=_disk_free_ratio(folder.root) if running else None,
    )


async def look_at_gateway(place: Place) -> GatewayFacts:
    """Ask what any client asks first."""
    headers = {"Authorization": f"Bearer {place.key}"} if place.key else {}
    timeout = aiohttp.ClientTimeout(total=GATEWAY_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
            session.get(f"{place.url}/v1/models", allow_redirects=False) as answer,
        ):
            # Of an answer that is none, its words; of a list of models, however long, nothing is told.
            said = await read_most(answer, _MOST_BYTES)
            return GatewayFacts(url=place.address, status=answer.status, why=one_line(_message(said))[:_SAID_CHARS])
    except TimeoutError:
        return GatewayFacts(url=place.address, why=f"nothing came within {GATEWAY_S:.0f} s")
    except (aiohttp.ClientError, OSError, ValueError) as exc:
        return GatewayFacts(url=place.address, why=why_unreachable(exc) or "what answers there speaks no HTTP")


def _message(said: str) -> str:
    """Return an error's own words; the answer itself where it is of another kind."""
    try:
        return _ERROR.decode(said).error.message or said
    except (msgspec.DecodeError, RecursionError):
        return said


async def _access(
    settings: BootstrapSettings,
    variables: Mapping[ServiceName, Mapping[str, str]] | None,
    wanted: tuple[StreamSpec, ...],
) -> list[AccessFacts] | None:
    return None if variables is None else await look_at_access(settings, variables, wanted)


def _read(path: Path) -> tuple[Catalog | None, CatalogFacts]:
    try:
        catalog = catalog_file.read(path)
    except CatalogError as exc:
        return None, CatalogFacts(path=str(path), problems=exc.problems)
    tools = [pool.name for pool in catalog.tool_pools()] if catalog.tools else []
    models = [pool.name for pool in catalog.model_pools()]
    return catalog, CatalogFacts(path=str(path), model_pools=models, tool_pools=tools)


def _wanted(catalog: Catalog | None, settings: BootstrapSettings) -> tuple[StreamSpec, ...]:
    pools = ((), ()) if catalog is None else (catalog.model_pools(), catalog.tool_pools())
    return topology(*pools, turn_queue_max=settings.turn_queue_max, out_max_bytes=settings.out_max_bytes)


def _disk_free_ratio(root: Path) -> float | None:
    try:
        usage = shutil.disk_usage(root)
    except OSError:
        return None
    return usage.free / usage.total
