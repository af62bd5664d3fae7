"""Tells the person before the terminal what becomes of an edited catalog; the services read it for themselves."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from kitemesh_runtime.catalog import CatalogError
from kitemesh_runtime.catalog_file import POLL_S, WatchedFile, read


async def tell_changes(file: WatchedFile, say: Callable[[str], None]) -> None:
    """Look for changes for ever, and say whether each new catalog can serve."""
    while True:
        await asyncio.sleep(POLL_S)
        if file.has_changed():
            say(judge(file.path))


def judge(path: Path) -> str:
    """Say what the services make of a catalog file."""
    try:
        catalog = read(path)
    except CatalogError as exc:
        return "\n".join(["catalog refused, the old one serves on:", *(f"    {each}" for each in exc.sentences())])
    counts = {
        "model": len(catalog.models),
        "agent": len(catalog.agents),
        "group": len(catalog.groups),
        "tool": len(catalog.tools),
    }
    return "catalog loaded: " + ", ".join(f"{n} {name}{'' if n == 1 else 's'}" for name, n in counts.items())
