"""How a service process starts and stops: settings, logs, signals, two speeds, exit codes.

Exit codes: 0 stopped on request, 1 something died, 78 the settings or the catalog are wrong (EX_CONFIG). The first
SIGTERM, SIGINT or SIGHUP asks for a drain; a second one asks for an immediate end, unless it is a SIGHUP.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, Final, NoReturn, TypeVar

import structlog
import uvloop

from kitemesh_runtime import catalog_file, logs
from kitemesh_runtime.catalog import CatalogError
from kitemesh_runtime.metrics import LOOP_LAG
from kitemesh_runtime.settings import Settings, SettingsError, load, render

S = TypeVar("S", bound=Settings)

EX_CONFIG: Final = 78
_LAG_TICK_S: Final = 1.0

log: Final = structlog.get_logger()


class Life:
    """One process's life, as its `app.py` sees it.

    Attributes:
        replica: Name of this process among its peers.
        stopping: Set by the first signal: stop taking work, finish what runs.
        stopping_now: Set by the second signal.

    """

    def __init__(self, replica: str, tasks: asyncio.TaskGroup) -> None:
        self.replica = replica
        self.stopping = asyncio.Event()
        self.stopping_now = asyncio.Event()
        self._tasks = tasks
        self._started = False

    @property
    def is_ready(self) -> bool:
        """Whether the process has started and is not stopping."""
        return self._started and not self.stopping.is_set()

    def ready(self) -> None:
        """Say that everything is up; called last."""
        self._started = True
        log.info("service.started", pid=os.getpid())

    @asynccontextmanager
    async def background(self, **works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Run tasks, named as they are given, while inside; the death of one is the process's."""
        tasks = [self._tasks.create_task(work, name=name) for name, work in works.items()]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Take one request to stop."""
        if self.stopping.is_set():
            if number == signal.SIGHUP:
                # A terminal that closes may say so twice, and means no haste.
                return
            self.stopping_now.set()
            log.warning("service.stop_forced")
        else:
            self.stopping.set()
            log.info("service.stop_requested")


async def watch_loop() -> None:
    """Measure how late the event loop is."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _LAG_TICK_S
        await asyncio.sleep(_LAG_TICK_S)
        LOOP_LAG.set(max(0.0, loop.time() - due))


async def live(settings: S, replica: str, serve: Callable[[S, Life], Awaitable[None]]) -> None:
    """Run `serve` until it returns, with signals and background tasks around it."""
    async with asyncio.TaskGroup() as tasks:
        life = Life(replica, tasks)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # Under nohup SIGHUP is ignored, and shall be.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                loop.add_signal_handler(number, life.signal, number)
        async with life.background(loop_lag=watch_loop()):
            await serve(settings, life)


def run(service: str, model: type[S], serve: Callable[[S, Life], Awaitable[None]]) -> NoReturn:
    """Be the whole `main()` of a service; ends the process.

    Args:
        service: Its name, such as `gateway`.
        model: Its settings.
        serve: Its composition root: opens everything, calls `life.ready()`, returns when it has drained.

    """
    name = f"kitemesh-{service}"
    arguments = _parse_arguments(name, serve)
    try:
        settings = load(model, os.environ)
        if arguments.check:
            sys.stdout.write(render(settings) + "\n")
        catalog_file.read(settings.catalog)
    except SettingsError as exc:
        _refuse(name, exc.problems)
    except CatalogError as exc:
        _refuse(name, exc.sentences())
    if arguments.check:
        sys.exit(0)
    replica = settings.replica or f"{service}-{os.urandom(4).hex()}"
    logs.configure(level=settings.log_level, log_format=settings.log_format, service=service, replica=replica)
    try:
        uvloop.run(live(settings, replica, serve))
    except BaseException as exc:
        # What only the service itself can tell, such as a pool that the catalog lacks.
        if problems := _catalog_problems(exc):
            _refuse(name, problems)
        log.critical("service.died", exc_info=exc)
        sys.exit(1)
    log.info("service.stopped")
    sys.exit(0)


def _parse_arguments(name: str, serve: Callable[..., object]) -> argparse.Namespace:
    # The composition root says in its docstring what the service does.
    purpose = (serve.__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(
        prog=name,
        description=f"{purpose} Settings come from KITEMESH_* variables; docs/settings.md lists them.",
    )
    parser.add_argument(
        "--check", action="store_true", help="print the effective settings, secrets masked, check the catalog, and exit"
    )
    parser.add_argument("--version", action="version", version=f"{name} {version(name)}")
    return parser.parse_args()


def _catalog_problems(error: BaseException) -> list[str]:
    """Return what is wrong with the catalog; empty when anything else went wrong."""
    if isinstance(error, CatalogError):
        return error.sentences()
    if not isinstance(error, BaseExceptionGroup):
        return []
    found = [_catalog_problems(each) for each in error.exceptions]
    return [problem for problems in found for problem in problems] if all(found) else []


def _refuse(name: str, problems: list[str]) -> NoReturn:
    for problem in problems:
        sys.stderr.write(f"{name}: {problem}\n")
    sys.exit(EX_CONFIG)
