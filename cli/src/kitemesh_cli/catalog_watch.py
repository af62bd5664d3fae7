"""Tells the person before the terminal what becomes of an edited catalog; the services read it for themselves."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kitemesh_cli.data_folder import read_environment
from kitemesh_contracts.errors import Unavailable
from kitemesh_runtime.bus_nats import open_bus
from kitemesh_runtime.catalog import Catalog, CatalogError
from kitemesh_runtime.catalog_file import POLL_S, Objection, WatchedFile, read
from kitemesh_runtime.one_line import one_line
from kitemesh_runtime.pool_queues_nats import find_missing

CONNECT_S: Final = 3.0


def objection_of(environment: Path) -> Objection:
    """Return what finds pools without queues at the NATS that an `env` file names."""

    async def object_to(catalog: Catalog) -> list[str]:
        url = read_environment(environment)["KITEMESH_NATS_URL"]
        async with open_bus(url, name="kitemesh-dev", connect_timeout_s=CONNECT_S) as bus:
            return await find_missing(bus, catalog)

    return object_to


async def tell_changes(file: WatchedFile, say: Callable[[str], None], objection: Objection) -> None:
    """Look for changes for ever, and say whether each new catalog can serve."""
    told, again = "", False
    while True:
        await asyncio.sleep(POLL_S)
        changed = file.has_changed()
        if changed:
            await file.settle()
        if changed or again:
            before, (told, again) = told, await judge(file.path, objection)
            if changed or told != before:
                say(told)


async def judge(path: Path, objection: Objection) -> tuple[str, bool]:
    """Say what the services make of a catalog file, and whether that may change although the file does not."""
    try:
        catalog = read(path)
    except CatalogError as exc:
        return _refused(exc.sentences()), False
    try:
        problems = await objection(catalog)
    except Unavailable as exc:
        return f"catalog not loaded yet: {exc.message}", True
    if problems:
        return _refused(CatalogError(problems, str(path)).sentences()), True
    counts = {
        "model": len(catalog.models),
        "agent": len(catalog.agents),
        "group": len(catalog.groups),
        "tool": len(catalog.tools),
    }
    return "catalog loaded: " + ", ".join(f"{n} {name}{'' if n == 1 else 's'}" for name, n in counts.items()), False


def _refused(sentences: list[str]) -> str:
    return "\n".join(["catalog refused, the old one serves on:", *(f"    {one_line(each)}" for each in sentences)])
