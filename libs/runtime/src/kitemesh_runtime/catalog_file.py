"""The catalog file: read once at the start, then watched. A bad new file is refused whole and the old one serves on."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import structlog

from kitemesh_contracts.errors import KitemeshError
from kitemesh_runtime.catalog import Catalog, CatalogError, Pools, parse
from kitemesh_runtime.metrics import CATALOG_REFUSED

log: Final = structlog.get_logger()

POLL_S: Final = 1.0
SETTLE_S: Final = 0.1

Objection = Callable[[Catalog], Awaitable[list[str]]]
"""Says why a readable catalog cannot serve, a sentence each; raises a `KitemeshError` when that cannot be told."""


def read(path: Path) -> Catalog:
    """Read a catalog file.

    Raises:
        CatalogError: It cannot be read or used.

    """
    name = str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        raise CatalogError([f"{name} does not exist; KITEMESH_CATALOG names the catalog"], name) from exc
    except OSError as exc:
        raise CatalogError([f"{name} cannot be read: {exc.strerror}"], name) from exc
    except UnicodeDecodeError as exc:
        raise CatalogError([f"{name} is not UTF-8 text"], name) from exc
    return parse(text, name)


class WatchedFile:
    """A file that may change; a file that is not there has a state, too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp = _stamp(path)

    def has_changed(self) -> bool:
        """Say whether it differs from when this was asked last."""
        before, self._stamp = self._stamp, _stamp(self.path)
        return before != self._stamp

    async def settle(self) -> None:
        """Return when nobody seems to be writing it any more: half a file may be a catalog, too."""
        while True:
            await asyncio.sleep(SETTLE_S)
            if not self.has_changed():
                return


class CatalogHandle:
    """The catalog that serves now. Read `current` anew for every piece of work.

    Raises:
        CatalogError: The first read failed.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Before it is read, so that no change falls in between.
        self._file = WatchedFile(path)
        self.current = read(path)
        self._listeners: list[Callable[[Catalog], None]] = []
        self._object: Objection | None = None
        self._served: Pools | None = None
        self._again = False
        self._told: list[str] = []

    def on_change(self, listener: Callable[[Catalog], None]) -> None:
        """Call back with each new catalog, after it serves."""
        self._listeners.append(listener)

    def object_by(self, objection: Objection) -> None:
        """Ask this of each catalog with other pools from now on, of the one that serves as soon as somebody watches.

        That one serves whatever is said of it, for there is no other.
        """
        self._object = objection
        self._again = True

    async def reload(self) -> None:
        """Read the file again; a bad one is logged and the old one stays."""
        self._again, event = False, "catalog.refused"
        try:
            # Off the loop, which has streams to serve: a large one takes its time.
            catalog = await asyncio.to_thread(read, self.path)
            problems = await self._objections(catalog)
            if catalog == self.current:
                event = "catalog.unserved"
        except CatalogError as exc:
            problems = exc.problems
        except KitemeshError as exc:
            self._again = True
            log.info("catalog.unchecked", reason=exc.message)
            return
        CATALOG_REFUSED.set(1 if problems else 0)
        if problems:
            if problems != self._told:
                log.error(event, problems=problems)
            self._told = problems
            return
        self._told = []
        if catalog == self.current:
            return
        self.current = catalog
        log.info("catalog.loaded", models=len(catalog.models), agents=len(catalog.agents), groups=len(catalog.groups))
        for listener in self._listeners:
            listener(catalog)

    async def watch(self) -> None:
        """Look for changes for ever."""
        while True:
            await asyncio.sleep(POLL_S)
            changed = self._file.has_changed()
            if changed:
                await self._file.settle()
            if changed or self._again:
                await self.reload()

    async def _objections(self, catalog: Catalog) -> list[str]:
        if self._object is None or catalog.pools == self._served:
            return []
        problems = await self._object(catalog)
        if problems:
            # They are not in the file: what is missing may come without a change of it.
            self._again = True
        else:
            self._served = catalog.pools
        return problems


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0, 0)
    return (status.st_mtime_ns, status.st_size, status.st_ino)
