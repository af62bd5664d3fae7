"""The catalog file: read once at the start, then watched. A bad new file is refused whole and the old one serves on."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import structlog

from kitemesh_runtime.catalog import Catalog, CatalogError, parse

log: Final = structlog.get_logger()

POLL_S: Final = 1.0


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

    def on_change(self, listener: Callable[[Catalog], None]) -> None:
        """Call back with each new catalog, after it serves."""
        self._listeners.append(listener)

    def reload_if_changed(self) -> None:
        """Read the file again when it changed; a bad one is logged and the old one stays."""
        if not self._file.has_changed():
            return
        try:
            catalog = read(self.path)
        except CatalogError as exc:
            log.error("catalog.refused", problems=exc.problems)  # noqa: TRY400  the problems say it all
            return
        self.current = catalog
        log.info("catalog.loaded", models=len(catalog.models), agents=len(catalog.agents), groups=len(catalog.groups))
        for listener in self._listeners:
            listener(catalog)

    async def watch(self) -> None:
        """Look for changes for ever."""
        while True:
            await asyncio.sleep(POLL_S)
            self.reload_if_changed()


@asynccontextmanager
async def open_catalog(path: Path) -> AsyncIterator[CatalogHandle]:
    """Read the catalog and keep it fresh while inside.

    Raises:
        CatalogError: The first read failed.

    """
    handle = CatalogHandle(path)
    watcher = asyncio.create_task(handle.watch(), name="catalog-watch")
    try:
        yield handle
    finally:
        watcher.cancel()


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0, 0)
    return (status.st_mtime_ns, status.st_size, status.st_ino)
